#!/usr/bin/env python3
"""Compiles each header by itself, warnings included: what it uses, it includes.

usage: headers.py ROOT BUILD [--self-test]

A header that reaches ATen is compiled with the precompiled header (which holds nothing of ours), any other without libtorch at all. The
commands are those of BUILD/compile_commands.json. The same as the target all_verify_interface_header_sets in a quarter of the time.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from structure import Tree  # noqa: E402

DOOR = ("include/ptq/core/tensor.hpp", "include/ptq/core/minimize.hpp")


def command_of(build, ending):
    """The compiler, flags and folders of the build's command for the source whose path ends so."""
    entries = json.loads((build / "compile_commands.json").read_text())
    entry = next((e for e in entries if e["file"].endswith(ending)), None)
    if entry is None:
        sys.exit(f"{ending}: not in {build}/compile_commands.json; configure with PTQ_TORCH and PTQ_TESTS")
    words = shlex.split(entry["command"])
    words = words[: words.index("-o")] if "-o" in words else words
    drop = {i + j for i, word in enumerate(words) if word in ("-MT", "-MF") for j in (0, 1)}
    return [word for i, word in enumerate(words) if i not in drop and word != "-MD"], entry["directory"]


def complaint(include, path, command, folder):
    with tempfile.TemporaryDirectory() as aside:
        source = Path(aside) / "header.cpp"
        source.write_text(f"#include <{include}>\n#include <{include}>\n")
        done = subprocess.run(command + ["-fsyntax-only", "-Werror", str(source)], cwd=folder, capture_output=True, text=True, errors="replace")
    return None if done.returncode == 0 else f"{path} does not compile by itself:\n{done.stdout}{done.stderr}"


def check(root, build, wanted=None):
    tree = Tree(root)
    torch, plain = command_of(build, "compile_fail/harness_control.cpp"), command_of(build, "tests/digest_test.cpp")
    headers = [path for path in tree.includes if path.startswith("include/") and path.endswith(".hpp") and (wanted is None or wanted(path))]
    reaches = {path: any(door in tree.reach(path) for door in DOOR) for path in headers}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda path: complaint(path[len("include/"):], path, *(torch if reaches[path] else plain)), headers))
    print(f"{len(headers)} headers, {sum(reaches.values())} of them with libtorch, {sum(f is not None for f in found)} wrong")
    return [sentence for sentence in found if sentence]


def self_test(root, build):
    """One header that forgets an include of ours, one that forgets the standard library's: both must be noticed."""
    command, folder = command_of(build, "tests/digest_test.cpp")
    with tempfile.TemporaryDirectory() as aside:
        wrong = 0
        cases = [
            ("a", "inline ptq::Error e();", False),
            ("b", "inline std::string s();", False),
            ("c", "#include <string>\ninline std::string s() { return {}; }", True),
        ]
        for name, text, sound in cases:
            (Path(aside) / f"{name}.hpp").write_text(f"#pragma once\n{text}\n")
            wrong += (complaint(f"{name}.hpp", name, command + ["-I", aside], folder) is None) != sound
    print(f"three headers, {wrong} misjudged")
    return wrong


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    root, build = Path(sys.argv[1]), Path(sys.argv[2])
    if sys.argv[3:] == ["--self-test"]:
        sys.exit(1 if self_test(root, build) else 0)
    complaints = check(root, build)
    print("\n".join(complaints))
    sys.exit(1 if complaints else 0)
