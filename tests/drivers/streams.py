"""--streams mapped: the same bytes as in memory, through kills and with either cache, and nothing left behind."""

import re
import resource
import signal
import subprocess
from pathlib import Path

from programs import BIN, LLAMA, Programs, blocks, environment, main, perplexities

RUN = ["--model", LLAMA, "--calibrate", "books_valid:16x256", "--evaluate", "books_test:4x64", "--threads", "2"]
PROGRAMS = {"gptq": ["--weights", "int4:g64"], "flexround": ["--learning.steps", "4"]}


def open_files(pid, folder):
    """What the process has mapped of a folder that no longer has a name."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as file:
        return [line for line in file if str(folder) in line and line.rstrip().endswith("(deleted)")]


def stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in "TZ"


class Streams(Programs):
    def results(self, name):
        (self.folder / name).mkdir(exist_ok=True)
        return ["--results", self.folder / name / "results.h5"]

    def leftovers(self, name):
        """Files in the cache's folder that are no caches."""
        return [p.name for p in (self.folder / name / "results.h5.d/cache").iterdir() if not re.fullmatch(r"[0-9a-f]{64}(\.moments\.\d+)?\.h5(\.lock)?", p.name)]

    def test_results_are_the_same_to_the_last_bit(self):
        for program, more in PROGRAMS.items():
            kept = None
            for stream in ("all", "last"):
                for streams in ("memory", "mapped"):
                    name = f"{program}-{stream}-{streams}"
                    runs = self.figures(program, *RUN, *more, "--cache-stream", stream, "--streams", streams, *self.results(name))
                    found = blocks(self.folder / name / "results.h5"), perplexities(runs)
                    kept = kept or found
                    self.assertEqual(found, kept, name)
                    self.assertEqual(self.leftovers(name), [])

    def test_a_killed_run_goes_on_with_either_setting(self):
        for stream in ("all", "last"):
            for first, second in (("mapped", "mapped"), ("mapped", "memory"), ("memory", "mapped")):
                self.assertTrue(any(self.killed_and_resumed(stream, first, second, samples) for samples in (16, 64, 256)), "always finished first")

    def killed_and_resumed(self, stream, first, second, samples):
        """False where the run was done before it could be stopped."""
        name = f"{stream}-{first}-{second}-{samples}"
        run = [text.replace("16x256", f"{samples}x256") for text in map(str, [*RUN, *PROGRAMS["gptq"]])]
        options = [*run, "--cache-stream", stream, *self.results(name)]
        process = self.start("gptq", *options, "--streams", first)
        found = lambda: blocks(self.folder / name / "results.h5")
        self.wait_for(lambda: found() or process.poll() == 0, process)
        process.send_signal(signal.SIGSTOP)
        self.wait_for(lambda: process.poll() == 0 or stopped(process.pid), process)
        if len(found()) == 4:
            self.end(process)
            return False
        scratch = open_files(process.pid, self.folder.resolve())
        self.assertEqual(bool(scratch), first == "mapped", scratch)
        for line in scratch:
            self.assertIn(f"{name}/results.h5.d", line)
        process.kill()
        self.end(process)
        self.assertEqual(self.leftovers(name), [])
        self.run_program("gptq", *options, "--streams", second, "--resume", "--quiet")
        if not (self.folder / f"whole-{samples}").exists():
            self.run_program("gptq", *run, *self.results(f"whole-{samples}"), "--quiet")
        self.assertEqual(found(), blocks(self.folder / f"whole-{samples}/results.h5"), name)
        self.assertEqual(len(found()), 4)
        return True

    def test_a_plan_says_what_lies_where(self):
        large = [text.replace("16x256", "64x256") for text in map(str, RUN)]
        plan = lambda streams: self.run_program("gptq", *large, "--streams", streams, "--dry-run").out
        memory, mapped = plan("memory"), plan("mapped")
        stream = 64 * 256 * 128 * 4 / 1e9
        self.assertIn(f"streams {4 * stream:.3f} and", memory)
        self.assertNotIn("temporary files", memory)
        self.assertIn(f"streams {4 * 4096 * 128 * 4 / 1e9:.3f} and", mapped)  # of one batch
        self.assertRegex(mapped, rf"streams +{2 * stream:.3f} GB in temporary files in \S*cache")  # those of the cache are mapped where they are
        most = lambda text: float(re.search(r"at most ([\d.]+) GB", text)[1])
        self.assertLess(most(mapped), most(memory))

    def test_a_disk_without_room_is_an_error_that_names_the_folder(self):
        stream = 16 * 256 * 128 * 4  # bytes of one stream; the limit on files lies below it, above everything else
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (stream - 4096, stream - 4096))
        command = [str(BIN / "gptq"), *map(str, RUN), *PROGRAMS["gptq"], "--streams", "mapped", "--cache-stream", "last", *map(str, self.results("full"))]
        done = subprocess.run(command, capture_output=True, cwd=self.folder, env=environment(), preexec_fn=limit, check=False, timeout=300)
        error = done.stderr.decode()
        self.assertEqual(done.returncode, 1, error)
        self.assertRegex(error, rf"error: \S*results.h5.d/cache: no room for a temporary file: {stream} bytes are needed, {stream - 4096} may be used")
        self.assertEqual(self.leftovers("full"), [])

    def test_a_cache_folder_that_may_not_be_written_is_named(self):
        self.run_program("gptq", *RUN, "--streams", "mapped", "--cache", "/proc/cache", status=1, says="/proc/cache")


main()
