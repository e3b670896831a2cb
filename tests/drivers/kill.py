"""A run that is killed, or interrupted, and started again ends as if nothing had happened."""

import random
import signal
import time

from programs import LLAMA, Programs, blocks, leftovers, main, perplexities, run_folders

RUN = ["--model", LLAMA, "--weights", "int4:g64", "--calibrate", "books_valid:16x256", "--evaluate", "books_test:8x256", "--threads", "2"]
KILLS = 20


class Killed(Programs):
    def results(self, name):
        return ["--results", self.folder / name / "results.h5"]

    def undisturbed(self, *more):
        (self.folder / "whole").mkdir(exist_ok=True)
        begun = time.monotonic()
        runs = self.figures("gptq", *RUN, *more, *self.results("whole"))
        return runs, blocks(self.folder / "whole/results.h5"), time.monotonic() - begun

    def test_at_random_instants_it_resumes_to_the_same_bytes(self):
        seed = random.SystemRandom().randrange(2**32)
        print(f"random seed {seed}", flush=True)
        chance = random.Random(seed)
        whole, whole_blocks, seconds = self.undisturbed()
        self.assertEqual(len(whole_blocks), 4)
        stages = {"before the first block": 0, "between blocks": 0, "after the last": 0, "ended before the kill": 0}
        for kill in range(KILLS):
            name = f"kill{kill}"
            (self.folder / name).mkdir()
            for _ in range(1 + kill % 2):  # every other run is killed twice in a row
                process = self.start("gptq", *RUN, *self.results(name))
                if kill % 3 == 0:  # anywhere
                    time.sleep(chance.uniform(0, seconds))
                else:  # while blocks are made
                    self.wait_for(lambda: run_folders(self.folder / name / "results.h5"), process)
                    time.sleep(chance.uniform(0, seconds * 0.7))
                process.send_signal(signal.SIGKILL)
                ended = process.wait() == 0
                self.end(process)
                there = len(blocks(self.folder / name / "results.h5"))
                stages["ended before the kill" if ended else "before the first block" if there == 0 else "between blocks" if there < 4 else "after the last"] += 1
            runs = self.figures("gptq", *RUN, *self.results(name))
            self.assertEqual(blocks(self.folder / name / "results.h5"), whole_blocks, f"kill {kill} of seed {seed}")
            self.assertEqual(perplexities(runs), perplexities(whole), f"kill {kill} of seed {seed}")
            self.assertEqual([p.name for p in (self.folder / name).rglob("stream_*.h5")], [])
        print(f"kills by what was committed: {stages}", flush=True)
        self.assertGreater(KILLS, stages["ended before the kill"], "no kill met a running program")

    def test_just_as_a_block_or_a_stream_appears_it_resumes_to_the_same_bytes(self):
        _, whole_blocks, _ = self.undisturbed()
        for pattern in ("stream_0000.h5", "block_0000.h5", "report_0001.h5", "block_0001.h5.*.part", "block_0003.h5"):
            with self.subTest(pattern):
                name = pattern.replace("*", "any")
                (self.folder / name).mkdir()
                process = self.start("gptq", *RUN, *self.results(name))
                while process.poll() is None and not any((self.folder / name).rglob(pattern)):
                    pass
                process.kill()
                self.end(process)
                self.run_program("gptq", *RUN, *self.results(name), "--quiet")
                self.assertEqual(blocks(self.folder / name / "results.h5"), whole_blocks)

    def test_by_ctrl_c_it_finishes_the_commit_and_says_how_to_resume(self):
        whole, whole_blocks, _ = self.undisturbed()
        (self.folder / "stopped").mkdir()
        file = self.folder / "stopped/results.h5"
        process = self.start("gptq", *RUN, *self.results("stopped"), "--quiet")
        self.wait_for(lambda: blocks(file), process)
        process.send_signal(signal.SIGINT)
        error = process.communicate()[1].decode()
        self.assertEqual(process.returncode, 130, error)
        self.assertRegex(error, r"interrupted .*the same command goes on from there")
        self.assertEqual(leftovers(self.folder / "stopped"), [])
        kept = blocks(file)
        self.assertGreaterEqual(len(kept), 1)
        for name, content in kept.items():
            self.assertEqual(content, whole_blocks[name])
        runs = self.figures("gptq", *RUN, *self.results("stopped"), "--resume")
        self.assertEqual(blocks(file), whole_blocks)
        self.assertEqual(perplexities(runs), perplexities(whole))

    def test_by_ctrl_c_before_the_first_block_it_stops_soon(self):
        (self.folder / "early").mkdir()
        process = self.start("gptq", "--model", LLAMA, "--calibrate", "books_valid:4x64", "--evaluate", "wikitext2", *self.results("early"))
        self.wait_for(lambda: run_folders(self.folder / "early/results.h5"), process)
        process.send_signal(signal.SIGINT)
        error = process.communicate()[1].decode()
        self.assertEqual(process.returncode, 130, error)
        self.assertRegex(error, "interrupted while full precision was evaluated")

    def test_resume_demands_something_to_resume(self):
        (self.folder / "fresh").mkdir()
        self.run_program("gptq", *RUN, *self.results("fresh"), "--resume", status=2, says="--resume: .*no run with these arguments")

    def test_other_arguments_never_pick_up_its_state(self):
        other = ["--solver.damp", "0.02"]
        _, whole_blocks, _ = self.undisturbed(*other)
        (self.folder / "mixed").mkdir()
        file = self.folder / "mixed/results.h5"
        process = self.start("gptq", *RUN, *self.results("mixed"))
        self.wait_for(lambda: len(blocks(file)) >= 2, process)
        process.kill()
        self.end(process)
        foreign = blocks(file)
        self.run_program("gptq", *RUN, *other, *self.results("mixed"), "--resume", status=2)
        self.run_program("gptq", *RUN, *other, *self.results("mixed"), "--quiet")
        now = blocks(file)
        self.assertEqual({k: v for k, v in now.items() if k not in foreign}, whole_blocks)
        self.assertEqual({k: v for k, v in now.items() if k in foreign}, foreign)

    def test_everything_that_changes_bytes_is_another_folder(self):
        small = ["--model", LLAMA, "--evaluate", "books_test:2x64", "--results", self.folder / "r.h5", "--quiet"]
        usual = {"--weights": "int4:g64", "--calibrate": "books_valid:4x64", "--threads": "2"}
        changes = [{}, {"--weights": "int3:g64"}, {"--calibrate": "books_valid:5x64"}, {"--calibrate": "books_valid:4x32"}, {"--seed": "1"}, {"--threads": "1"},
                   {"--dtype": "f64"}, {"--bos": "none"}, {"--solver.order": "natural"}, {"--activations": "int8"}, {"--override": "blocks.0.*=int8"},
                   {"--outputs": "v=int8"}, {"--attention": "q=int8"}, {"--sampling": "flexround"}]
        for count, change in enumerate(changes, 1):
            options = [text for pair in (usual | change).items() for text in pair]
            self.run_program("gptq", *small, *options)
            self.assertEqual(len(run_folders(self.folder / "r.h5")), count, f"{change} shares its folder with another")
        own = self.figures("gptq", *small, *[text for pair in usual.items() for text in pair])[0]["machine"]["isa"]
        self.run_program("gptq", *small, *[text for pair in usual.items() for text in pair], env={"PTQ_ISA": "portable"})
        self.assertEqual(len(run_folders(self.folder / "r.h5")), len(changes) + (own != "portable"), "the instruction path shares its folder with another")


main()
