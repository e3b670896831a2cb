#!/usr/bin/env python3
"""Checks the plan of the house: arrows of includes point down, each library has one door, headers hold one idea.

usage: structure.py ROOT          check a source tree; prints file:line: sentence for each violation, exit status 1 if there is one
       structure.py --self-test   break each rule in a small tree of its own and demand that it is noticed
"""

import re
import sys
import tempfile
from pathlib import Path

AXES = ("rounding", "smoothing", "loss", "solver", "correction", "adaptation")

# Higher may include lower or equal; a path below include/ptq (or kernels, experiments) is matched by the first pattern that fits.
LAYERS = [
    ("kernels", 0, r"kernels/"),
    ("core", 1, r"core/"),
    ("io", 2, r"io/"),
    ("model", 3, r"model/"),
    ("calibration", 4, r"calibration/"),
    ("committed block", 4, r"quantized_(block|head)\.hpp$"),
    ("axis header", 5, r"(%s)\.hpp$" % "|".join(AXES)),
    ("member", 6, r"(%s)/" % "|".join(AXES)),
    ("recipe", 6, r"recipe\.hpp$"),
    ("composition", 7, r"(stages|sweep)\.hpp$"),
    ("methods", 8, r"methods(\.hpp$|/)"),
    ("walk", 8, r"(quantize\.hpp$|results\.hpp$|quantize/|results/|run/|evaluate/|evaluate\.hpp$|export/|export\.hpp$)"),
    ("experiments", 9, r"experiments/"),
]

# library: (include pattern, files of ours that may include it, at most so many of them)
DOORS = {
    "ATen": (r"^(ATen|c10|torch|caffe2)/", r"^include/ptq/core/(tensor|autograd|minimize|affine)\.hpp$", 4),  # affine calls an operator by name
    "HDF5": (r"^(hdf5|H5\w+)(_hl)?\.h$|^H5Cpp|^highfive", r"^include/ptq/io/hdf5(\.hpp$|/)", 1),
    "nlohmann": (r"^nlohmann/", r"^(include/ptq/io/json\.hpp|experiments/driver\.cpp)$", 2),
    "CLI11": (r"^CLI/", r"^experiments/program\.hpp$", 1),
    "PCRE2": (r"^pcre2", r"^include/ptq/io/", 1),
    "SentencePiece": (r"^sentencepiece", r"^include/ptq/io/", 1),
    "utf8proc": (r"^utf8proc", r"^include/ptq/io/", 1),
    "zlib": (r"^zlib", r"^include/ptq/io/", 1),
    "OpenSSL": (r"^openssl/", r"^include/ptq/(core|io)/", 1),
    "Hana": (r"^boost/hana", r"^include/ptq/(core/describe|sweep)\.hpp$", 2),
    "CUDA": (r"^(cuda|cuda_\w+|cublas\w*|cub/.*|mma)(\.h)?$|^nv", r"^kernels/", 10**6),
}
HEAVY = ("nlohmann", "CLI11", "PCRE2", "SentencePiece", "HDF5")  # what driver.hpp and quantize.hpp must not reach
LIGHT = ("experiments/driver.hpp", "include/ptq/quantize.hpp")
LONGEST = 300

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


class Tree:
    """Our sources, by path from the root, with their include lines."""

    def __init__(self, root):
        self.root = Path(root)
        self.includes = {}  # path: [(line number, name between the brackets, path of ours or None)]
        self.lines = {}
        files = []
        for folder in ("include", "kernels", "experiments", "benchmarks"):
            files += [f for f in (self.root / folder).rglob("*") if f.suffix in (".hpp", ".h", ".cpp", ".cu", ".cuh", ".inl", ".inc")]
        names = {f.relative_to(self.root).as_posix() for f in files}
        for file in sorted(files):
            path = file.relative_to(self.root).as_posix()
            text = file.read_text(encoding="utf-8").splitlines()
            self.lines[path] = len(text)
            self.includes[path] = [
                (number, match[2], self.resolve(file, match[1], match[2], names))
                for number, line in enumerate(text, 1)
                if (match := INCLUDE.match(line))
            ]

    def resolve(self, file, bracket, name, names):
        places = ["include/", "kernels/include/", "kernels/", "experiments/"]
        if bracket == '"':
            beside = Path(file.parent / name).resolve()
            if beside.is_relative_to(self.root.resolve()):
                relative = beside.relative_to(self.root.resolve()).as_posix()
                if relative in names:
                    return relative
        return next((place + name for place in places if place + name in names), None)

    def reach(self, start):
        """All files of ours that `start` includes, directly or not, each with the file that includes it."""
        seen, queue = {start: None}, [start]
        while queue:
            path = queue.pop()
            for _, _, target in self.includes.get(path, []):
                if target and target not in seen:
                    seen[target] = path
                    queue.append(target)
        return seen


