#!/usr/bin/env python3
"""Factors exported apart, read with numpy and safetensors alone: the base weight and B A make up the merged weight, and what PEFT would read
of the configuration (which linears, which rank, which scale) is what the file holds. The committed block gives the same matrices once more.

usage: check_factors.py ROOT BIN     exit status 77: numpy, safetensors or h5py is missing, or l2qer is not built
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
    from safetensors.numpy import load_file
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

root, program = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve() / "l2qer"
if not program.exists():
    print("SKIPPED: l2qer is not built")
    sys.exit(77)

HEAD = "base_model.model."
wrong = []


def close(a, b, what, tolerance=1e-6):
    apart = np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b)
    if not apart < tolerance:
        wrong.append(f"{what}: apart by {apart:.2e}")


def pattern(patterns, name, usual):
    """PEFT's rule: the first key that ends the module's name, as a regular expression."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", name)), usual)


def check(model, prefix, options):
    with tempfile.TemporaryDirectory() as folder:
        def run(*more):
            subprocess.run([program, "--model", root / "data/models" / model, "--calibrate", "books_valid:2x64", "--evaluate", "books_test:2x64",
                            "--quiet", *options, *more], cwd=folder, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PTQ_DATA": str(root / "data")})
        run("--export", "merged")
        run("--export", "apart", "--export-factors", "apart")
        apart, merged = Path(folder) / "apart", load_file(Path(folder) / "merged/model.safetensors")
        base, factors = load_file(apart / "model.safetensors"), load_file(apart / "factors.safetensors")
        config = json.loads((apart / "factors.json").read_text())
        if (config["peft_type"], config["bias"], config["task_type"]) != ("LORA", "none", "CAUSAL_LM"):
            wrong.append(f"{model}: factors.json is no LoRA of a causal model: {config}")
        linears = sorted({name[len(HEAD):name.rindex(".lora_")] for name in factors})
        if set(factors) != {f"{HEAD}{n}.lora_{x}.weight" for n in linears for x in "AB"}:
            wrong.append(f"{model}: names of factors are not PEFT's")
        targeted = sorted(n[:-len(".weight")] for n in base if n.endswith(".weight") and base[n].ndim == 2
                          and any(n[:-len(".weight")] == t or n[:-len(".weight")].endswith("." + t) for t in config["target_modules"]))
        if targeted != linears:
            wrong.append(f"{model}: target_modules mean {len(targeted)} linears, factors.safetensors has {len(linears)}")
        for name in linears:
            a, b = factors[f"{HEAD}{name}.lora_A.weight"], factors[f"{HEAD}{name}.lora_B.weight"]  # (rank, in), (out, rank)
            w, whole = base[name + ".weight"], merged[name + ".weight"]
            rank = pattern(config["rank_pattern"], name, config["r"])
            scale = pattern(config["alpha_pattern"], name, config["lora_alpha"]) / rank
            if a.shape != (rank, w.shape[1]) or b.shape != (w.shape[0], rank) or scale != 1:
                wrong.append(f"{model} {name}: A {a.shape}, B {b.shape} for rank {rank}, scale {scale} and a weight {w.shape}")
                continue
            close(w + scale * b.astype(np.float64) @ a, whole, f"{model} {name}: base + B A and the merged weight")
            if np.array_equal(w, whole):
                wrong.append(f"{model} {name}: the merged weight holds no correction")
            x = np.random.default_rng(1).standard_normal((3, w.shape[1]))  # outputs of the linear: x Wᵀ + (x Aᵀ) Bᵀ
            close(x @ w.T + (x @ a.T) @ b.T, x @ whole.T, f"{model} {name}: outputs", 1e-5)
        for name in set(merged) - {n + ".weight" for n in linears}:
            if not np.array_equal(merged[name], base[name]):
                wrong.append(f"{model} {name}: differs between the two exports")
        # Two rows have factors, LQER and L²QER; the exported ones are those of one of the committed blocks.
        name, distances = prefix + "1.self_attn.q_proj", []
        product = factors[f"{HEAD}{name}.lora_B.weight"].astype(np.float64) @ factors[f"{HEAD}{name}.lora_A.weight"]
        for path in Path(folder).glob("results.h5.d/*/block_0001.h5"):
            with h5py.File(path) as block:
                linear = block["linears/self_attn.q_proj"]
                if "factor_a" in linear:
                    committed = (linear["factor_a"][:].astype(np.float64) @ linear["factor_b"][:]).T
                    distances.append(np.linalg.norm(product - committed) / np.linalg.norm(committed))
        if len(distances) != 2 or min(distances) > 1e-6 or max(distances) < 0.1:
            wrong.append(f"{model} {name}: committed factors are apart by {distances}")
        return len(linears)


plain = ["--activations", "none", "--attention", "q=none", "--branch", "none", "--bias", "none"]
count = check("llama_books", "model.layers.", ["--weights", "mxint3:b16", *plain, "--correction.rank", "7"])
count += check("opt_books", "model.decoder.layers.", ["--weights", "int3:g32", *plain, "--correction.rank", "5"])
count += check("llama_books", "model.layers.", ["--weights", "float4:e2:b32", *plain, "--correction.rank", "9", "--correction.energy", "0.4"])
print("\n".join(wrong) or f"{count} linears: base + B A is the merged weight")
sys.exit(1 if wrong else 0)
