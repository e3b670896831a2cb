#!/usr/bin/env python3
"""Compiles one file exactly as the build would, and demands that it fails with the sentence the file itself expects.

usage: check.py compile_commands.json FILE       FILE says `// expect: SENTENCE`, beside the wrong line or above it; X_control.cpp must compile
       check.py compile_commands.json FILE --self-test      break a control in three ways and demand that this program notices
"""

import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path


def compile_as(database, file, source):
    """Exit status and messages of the compiler for the text of `source`, with the command the build has for `file`."""
    entry = next((e for e in json.loads(Path(database).read_text()) if Path(e["file"]).resolve() == file.resolve()), None)
    if entry is None:
        sys.exit(f"{file}: not in {database}; configure again")
    command = shlex.split(entry["command"])
    command[command.index(entry["file"])] = str(source)
    with tempfile.TemporaryDirectory() as folder:
        for option in ("-o", "-MF", "-MT"):
            if option in command:
                command[command.index(option) + 1] = f"{folder}/out"
        # no caret: the compiler would quote the source, and with it the sentence that is looked for
        command += ["-fno-diagnostics-show-caret", "-I", str(file.parent)]
        done = subprocess.run(command, cwd=entry["directory"], capture_output=True, text=True, errors="replace")
    return done.returncode, done.stdout + done.stderr


def judge(file, status, messages):
    """None when the compiler did what the file says, else a sentence."""
    text = file.read_text()
    if file.stem.endswith("_control"):
        return None if status == 0 else f"{file.name}: this control must compile:\n{messages[:4000]}"
    expected = re.findall(r"//\s*expect:\s*(.+?)\s*$", text, re.M)
    if not expected:
        return f"{file.name}: says no `// expect: SENTENCE`"
    if status == 0:
        return f"{file.name}: it compiles"
    flat = " ".join(messages.split())
    missing = [sentence for sentence in expected if " ".join(sentence.split()) not in flat]
    return f"{file.name}: fails, but without the sentence {missing[0]!r}:\n{messages[:4000]}" if missing else None


def self_test(database, file):
    """The control's own command compiles three texts that are wrong in ways this program must notice, and one that is right."""
    cases = [
        ("// expect: never seen\nint main() {}\n", "it compiles"),
        ("// expect: grids have levels\nint main() { undeclared(); }\n", "without the sentence"),
        ("int main() { undeclared(); }\n", "says no"),
        ('static_assert(false, "grids have levels");  // expect: grids have levels\nint main() {}\n', None),
    ]
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for text, expected in cases:
            source = Path(folder) / "case.cpp"
            source.write_text(text)
            found = judge(source, *compile_as(database, file, source))
            if (found is None) != (expected is None) or (expected and expected not in found):
                wrong.append(f"{text!r}: {found}")
    return "\n".join(wrong) or None


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    path = Path(sys.argv[2])
    failure = self_test(sys.argv[1], path) if sys.argv[3:] == ["--self-test"] else judge(path, *compile_as(sys.argv[1], path, path))
    if failure:
        sys.exit(failure)
