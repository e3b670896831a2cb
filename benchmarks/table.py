#!/usr/bin/env python3
"""Prints the table of docs/benchmarks.md from results of ptq_benchmarks --benchmark_out=FILE: table.py FILE...

Exit status 1 if a goal is missed by more than 30 percent or a result was wrong. Several files: the last result of a name counts.
"""

import json
import sys


def number(x, digits=3):
    return "" if x is None else f"{x:.{digits}g}" if x < 1000 else f"{x:.0f}"


def main(files):
    rows, failed = {}, False
    for name in files:
        with open(name, encoding="utf-8") as f:
            for b in json.load(f)["benchmarks"]:
                rows[b["name"].split("/iterations:")[0]] = b
    print("| case | ms | of the ceiling | of `mm` | times the peer | spread | goal | error |")
    print("|---|---|---|---|---|---|---|---|")
    for name, b in rows.items():
        if b.get("error_occurred"):
            print(f"| `{name}` | | | | | | | {b['error_message']} |")
            failed |= b["error_message"].startswith("wrong")
            continue
        if "memory_ratio" in b:
            continue
        goals = []
        kinds = (("peer_ratio", "goal", "×"), ("roof", "roof_goal", " of the ceiling"), ("of_mm", "mm_goal", " of `mm`"))
        for value, goal, sign in ((b.get(value), b.get(goal), sign) for value, goal, sign in kinds):
            if goal:
                goals.append(f"{goal:g}{sign}: " + ("met" if value >= goal else "missed"))
                failed |= value < 0.7 * goal
        spread = f"{number(b['peer_ratio_min'])} … {number(b['peer_ratio_max'])}" if "peer_ratio" in b else ""
        print(f"| `{name}` | {number(b['real_time'])} | {number(b.get('roof'), 2)} | {number(b.get('of_mm'), 2)} | {number(b.get('peer_ratio'))} | {spread} | {', '.join(goals)} | {b['err']:.1e} |")
    memory = {name: b for name, b in rows.items() if "memory_ratio" in b}
    parts = ("weights", "parameters", "gradients", "moments", "saved", "streams", "floor", "peak", "file_pages")
    if memory:
        print("\n| memory, MB | " + " | ".join(parts).replace("_", " ") + " | peak : floor |\n|" + "---|" * (len(parts) + 2))
    for name, b in memory.items():
        print(f"| `{name}` | " + " | ".join(f"{b[part] / 1e6:.0f}" for part in parts) + f" | {b['memory_ratio']:.2f} |")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
