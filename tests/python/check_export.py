#!/usr/bin/env python3
"""Shows exported folders to transformers: token ids, and perplexity in float32, must be those of the quantized model in memory.

usage: check_export.py PROGRAM        PROGRAM is export_test; it writes the folders (its hidden case "folders for transformers")
       check_export.py --made FOLDER  check what it wrote earlier

Exit status 77 (skipped) where torch or transformers cannot be imported.
"""

import array
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
try:
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer
except (ImportError, OSError) as error:
    print(f"SKIPPED: torch and transformers are needed ({error})")
    sys.exit(77)

transformers.utils.logging.disable_progress_bar()
TOLERANCE = 1e-3  # relative, of perplexities


@torch.no_grad()
def perplexity(model, windows):
    """exp of the mean over windows of the mean negative log-likelihood of every token but the first. windows (n, length)"""
    means = []
    for ids in windows:
        logits = model(ids[None]).logits[0].float()  # (length, vocabulary)
        means.append(torch.nn.functional.cross_entropy(logits[:-1], ids[1:]).item())
    return math.exp(sum(means) / len(means))


def token_ids(folder, text, strings):
    """Ids of the text without special tokens, ids of the strings with them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return list(whole), [list(tokenizer(s)["input_ids"]) for s in strings]


def check(folder):
    """Problems of one folder, as sentences, and a line of figures."""
    expected = json.loads(folder.with_name(folder.name + ".json").read_text())
    ours = array.array("i")
    ours.frombytes(folder.with_name(folder.name + ".ids").read_bytes())
    text = Path(expected["text"]).read_bytes().decode("utf-8")
    strings = {entry["text"]: entry["ids"] for entry in expected["strings"]}
    problems, remark = [], ""
    found = token_ids(folder, text, strings)
    if found != (list(ours), list(strings.values())):
        # A tokenizer of another family than the model's is read by a class of transformers' own choice: then in the source as well.
        if "source" in expected and found == token_ids(expected["source"], text, strings):
            remark = "; transformers reads the tokenizer as it does in the source, unlike us"
        else:
            at = next((i for i, (a, b) in enumerate(zip(found[0], ours)) if a != b), min(len(found[0]), len(ours)))
            problems.append(f"{len(found[0])} ids of the text, ours {len(ours)}; they part at {at}")
            problems += [f"ids of {s!r}: {a}, ours {b}" for (s, b), a in zip(strings.items(), found[1]) if a != b]

    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    for key, names in info.items():
        if names:
            problems.append(f"loading: {key}: {sorted(map(str, names))[:5]}")
    n, length = expected["windows"], expected["length"]
    found = perplexity(model.eval(), torch.tensor(ours[: n * length]).view(n, length).long())
    apart = found / expected["perplexity"] - 1
    if not abs(apart) < TOLERANCE:
        problems.append(f"perplexity {found}, ours {expected['perplexity']}")
    return problems, f"{len(ours)} ids, {n} x {length}: {found:.6g}, ours {expected['perplexity']:.6g}, apart {apart:+.1e}{remark}"


def check_all(made):
    wrong = 0
    folders = sorted(p for p in made.iterdir() if p.is_dir())
    for folder in folders:
        problems, figures = check(folder)
        print(f"{folder.name:40} {figures}", flush=True)
        for problem in problems:
            print(f"    {problem}", flush=True)
        wrong += bool(problems)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}: {len(folders)} folders, {wrong} wrong")
    return 1 if wrong or not folders else 0


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--made":
        return check_all(Path(sys.argv[2]))
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run([sys.argv[1], "folders for transformers"], env={**os.environ, "PTQ_EXPORT_TO": folder}, check=False)
        return check_all(Path(folder)) if made.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
