#!/usr/bin/env python3
"""Checks that the documentation says what the tree holds.

usage: check.py ROOT [BIN]     BIN: folder of built programs, whose --help is compared with docs/command_line.md
       check.py --self-test    break each rule in a small tree of its own and demand that it is noticed

Links and anchors lead somewhere; files named in `ticks` exist; every policy has a page that lists its fields with their defaults; every
snippet after <!-- from FILE --> stands in FILE, line for line; methods that are named exist; options are those of the programs.
Prints file:line: sentence for each violation; exit status 1 if there is one, 77 if nothing is wrong but a program is not built.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

AXES = ("rounding", "smoothing", "loss", "solver", "correction", "adaptation")
# Sections of docs/command_line.md by the programs whose options they list, all together.
PROGRAMS = {"Drivers": ("gptq", "gptaq", "awrq", "claq", "flexround", "lrq", "omniquant", "lrquant", "lrquant_tta", "l2qer", "qera", "quickstart_table"), "inspect": ("inspect",), "evaluate": ("evaluate",), "generalisation": ("generalisation",), "show": ("show",)}
PLACES = ("", "include/ptq", "include", "kernels", "kernels/include/ptq", "docs", "tests", "experiments")  # where a named file may lie
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9_.-]*[a-z0-9]")


class Page:
    def __init__(self, root, path):
        self.path, self.name = path, path.relative_to(root).as_posix()
        self.lines = path.read_text(encoding="utf-8").splitlines()
        self.prose, self.blocks, fence, origin = [], [], None, None  # prose: (line, text); blocks: (line, origin, lines)
        for number, line in enumerate(self.lines, 1):
            if line.lstrip().startswith("```"):
                if fence is None:
                    fence = (number, origin, [])
                else:
                    self.blocks.append(fence)
                    fence = None
                origin = None
            elif fence is not None:
                fence[2].append(line)
            else:
                self.prose.append((number, line))
                mark = re.fullmatch(r"<!-- from (\S+) -->", line.strip())
                origin = mark[1] if mark else origin if not line.strip() else None
        if fence is not None:
            self.prose.append((fence[0], "```"))  # an open fence; said by `fences`

    def anchors(self):
        found = set()
        for _, line in self.prose:
            if match := re.match(r"#+\s+(.*)", line):
                text = re.sub(r"[`*]", "", match[1]).strip().lower()
                found.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", text)))
        return found


def pages(root):
    files = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [Page(root, f) for f in files if f.exists()]


def links(root):
    for page in pages(root):
        for number, line in page.prose:
            for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", line)):
                if re.match(r"https?://", target):
                    continue
                file, _, anchor = target.partition("#")
                to = (page.path.parent / file).resolve() if file else page.path
                if not to.exists() or not to.is_relative_to(root.resolve()):
                    yield f"{page.name}:{number}: the link {target} leads nowhere"
                elif anchor and to.suffix == ".md" and anchor not in Page(root.resolve(), to.resolve()).anchors():
                    yield f"{page.name}:{number}: the link {target} leads to no heading"


def files(root):
    for page in pages(root):
        for number, line in page.prose:
            for name in re.findall(r"`([\w./-]+\.(?:hpp|cpp|inl|cu|cuh|py|cmake))`", line):
                if not any((root / place / name).exists() for place in PLACES):
                    yield f"{page.name}:{number}: there is no file {name}"


def fences(root):
    for page in pages(root):
        for number, line in page.prose:
            if line == "```":
                yield f"{page.name}:{number}: a code block that does not end"


def dedented(lines):
    rows = [line.rstrip() for line in lines]
    indent = min((len(r) - len(r.lstrip()) for r in rows if r), default=0)
    return [r[indent:] for r in rows]


def snippets(root):
    for page in pages(root):
        for number, origin, lines in page.blocks:
            if origin is None:
                continue
            if not (root / origin).is_file():
                yield f"{page.name}:{number}: a snippet from {origin}, which does not exist"
                continue
            source = (root / origin).read_text(encoding="utf-8").splitlines()
            wanted = dedented(lines)
            if not wanted or not any(dedented(source[i:i + len(wanted)]) == wanted for i in range(len(source) - len(wanted) + 1)):
                yield f"{page.name}:{number}: this snippet is not what {origin} holds"


def policies(root):
    """(name, header, {field: default}) of every policy of every axis."""
    for axis in AXES:
        headers = [root / f"include/ptq/{axis}.hpp", *sorted((root / f"include/ptq/{axis}").rglob("*.hpp"))]
        for header in headers:
            text = header.read_text(encoding="utf-8") if header.exists() else ""
            for adapted in re.finditer(r"BOOST_HANA_ADAPT_STRUCT\(ptq::(\w+)((?:,\s*\w+)*)\)", text):
                body = text[text.index(f"struct {adapted[1]} {{"):] if f"struct {adapted[1]} {{" in text else ""
                fields = {}
                for field in re.findall(r"\w+", adapted[2]):
                    value = re.search(r"\b%s = ([^;]+);" % field, body)
                    fields[field] = value[1].split("::")[-1].replace("nullopt", "none") if value else "?"
                yield adapted[1], header.relative_to(root).as_posix(), fields


def policy_pages(root):
    every = {page: "\n".join(page.lines) for page in pages(root) if page.name.startswith("docs/policies/")}
    for name, header, fields in policies(root):
        own = [p for p, text in every.items() if re.search(r"^#+ `?%s`?$" % name, text, re.M)]
        if len(own) != 1:
            yield f"{header}:1: {name} has {len(own)} pages in docs/policies with a heading of its name, not one"
            continue
        rows = {m[1]: m[2] for m in re.finditer(r"^\| `(\w+)` \| `([^`]+)` \|", every[own[0]], re.M)}
        for field, default in fields.items():
            if rows.get(field) != default:
                yield f"{own[0].name}:1: the field {field} of {name} is listed with default {rows.get(field)}, not {default}"
        if len([n for n, _, _ in policies(root) if re.search(r"^#+ `?%s`?$" % n, every[own[0]], re.M)]) == 1:
            for row in rows.keys() - fields.keys():
                yield f"{own[0].name}:1: {name} has no field {row}"


def methods(root):
    header = root / "include/ptq/methods.hpp"
    known = set(re.findall(r"inline constexpr Recipe<.*?> (\w+)", header.read_text(encoding="utf-8"))) if header.exists() else set()
    for page in pages(root):
        for number, line in enumerate(page.lines, 1):
            for name in re.findall(r"\bmethods::(\w+)", line):
                if name not in known:
                    yield f"{page.name}:{number}: there is no methods::{name}"


def commands(root):
    script = root / "quickstart"
    known = set(re.findall(r"^  ([a-z]+)(?: \|[^)]*)?\)", script.read_text(encoding="utf-8"), re.M)) if script.exists() else set()
    for page in pages(root):
        for number, line in enumerate(page.lines, 1):
            for name in re.findall(r"\./quickstart ([a-z]+)", line):
                if name not in known:
                    yield f"{page.name}:{number}: quickstart has no command {name}"


def options(root, helps):
    """helps: {program: text of its --help}; sections whose programs are not there are left out."""
    page = next((p for p in pages(root) if p.name == "docs/command_line.md"), None)
    if page is None:
        yield "docs/command_line.md:1: is missing"
        return
    section, written = None, {}
    for number, line in enumerate(page.lines, 1):
        if match := re.match(r"## (.*)", line):
            section = match[1].strip("` ")
        for option in OPTION.findall(line):
            written.setdefault(section, {}).setdefault(option, number)
    for section, programs in PROGRAMS.items():
        if any(program not in helps for program in programs):
            continue
        offered = {o for program in programs for o in OPTION.findall(helps[program])} - {"--help"}
        here = written.get(section, {})
        for option in sorted(here.keys() - offered - {"--help"}):
            yield f"{page.name}:{here[option]}: {' and '.join(programs)} have no option {option}"
        for option in sorted(offered - here.keys()):
            yield f"{page.name}:1: the section {section} does not name {option}"


RULES = (links, files, fences, snippets, policy_pages, methods, commands)


def check(root, helps):
    return [sentence for rule in RULES for sentence in rule(root)] + list(options(root, helps))


# --- Each rule broken once: changes to a sound tree, and a part of the sentence that must come.
SOUND = {
    "README.md": "# A\n[b](docs/b.md#two-words) `core/a.hpp` ./quickstart run\n",
    "docs/b.md": "## Two words\n<!-- from tests/a.cpp -->\n```cpp\nint a;\n  int b;\n```\nmethods::gptq\n",
    "docs/command_line.md": "## Drivers\n`--model` `--solver.damp`\n## show\n`--format`\n",
    "docs/policies/gptq.md": "# Gptq\n| `damp` | `0.01` | x |\n| `order` | `natural` | x |\n",
    "include/ptq/core/a.hpp": "",
    "include/ptq/methods.hpp": "inline constexpr Recipe<A, B> gptq{};\n",
    "include/ptq/solver/gptq.hpp": "struct Gptq {\n  double damp = 0.01;\n  Order order = Order::natural;\n};\nBOOST_HANA_ADAPT_STRUCT(ptq::Gptq, damp, order);\n",
    "tests/a.cpp": "{\n  int a;\n    int b;\n}\n",
    "quickstart": "case $1 in\n  run)\n    all\n",
}
HELP = {"gptq": "--model TEXT --solver.damp", "gptaq": "--model", "omniquant": "--model", "lrquant": "--model", "lrquant_tta": "--model", "awrq": "--model", "claq": "--model", "flexround": "--model", "lrq": "--model", "l2qer": "--model", "qera": "--model", "quickstart_table": "--model", "show": "[--format F] -h,--help"}
BROKEN = [
    ({"README.md": "[b](docs/c.md)"}, "leads nowhere"),
    ({"README.md": "[b](docs/b.md#three)"}, "no heading"),
    ({"README.md": "`core/c.hpp`"}, "no file core/c.hpp"),
    ({"README.md": "```\nopen"}, "does not end"),
    ({"README.md": "./quickstart fly"}, "no command fly"),
    ({"docs/b.md": "## Two words\n<!-- from tests/a.cpp -->\n```cpp\nint a;\nint b;\n```\n"}, "not what tests/a.cpp holds"),
    ({"docs/b.md": "## Two words\n<!-- from tests/c.cpp -->\n```cpp\nint a;\n```\n"}, "does not exist"),
    ({"docs/b.md": "## Two words\nmethods::awrq"}, "no methods::awrq"),
    ({"docs/policies/gptq.md": "# Other"}, "0 pages"),
    ({"docs/policies/gptq.md": "# Gptq\n| `damp` | `0.02` | x |\n| `order` | `natural` | x |\n"}, "default 0.02, not 0.01"),
    ({"docs/policies/gptq.md": "# Gptq\n| `damp` | `0.01` | x |\n"}, "default None, not natural"),
    ({"docs/policies/gptq.md": SOUND["docs/policies/gptq.md"] + "| `gone` | `1` | x |\n"}, "no field gone"),
    ({"docs/command_line.md": "## Drivers\n`--model` `--solver.damp` `--gone`\n## show\n`--format`\n"}, "no option --gone"),
    ({"docs/command_line.md": "## Drivers\n`--model`\n## show\n`--format`\n"}, "does not name --solver.damp"),
]


def self_test():
    wrong = 0
    for changes, expected in [({}, None), *BROKEN]:
        with tempfile.TemporaryDirectory() as folder:
            for path, text in {**SOUND, **changes}.items():
                target = Path(folder) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
            found = check(Path(folder), HELP)
        if (found != []) if expected is None else not any(expected in sentence for sentence in found):
            wrong += 1
            print(f"{'blamed' if expected is None else 'not noticed'}: {changes} ({expected}); found {found}")
    print(f"{len(BROKEN)} broken trees and a sound one, {wrong} wrong")
    return wrong


def main(arguments):
    if arguments == ["--self-test"]:
        return 1 if self_test() else 0
    if not arguments or not (Path(arguments[0]) / "include" / "ptq").is_dir():
        print(__doc__)
        return 2
    helps, missing = {}, []
    for program in sorted({p for programs in PROGRAMS.values() for p in programs}):
        path = Path(arguments[1]) / program if len(arguments) > 1 else None
        if path is not None and path.exists():
            helps[program] = subprocess.run([path, "--help"], capture_output=True, text=True, check=True).stdout
        else:
            missing.append(program)
    violations = check(Path(arguments[0]).resolve(), helps)
    print("\n".join(violations) or "the documentation is right")
    if missing:
        print("SKIPPED: options of", ", ".join(missing), "(not built)")
    return 1 if violations else 77 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
