#!/usr/bin/env python3
"""Times and squared errors of scikit-learn's KMeans against ours, on the same columns, in turns.

usage: kmeans_peer.py PTQ_BENCHMARKS [MODEL.gguf [ROUNDS]]

Columns: 64 each of 4096 normal, Laplacian and Student-t (3 degrees of freedom) values, and with a model columns of its linears. scikit-learn runs as
CLAQ calls it, KMeans(k, random_state=10) with one run of k-means++ on float64, on one thread; ours are the cases codebooks of PTQ_BENCHMARKS.
It needs numpy and scikit-learn, and gguf for a model. Prints medians over single
calls and rounds, the median ratio of the rounds with its extremes, and the ratio of the sums of squared errors.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

COUNT, LENGTH, LEVELS, METHODS = 64, 4096, (4, 16), ("lloyd", "coarse", "optimal")


def synthetic(numpy):
    random = numpy.random.default_rng(7)
    shape = (COUNT, LENGTH)
    return {"normal": random.standard_normal(shape), "Laplace": random.laplace(size=shape), "Student t3": random.standard_t(3, size=shape)}


def of_model(numpy, path):
    """Columns of the linears of the model: the widest outputs first, COUNT in all, spread over the tensors."""
    from gguf import GGUFReader, dequantize

    tensors = [t for t in GGUFReader(path).tensors if t.name.startswith("blk.") and t.name.endswith(("gate.weight", "up.weight"))]
    columns = []
    for i in range(COUNT):
        tensor = tensors[i * len(tensors) // COUNT]
        weights = dequantize(tensor.data, tensor.tensor_type)
        columns.append(weights[:, i * 7 % weights.shape[1]])
    return numpy.stack(columns)


def main(program, model=None, rounds=3):
    import numpy
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    def theirs(columns, k):
        times, error = [], 0
        for x in columns.astype(numpy.float64):
            start = time.perf_counter()
            fit = KMeans(k, random_state=10, n_init=1).fit(x[:, None])
            times.append(time.perf_counter() - start)
            error += fit.inertia_
        return statistics.median(times), error

    def ours(file, length):
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            environment = {**os.environ, "PTQ_COLUMNS": f"{length}:{file}"}
            arguments = [program, "--benchmark_filter=codebooks/(lloyd|coarse|optimal)", f"--benchmark_out={out.name}"]
            subprocess.run(arguments, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            cases = json.load(open(out.name, encoding="utf-8"))["benchmarks"]
        for case in cases:
            if case.get("error_occurred"):
                sys.exit(f"{case['name']}: {case['error_message']}")
        return {tuple(case["name"].split("/")[1:3]): (1e-6 * case["median_us"], case["sse"]) for case in cases}

    kinds = synthetic(numpy)
    if model:
        kinds[os.path.basename(model)] = of_model(numpy, model)
    print("| columns | k | method | scikit-learn, us | ours, us | times faster | squared error, ours / scikit-learn |")
    print("|---|---|---|---|---|---|---|")
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        for kind, columns in kinds.items():
            columns = (columns * (0.02 if kind in ("normal", "Laplace", "Student t3") else 1)).astype(numpy.float32)
            length = columns.shape[1]
            file = os.path.join(folder, "columns")
            columns.tofile(file)
            theirs(columns[:4], 4)
            seen = []
            for _ in range(rounds):
                seen.append(({k: theirs(columns, k) for k in LEVELS}, ours(file, length)))
            for k in LEVELS:
                for method in METHODS:
                    pairs = [(t[k][0], o[method, f"{length}x{k}"][0]) for t, o in seen]
                    peer, mine = (1e6 * statistics.median(x) for x in zip(*pairs))
                    ratios = sorted(a / b for a, b in pairs)
                    error = seen[0][1][method, f"{length}x{k}"][1] / seen[0][0][k][1]
                    print(f"| {kind}, {length} | {k} | `{method}` | {peer:.0f} | {mine:.1f} | {statistics.median(ratios):.0f} ({ratios[0]:.0f} … {ratios[-1]:.0f}) | {error:.4f} |", flush=True)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