def layer(path):
    short = path[len("include/ptq/"):] if path.startswith("include/ptq/") else path
    return next(((name, rank) for name, rank, pattern in LAYERS if re.match(pattern, short)), (None, None))


def directions(tree):
    for path, includes in tree.includes.items():
        name, rank = layer(path)
        if path.startswith("include/ptq/") and name is None:
            yield f"{path}:1: belongs to no layer of the plan; name its place in tests/rules/structure.py"
        if rank is None:
            continue
        for number, text, target in includes:
            if target is None:
                if text.startswith("ptq/") and not text.startswith("ptq/kernels/"):
                    yield f"{path}:{number}: <{text}> does not exist"
                continue
            other, below = layer(target)
            if other is None:
                continue
            if below > rank:
                yield f"{path}:{number}: {name} includes {target}, which lies above it ({other})"
            if name == "member":
                axis = path[len("include/ptq/"):].split("/")[0]
                own = path.removesuffix(".hpp")  # solver/claq.hpp and solver/claq/… are one member
                if target.startswith(f"{own}/") or Path(target).parent == Path(path).parent != Path(f"include/ptq/{axis}"):
                    continue
                if other == "member":
                    yield f"{path}:{number}: a member includes another member, {target}; what they share belongs to the axis header or core"
                elif other not in ("core",) and target != f"include/ptq/{axis}.hpp":
                    yield f"{path}:{number}: a member includes its axis header and core only, not {target}"
            elif other == "member" and name in ("recipe", "composition", "walk"):
                yield f"{path}:{number}: {name} includes the member {target}; it must work with any policy"
            elif other == "methods" and name == "walk":
                yield f"{path}:{number}: {name} includes {target}; it must work with any recipe"
            if name == "kernels" and not target.startswith("kernels/"):
                yield f"{path}:{number}: kernels include nothing of ours, not {target}"


def cycles(tree):
    state = {}

    def visit(path, trail):
        state[path] = "open"
        for number, _, target in tree.includes.get(path, []):
            if target is None or target == path:
                continue
            if state.get(target) == "open":
                yield f"{path}:{number}: includes in a circle: " + " -> ".join(trail[trail.index(target):] + [target])
            elif target not in state:
                yield from visit(target, trail + [target])
        state[path] = "done"

    for path in tree.includes:
        if path not in state:
            yield from visit(path, [path])


def doors(tree):
    for library, (pattern, allowed, most) in DOORS.items():
        users = []
        for path, includes in tree.includes.items():
            if path.startswith("benchmarks/"):
                continue  # peers are measured there
            for number, text, target in includes:
                if target is None and re.search(pattern, text):
                    users.append(path)
                    if not re.search(allowed, path):
                        yield f"{path}:{number}: <{text}> has one door, {allowed.strip('^$')}"
        users = [path for path in users if re.search(allowed, path)]
        if len(set(users)) > most:
            yield f"{sorted(set(users))[0]}:1: {library} is included by {len(set(users))} files, {', '.join(sorted(set(users)))}; one door, please"


