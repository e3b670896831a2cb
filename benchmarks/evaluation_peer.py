#!/usr/bin/env python3
"""Tokens per second of transformers in float32 against ours, on the same windows of WikiText-2, in turns.

usage: evaluation_peer.py MODEL.gguf TEXT.txt PTQ_BENCHMARKS [ROUNDS]

Transformers runs in this process, one window of 2048 at a time with full logits, best of 1 and all threads; ours is the case
evaluation/smollm2/6x2048 of PTQ_BENCHMARKS. Prints both rates a round, the perplexities, and the median ratio.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

CASE, WINDOWS, LENGTH = "evaluation/smollm2/6x2048/multiply", 6, 2048


def main(model_file, text_file, program, rounds):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, name = os.path.split(model_file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    with open(text_file, encoding="utf-8") as f:
        ids = tokenizer(f.read(), add_special_tokens=False)["input_ids"][: WINDOWS * LENGTH]
    windows = torch.tensor(ids).view(WINDOWS, LENGTH)

    def theirs(count=WINDOWS):
        losses = []
        start = time.perf_counter()
        with torch.inference_mode():
            for x in windows[:count].split(1):
                logits = model(x, use_cache=False).logits
                losses.append(torch.nn.functional.cross_entropy(logits[0, :-1], x[0, 1:]).double())
        return count * LENGTH / (time.perf_counter() - start), torch.stack(losses).mean().exp().item()

    def ours():
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            subprocess.run([program, f"--benchmark_filter={CASE}", f"--benchmark_out={out.name}"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:4], int(sys.argv[4]) if len(sys.argv) == 5 else 3)
