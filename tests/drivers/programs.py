"""Runs the built programs as a user would: a fresh folder a test, exit statuses checked, no crash tolerated."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

try:
    import h5py
except ImportError:
    h5py = None

SOURCE = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("PTQ_BIN", SOURCE / "build/bin")).resolve()
DATA = Path(os.environ.get("PTQ_DATA", SOURCE / "data"))
LLAMA, OPT = DATA / "models/llama_books", DATA / "models/opt_books"
GGUF = DATA / "models/gguf/llama_mixed_types.gguf"
TEXTS = DATA / "texts"
SMALL = ["--calibrate", "books_valid:4x64", "--evaluate", "books_test:4x64", "--threads", "2"]


def environment(**more):
    kept = {k: v for k, v in os.environ.items() if k not in ("PTQ_TEXTS", "PTQ_DATA")}
    return kept | {"OMP_WAIT_POLICY": "PASSIVE", "PTQ_DATA": str(DATA)} | more


class Outcome:
    def __init__(self, arguments, status, out, err):
        self.arguments, self.status, self.out, self.err = arguments, status, out, err

    def __str__(self):
        out = self.out if isinstance(self.out, str) else f"{len(self.out)} bytes"
        return f"{' '.join(self.arguments)}\nexit status {self.status}\n--- standard output\n{out}\n--- standard error\n{self.err}"


class Programs(unittest.TestCase):
    """A test case with a folder of its own, in which programs run."""

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ptq-drivers-"))
        self.addCleanup(shutil.rmtree, self.folder, True)

    def command(self, program, *arguments):
        return [str(BIN / program), *map(str, arguments)]

    def run_program(self, program, *arguments, status=0, says=None, binary=False, timeout=300, env=None, **options):
        """Fails unless the program ends with `status` and its errors match `says`. A crash is never the status wanted."""
        command = self.command(program, *arguments)
        done = subprocess.run(command, capture_output=True, cwd=options.pop("cwd", self.folder), env=environment(**(env or {})), timeout=timeout, check=False, **options)
        result = Outcome(command, done.returncode, done.stdout if binary else done.stdout.decode(), done.stderr.decode(errors="replace"))
        self.assertEqual(result.status, status, str(result))
        if says is not None:
            self.assertRegex(result.err, says, str(result))
        if status in (1, 2):
            self.assertRegex(result.err, r"(?m)^(error|show): \S", str(result))
        return result

    def start(self, program, *arguments):
        process = subprocess.Popen(self.command(program, *arguments), cwd=self.folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.kill()
        with contextlib.suppress(ValueError):
            process.communicate()

    def wait_for(self, condition, process, seconds=120):
        """Waits until `condition()` is true; fails when the process ends first."""
        until = time.monotonic() + seconds
        while not condition():
            if process.poll() is not None:
                self.fail(f"the program ended early with {process.returncode}: {process.communicate()[1].decode()}")
            self.assertLess(time.monotonic(), until, "waited in vain")
            time.sleep(0.002)

    def figures(self, program, *arguments, **options):
        """Runs with --json and returns the list of runs."""
        path = self.folder / "figures.json"
        path.unlink(missing_ok=True)
        self.run_program(program, *arguments, "--json", path, **options)
        return json.loads(path.read_text())["runs"]

    def copy_model(self, source, name="model"):
        to = self.folder / name
        shutil.rmtree(to, True)
        return Path(shutil.copytree(source, to))


def run_folders(results):
    """Folders of blocks beside a results file, by name."""
    folder = Path(f"{results}.d")
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name != "cache") if folder.is_dir() else []


def blocks(results):
    """Bytes of every committed block, by digest and file."""
    return {f"{folder.name}/{p.name}": p.read_bytes() for folder in run_folders(results) for p in sorted(folder.glob("block_*.h5"))}


def leftovers(folder):
    """Half-written files."""
    return [p for p in Path(folder).rglob("*") if p.name.endswith((".part", ".tmp"))]


def perplexities(runs):
    return [[e["perplexity"] for e in run["evaluations"]] for run in runs]


def skip(reason):
    """Visible in the log of all tests, and in unittest's count."""
    print(f"SKIPPED: {reason}", flush=True)
    raise unittest.SkipTest(reason)


def main():
    """Runs the tests of the calling script; exit status 77 when every one was skipped."""
    program = unittest.main(module="__main__", exit=False, verbosity=2)
    result = program.result
    if result.testsRun and len(result.skipped) == result.testsRun:
        sys.exit(77)
    sys.exit(not result.wasSuccessful())