def banned(tree):
    for path, includes in tree.includes.items():
        torchless = path.startswith("include/ptq/io/") and "include/ptq/core/tensor.hpp" not in tree.reach(path)
        for number, text, _ in includes:
            if text in ("torch/torch.h", "torch/extension.h", "range/v3/all.hpp", "bits/stdc++.h", "ATen/ATen.h") and not (
                text == "ATen/ATen.h" and path in ("include/ptq/core/tensor.hpp", "include/ptq/core/minimize.hpp")
            ) and not path.startswith("benchmarks/"):
                yield f"{path}:{number}: <{text}> is never included (it costs seconds in every file)"
            if torchless and text in ("source_location", "ranges"):
                yield f"{path}:{number}: <{text}> in a parser: Clang 14 cannot read it, and the fuzzer needs Clang"


def light(tree):
    for start in LIGHT:
        if start not in tree.includes:
            continue
        reached = tree.reach(start)
        for path in reached:
            for number, text, target in tree.includes[path]:
                for library in HEAVY:
                    if target is None and re.search(DOORS[library][0], text):
                        trail, step = [path], path
                        while reached[step]:
                            step = reached[step]
                            trail.append(step)
                        yield f"{path}:{number}: {start} reaches {library} by " + " -> ".join(reversed(trail))


def size(tree):
    for path, count in tree.lines.items():
        if path.startswith("include/") and count > LONGEST:
            yield f"{path}:{count}: {count} lines; over {LONGEST} it holds two ideas"


def guards(tree):
    for path in tree.includes:
        if path.endswith(".hpp") and not re.search(r"^#pragma once", (tree.root / path).read_text(), re.M):
            yield f"{path}:1: no #pragma once"


RULES = (directions, cycles, doors, banned, light, size, guards)


def check(root):
    tree = Tree(root)
    return [sentence for rule in RULES for sentence in rule(tree)]


