#!/usr/bin/env python3
"""Tokens per second of transformers in float32 against ours, on the same windows of WikiText-2, in turns.

usage: evaluation_peer.py MODEL.gguf TEXT.txt PTQ_BENCHMARKS [ROUNDS [WINDOWS]]

Transformers runs in this process, one window of 2048 at a time with full logits, best of 1 and all threads; ours is the case
evaluation/smollm2 of PTQ_BENCHMARKS with as many windows, 6 (the default) or 1. Prints both rates a round, the perplexities, and the median ratio.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

CASES, LENGTH = {6: "evaluation/smollm2/6x2048/multiply", 1: "evaluation/smollm2/1x2048/multiply/quick"}, 2048


def main(model_file, text_file, program, rounds=3, count=6):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, name = os.path.split(model_file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    with open(text_file, encoding="utf-8") as f:
        ids = tokenizer(f.read(), add_special_tokens=False)["input_ids"][: count * LENGTH]
    windows = torch.tensor(ids).view(count, LENGTH)

    def theirs(count=count):
        losses = []
        start = time.perf_counter()
        with torch.inference_mode():
            for x in windows[:count].split(1):
                logits = model(x, use_cache=False).logits
                losses.append(torch.nn.functional.cross_entropy(logits[0, :-1], x[0, 1:]).double())
        return count * LENGTH / (time.perf_counter() - start), torch.stack(losses).mean().exp().item()

    def ours():
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            subprocess.run([program, f"--benchmark_filter={CASES[count]}", f"--benchmark_out={out.name}"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            case = json.load(open(out.name, encoding="utf-8"))["benchmarks"][0]
        if case.get("error_occurred"):
            sys.exit(case["error_message"])
        return case["items_per_second"], case["perplexity"]

    many = torch.get_num_threads()
    rates = {}
    for threads in {1, many}:
        torch.set_num_threads(threads)
        theirs(1)
        rates[threads] = theirs(1)[0]
    torch.set_num_threads(max(rates, key=rates.get))
    ratios = []
    for _ in range(rounds):
        rate, perplexity = theirs()
        mine, own = ours()
        ratios.append(mine / rate)
        print(f"transformers {rate:.0f} tokens/s on {torch.get_num_threads()} threads (perplexity {perplexity:.4f}), ours {mine:.0f} ({own:.4f}): {ratios[-1]:.2f}x", flush=True)
    print(f"median {statistics.median(ratios):.2f}x")


if __name__ == "__main__":
    if not 4 <= len(sys.argv) <= 6 or sys.argv[5:] not in ([], ["1"], ["6"]):
        sys.exit(__doc__)
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
