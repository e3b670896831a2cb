"""Two writers at once, places that cannot be written, disks that are full."""

import csv
import os
import resource
import shutil
import signal
import subprocess
import unittest

from programs import BIN, LLAMA, SMALL, Programs, blocks, environment, h5py, leftovers, main, run_folders, skip

RUN = ["--model", LLAMA, "--weights", "int4:g64", *SMALL]
LONG = ["--model", LLAMA, "--weights", "int4:g64", "--calibrate", "books_valid:32x256", "--evaluate", "books_test:4x64", "--threads", "2"]


class Together(Programs):
    def test_a_second_writer_of_the_same_run_is_told_who_holds_which_lock(self):
        file = self.folder / "results.h5"
        first = self.start("gptq", *LONG)
        self.wait_for(lambda: blocks(file), first)
        first.send_signal(signal.SIGSTOP)  # holds its lock for as long as we look
        lock = run_folders(file)[0] / "run.lock"
        self.run_program("gptq", *LONG, status=1, says=f"is being written by process {first.pid}, which holds results.h5.d/{lock.parent.name}/run.lock")
        first.send_signal(signal.SIGCONT)
        self.assertEqual(first.wait(), 0)
        self.run_program("gptq", *LONG)

    def test_a_run_may_be_evaluated_while_another_program_writes_it(self):
        file = self.folder / "results.h5"
        self.run_program("gptq", *RUN, "--quiet")
        run = run_folders(file)[0]
        again = self.start("gptq", *RUN, "--evaluate", "wikitext2:40x256")
        self.run_program("evaluate", run, "--evaluate", "books_test:2x64", "--quiet")
        self.end(again)

    def test_different_runs_into_one_collection_both_land(self):
        programs = [self.start("gptq", *RUN), self.start("rtn", *RUN), self.start("rtn", "--model", LLAMA, "--weights", "int3:g64", *SMALL)]
        for process in programs:
            out, err = process.communicate()
            self.assertEqual(process.returncode, 0, (out + err).decode())
        labels = [row[0] for row in csv.reader(self.run_program("show", "results.h5", "--format", "csv").out.splitlines()[1:])]
        self.assertEqual(sorted(labels), ["full precision", "gptq(order=descending, static_groups=true) int4:g64", "rtn int3:g64", "rtn int4:g64"])


class Unwritable(Programs):
    def test_a_folder_that_is_not_there(self):
        self.run_program("rtn", *RUN, "--results", "nowhere/results.h5", status=1, says="nowhere/results.h5")

    def test_a_place_for_figures_that_cannot_be_written_is_found_before_the_work(self):
        self.run_program("rtn", *RUN, "--json", "nowhere/figures.json", status=1, says="nowhere/figures.json")
        self.run_program("rtn", *RUN, "--cache", "/proc/cache", status=1, says="/proc/cache")
        self.assertEqual(run_folders(self.folder / "results.h5"), [])

    def test_results_that_are_something_else(self):
        (self.folder / "folder.h5").mkdir()
        self.run_program("rtn", *RUN, "--results", "folder.h5", status=1, says="folder.h5: is a folder")
        os.mkfifo(self.folder / "pipe.h5")
        self.run_program("rtn", *RUN, "--results", "pipe.h5", status=1, says="pipe.h5: is no regular file")
        self.run_program("rtn", *RUN, "--results", "/dev/null", status=1, says="/dev/null: is no regular file")
        text = self.folder / "text.h5"
        text.write_text("precious\n")
        self.run_program("rtn", *RUN, "--results", text, status=1, says="text.h5: exists and is not replaced")
        self.assertEqual(text.read_text(), "precious\n")

    @unittest.skipUnless(h5py, "h5py is not there")
    def test_results_of_another_program_are_not_replaced(self):
        foreign = self.folder / "foreign.h5"
        with h5py.File(foreign, "w") as file:
            file["x"] = 1
        before = foreign.read_bytes()
        self.run_program("rtn", *RUN, "--results", foreign, status=1, says="foreign.h5: exists and is not replaced")
        self.assertEqual(foreign.read_bytes(), before)

    def test_a_folder_without_the_right_to_write(self):
        place = self.folder / "locked"
        place.mkdir()
        place.chmod(0o555)
        options = {}
        if os.geteuid() == 0:  # root may write anywhere: become nobody, where nobody can reach the programs
            os.chmod(self.folder, 0o755)
            options = {"user": 65534, "group": 65534, "extra_groups": []}
            try:
                if subprocess.run([BIN / "rtn", "--help"], capture_output=True, env=environment(), cwd="/", **options).returncode != 0:
                    skip("nobody cannot start the programs here")
            except OSError:
                skip("nobody cannot start the programs here")
        self.run_program("rtn", *RUN, "--results", place / "results.h5", status=1, says="locked/results.h5: cannot be written", **options)


class FullDisk(Programs):
    def check_whole(self, results):
        """Whatever lies under a final name can be read."""
        self.assertEqual(leftovers(results.parent), [])
        if results.exists():
            self.run_program("show", results)
        if h5py:
            for path in results.parent.rglob("*.h5"):
                h5py.File(path).close()

    def test_a_limit_on_the_size_of_files(self):
        """Each file in turn is the one that does not fit."""
        file = self.folder / "results.h5"
        failed = set()
        for limit in (1000, 12_000, 100_000, 500_000):
            limited = lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            done = self.run_program("gptq", *RUN, status=1, says=r"no room for it: \d+ bytes are needed, \d+ may be used", preexec_fn=limited)
            failed.add(done.err.split("error: ")[1].split(":")[0])
            self.check_whole(file)
        print(f"too large: {sorted(failed)}", flush=True)
        self.assertGreater(len(failed), 1)
        runs = self.figures("gptq", *RUN)
        (self.folder / "clean").mkdir()
        clean = self.figures("gptq", *RUN, "--results", self.folder / "clean/results.h5")
        self.assertEqual(blocks(file), blocks(self.folder / "clean/results.h5"))
        self.assertEqual([r["evaluations"] for r in runs], [r["evaluations"] for r in clean])

    def test_a_small_disk(self):
        if os.geteuid() != 0 or shutil.which("mount") is None:
            skip("a small disk needs root and mount")
        disk = self.folder / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], capture_output=True).returncode != 0:
            skip("a small disk cannot be mounted here")
        try:
            failures = 0
            for kilobytes in (16, 64, 700, 800, 900, 1000, 1200, 1600, 2400, 20_000):
                subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", disk], check=True)
                command = self.command("gptq", *RUN, "--results", disk / "results.h5")
                done = subprocess.run(command, capture_output=True, env=environment(), timeout=120)
                error = done.stderr.decode()
                self.assertIn(done.returncode, (0, 1), error)
                if done.returncode == 1:
                    failures += 1
                    self.assertRegex(error, r"error: \S*disk/\S+: (no room for it: \d+ bytes are needed|.*No space left on device)")
                self.check_whole(disk / "results.h5")
            print(f"{failures} sizes of the disk were too small", flush=True)
            self.assertGreaterEqual(failures, 3)
            self.assertEqual(done.returncode, 0, "the disk was large enough at last")
            self.run_program("gptq", *RUN)
            self.assertEqual(blocks(disk / "results.h5"), blocks(self.folder / "results.h5"))
        finally:
            subprocess.run(["umount", "-l", disk], check=False)


main()