# --- Each rule broken once: files of a small tree, and a part of the sentence that must come.
ONCE = "#pragma once\n"
BROKEN = [
    ({"include/ptq/core/a.hpp": "#include <ptq/io/b.hpp>", "include/ptq/io/b.hpp": ""}, "lies above it"),
    ({"include/ptq/rounding.hpp": "#include <ptq/rounding/lrq.hpp>", "include/ptq/rounding/lrq.hpp": ""}, "lies above it"),
    ({"include/ptq/rounding/lrq.hpp": "#include <ptq/rounding/flexround.hpp>", "include/ptq/rounding/flexround.hpp": ""}, "another member"),
    ({"include/ptq/solver/gptq.hpp": '#include "direct.hpp"', "include/ptq/solver/direct.hpp": ""}, "another member"),
    ({"include/ptq/solver/gptq.hpp": "#include <ptq/solver/claq/plan.hpp>", "include/ptq/solver/claq/plan.hpp": ""}, "a member includes another member"),
    ({"include/ptq/solver/gptq.hpp": "#include <ptq/rounding.hpp>", "include/ptq/rounding.hpp": ""}, "its axis header and core only"),
    ({"include/ptq/solver/gptq.hpp": "#include <ptq/model/block.hpp>", "include/ptq/model/block.hpp": ""}, "its axis header and core only"),
    ({"include/ptq/recipe.hpp": "#include <ptq/solver/gptq.hpp>", "include/ptq/solver/gptq.hpp": ""}, "it must work with any policy"),
    ({"include/ptq/quantize.hpp": "#include <ptq/methods.hpp>", "include/ptq/methods.hpp": ""}, "it must work with any recipe"),
    ({"include/ptq/odd.hpp": ""}, "belongs to no layer"),
    ({"include/ptq/core/a.hpp": "#include <ptq/core/gone.hpp>"}, "does not exist"),
    ({"kernels/src/a.cpp": "#include <ptq/core/error.hpp>", "include/ptq/core/error.hpp": ""}, "lies above it"),
    ({"kernels/src/a.cpp": "#include <ATen/ATen.h>"}, "one door"),
    ({"include/ptq/core/a.hpp": "#include <ptq/core/b.hpp>", "include/ptq/core/b.hpp": "#include <ptq/core/a.hpp>"}, "in a circle"),
    ({"include/ptq/core/a.hpp": "#include <ATen/Functions.h>"}, "one door"),
    ({"include/ptq/core/a.hpp": "#include <torch/csrc/autograd/custom_function.h>"}, "one door"),
    ({"experiments/a.cpp": "#include <ATen/core/Tensor.h>"}, "one door"),
    ({"include/ptq/results.hpp": "#include <hdf5.h>"}, "one door"),
    ({"include/ptq/io/hdf5/a.hpp": "#include <hdf5.h>", "include/ptq/io/hdf5/b.hpp": "#include <hdf5.h>"}, "one door, please"),
    ({"include/ptq/io/hf.hpp": "#include <nlohmann/json.hpp>"}, "one door"),
    ({"experiments/driver.hpp": "#include <CLI/CLI.hpp>"}, "one door"),
    ({"include/ptq/model/a.hpp": "#include <pcre2.h>"}, "one door"),
    ({"include/ptq/model/a.hpp": "#include <sentencepiece_processor.h>"}, "one door"),
    ({"include/ptq/model/a.hpp": "#include <utf8proc.h>"}, "one door"),
    ({"include/ptq/core/a.hpp": "#include <zlib.h>"}, "one door"),
    ({"include/ptq/recipe.hpp": "#include <boost/hana.hpp>"}, "one door"),
    ({"include/ptq/core/a.hpp": "#include <cuda_runtime.h>"}, "one door"),
    ({"include/ptq/core/a.hpp": "#include <range/v3/all.hpp>"}, "never included"),
    ({"include/ptq/io/a.hpp": "#include <source_location>"}, "Clang 14"),
    ({"include/ptq/quantize.hpp": "#include <ptq/io/hdf5.hpp>", "include/ptq/io/hdf5.hpp": "#include <hdf5.h>"}, "reaches HDF5"),
    ({"experiments/driver.hpp": "#include <ptq/io/json.hpp>", "include/ptq/io/json.hpp": "#include <nlohmann/json.hpp>"}, "reaches nlohmann"),
    ({"include/ptq/core/a.hpp": "//\n" * LONGEST}, "two ideas"),
    ({"include/ptq/core/a.hpp": None}, "no #pragma once"),
]
SOUND = {
    "include/ptq/core/tensor.hpp": "#include <ATen/ATen.h>\n#include <ptq/kernels/grid.hpp>",
    "kernels/include/ptq/kernels/grid.hpp": "#include <cstdint>",
    "include/ptq/solver.hpp": "#include <ptq/core/tensor.hpp>",
    "include/ptq/solver/gptq.hpp": "#include <ptq/solver.hpp>\n#include <ptq/core/tensor.hpp>\n#include <ptq/solver/gptq/plan.hpp>",
    "include/ptq/solver/gptq/plan.hpp": "#include <ptq/core/tensor.hpp>\n#include <ptq/solver/gptq/fit.hpp>",
    "include/ptq/solver/gptq/fit.hpp": "#include <ptq/core/tensor.hpp>",
    "include/ptq/recipe.hpp": "#include <ptq/solver.hpp>",
    "include/ptq/methods.hpp": "#include <ptq/recipe.hpp>\n#include <ptq/solver/gptq.hpp>",
    "experiments/gptq.cpp": '#include "driver.hpp"\n#include <ptq/methods.hpp>',
    "experiments/driver.hpp": "#include <ptq/recipe.hpp>",
}


def plant(folder, files):
    for path, text in files.items():
        target = Path(folder) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("" if text is None else ONCE + text + "\n")


def self_test():
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        plant(folder, SOUND)
        for sentence in check(folder):
            wrong += 1
            print(f"a sound tree was blamed: {sentence}")
    for files, expected in BROKEN:
        with tempfile.TemporaryDirectory() as folder:
            plant(folder, files)
            found = check(folder)
            if not any(expected in sentence for sentence in found):
                wrong += 1
                print(f"not noticed ({expected}): {files}; found {found}")
    print(f"{len(BROKEN)} broken trees and a sound one, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(1 if self_test() else 0)
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "include" / "ptq").is_dir():
        print(__doc__)
        sys.exit(2)
    violations = check(sys.argv[1])
    print("\n".join(violations) or "the includes follow the plan")
    sys.exit(1 if violations else 0)
