#!/usr/bin/env python3
"""Runs the Python of docs/formats.md on a committed block and compares the weight with the exported one; and the schema's names with files.

usage: read_block.py ROOT BIN     exit status 77: h5py or the program is not there
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import h5py
    import numpy as np
except ImportError:
    print("SKIPPED: Python has no h5py")
    sys.exit(77)

root, program = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve() / "gptq"
if not program.exists():
    print("SKIPPED: gptq is not built")
    sys.exit(77)


def section(name):
    return re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", (root / "docs/formats.md").read_text(), re.M | re.S)[1]


def tensor(path, name):  # of a safetensors file
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8:8 + size])[name]["data_offsets"]
    return np.frombuffer(data[8 + size + begin:8 + size + end], np.float32)


def names(file):
    """Attributes, and the first and last parts of the paths of datasets; groups of a block's inputs are the same everywhere."""
    found = set(file.attrs)
    file.visititems(lambda path, item: found.update(item.attrs, [path.split("/")[0], path.split("/")[-1]] if isinstance(item, h5py.Dataset) else []))
    return found - {"attention_in", "attention_out", "mlp_in", "mlp_out"}


wrong = []
for options in (["--weights", "int3:g32", "--solver.order", "descending", "--activations", "int8:static"], ["--weights", "int5:sym"],
                ["--weights", "mxint4:b24:ceil"], ["--weights", "float4:e2:b24"], ["--weights", "float6:e3:g32", "--solver.order", "descending"],
                ["--weights", "float5:e2:bias6"]):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, "--model", root / "data/models/llama_books", "--calibrate", "books_valid:2x64", "--evaluate", "books_test:2x64", "--export", "out",
                        "--quiet", *options], cwd=folder, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PTQ_DATA": str(root / "data")})
        block = next(Path(folder).glob("results.h5.d/*/block_0000.h5"))
        code = re.search(r"```python\n(.*?)```", section("Committed blocks and the state of a run"), re.S)[1]
        scope = {}
        here = os.getcwd()
        os.chdir(block.parent)
        exec(code, scope)
        os.chdir(here)
        exported = tensor(Path(folder) / "out/model.safetensors", "model.layers.0.self_attn.q_proj.weight").reshape(scope["w"].shape)
        if not np.array_equal(scope["w"].astype(np.float32), exported):
            wrong.append(f"{options}: the Python of docs/formats.md does not give the exported weight")
        cache = sorted((Path(folder) / "results.h5.d/cache").glob("*.h5"))
        for file, text in ((block, section("Committed blocks and the state of a run")), (block.with_name("report_0000.h5"), section("Committed blocks and the state of a run")),
                           *((c, section("Calibration cache")) for c in cache)):
            with h5py.File(file) as opened:
                for name in names(opened):
                    name = "solver.NAME" if name.startswith("solver.") else name
                    if not re.search(rf"[`/]{re.escape(name)}[`/]", text):
                        wrong.append(f"{file.name}: {name} is not in docs/formats.md")
print("\n".join(wrong) or "the schema is right")
sys.exit(1 if wrong else 0)
