"""What the programs compute: reference values, repetition, formats by place, and the tools on what a run left."""

import csv
import hashlib
import io
import json
import shutil
import struct

from programs import DATA, GGUF, LLAMA, OPT, SMALL, TEXTS, Programs, blocks, h5py, main, perplexities, run_folders, skip

# Computed by transformers with torch in float32, plain rounding by independent code; windows without BOS. Models, values, standard errors.
FULL = {LLAMA: (69.0492, 1.6502), OPT: (90.3608, 2.3730)}
ROUNDED = {
    LLAMA: {"int4:channel": (70.3879, 1.6629), "int3:channel": (75.3199, 1.8226), "int3:g64": (73.5580, 1.7891), "int2:g64": (107.2691, 2.5089)},
    OPT: {"int4:channel": (91.7440, 2.4261), "int3:channel": (98.1797, 2.6041), "int3:g64": (95.0590, 2.4579), "int2:g64": (131.6218, 3.3633)},
}
BOOKS = TEXTS / "books_test.txt"


class Reference(Programs):
    def test_plain_rounding_gives_the_values_computed_elsewhere(self):
        for model, expected in ROUNDED.items():
            options = ["--model", model, "--weights", ",".join(expected), "--calibrate", "books_valid:4x64", "--evaluate", "books_test:64x256"]
            runs = self.figures("rtn", *options, "--bos", "none")
            wanted = [FULL[model], *expected.values()]
            found = [(r["evaluations"][0]["perplexity"], r["evaluations"][0]["standard_error"]) for r in runs]
            for label, got, want in zip(["full precision", *expected], found, wanted):
                self.assertAlmostEqual(got[0] / want[0], 1, delta=2e-5, msg=f"{model.name} {label}")
                self.assertAlmostEqual(got[1] / want[1], 1, delta=2e-4, msg=f"{model.name} {label}")
            with_bos = [r["evaluations"][0]["perplexity"] for r in self.figures("rtn", *options)]
            for label, got, want in zip(["full precision", *expected], with_bos, wanted):
                print(f"{model.name:12} {label:14} without BOS {want[0]:9.4f}  with {got:9.4f}  ({got / want[0] - 1:+.2e})", flush=True)
                self.assertNotEqual(round(got, 4), round(want[0], 4))
                self.assertAlmostEqual(got / want[0], 1, delta=3e-3)

    def test_inspect_gives_the_losses_computed_elsewhere(self):
        for model, (perplexity, error) in FULL.items():
            out = self.run_program("inspect", "--model", model, "--nll", BOOKS, "--window", 256, "--windows", 64).out
            self.assertIn(f"perplexity {perplexity:.4f} ± {error:.4f}", out)
        out = self.run_program("inspect", "--model", GGUF, "--nll", BOOKS, "--window", 96, "--windows", 4).out
        if h5py is None:
            skip("without h5py the reference of the GGUF file cannot be read")
        with h5py.File(GGUF.parent / "llama_mixed_types.reference.h5") as file:
            loss, count = float(file.attrs["mean_nll"]), int(file.attrs["token_count"])
        self.assertIn(f"tokens {count}\n", out)
        self.assertAlmostEqual(float(out.split("mean negative log-likelihood ")[1].split()[0]), loss, delta=1e-4)

    def test_inspect_writes_the_token_ids_of_the_references(self):
        if h5py is None:
            skip("without h5py the reference ids cannot be read")
        for model, path in ((LLAMA, "llama_books_reference.h5"), (OPT, "opt_books_reference.h5"), (GGUF, "gguf/llama_mixed_types.reference.h5")):
            with h5py.File(DATA / "models" / path) as file:
                known = {n: dict(g.attrs) for n, g in file["tokens"].items()} if "tokens" in file else {"books_test": {"count": file.attrs["token_count"], "sha256_int32_le": file.attrs["sha256_int32_le"]}}
            for name in ("books_test", "wikitext2_test"):
                if name not in known:
                    continue
                ids = self.run_program("inspect", "--model", model, "--tokens", TEXTS / f"{name}.txt", binary=True).out
                self.assertEqual(len(ids), 4 * known[name]["count"])
                self.assertEqual(hashlib.sha256(ids).hexdigest(), known[name]["sha256_int32_le"])
        plain = self.run_program("inspect", "--model", LLAMA, "--tokens", BOOKS, binary=True).out
        special = self.run_program("inspect", "--model", LLAMA, "--tokens", BOOKS, "--special", binary=True).out
        self.assertEqual(special, struct.pack("<i", 1) + plain)

    def test_inspect_tells_the_configuration(self):
        out = self.run_program("inspect", "--model", LLAMA).out
        for part in ("family         llama", "blocks         4", "hidden         128, feed-forward 384", "heads          4 of 32, key/value 2", "4096, head tied", "model.norm.weight"):
            self.assertIn(part, out)
        out = self.run_program("inspect", "--model", GGUF).out
        for kind in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K", "Q4_K", "Q5_K"):
            self.assertIn(f" {kind} ", out)

    def test_inspect_continues_a_text_the_same_way_each_time(self):
        say = lambda *options: self.run_program("inspect", "--model", LLAMA, "--generate", "The Martians", "--length", 12, *options).out
        self.assertEqual(say(), say())
        self.assertTrue(say().startswith("The Martians"))
        self.assertEqual(say("--temperature", 0), say())
        self.assertEqual(say("--seed", 5), say("--seed", 5))
        self.assertGreater(len({say("--seed", seed) for seed in range(4)}), 1)


class Repeated(Programs):
    RUN = ["--model", LLAMA, "--weights", "int4:g64", "--calibrate", "books_valid:8x128", "--evaluate", "books_test:8x128", "--threads", "2"]

    def test_a_second_run_takes_everything_from_the_caches(self):
        first = self.figures("gptq", *self.RUN)
        kept = blocks(self.folder / "results.h5")
        cached = {p: p.stat().st_mtime_ns for p in (self.folder / "results.h5.d").rglob("*.h5") if p.parent.name != "results.h5.d"}
        result = self.run_program("gptq", *self.RUN)
        self.assertRegex(result.err, "full precision, books_test: perplexity .*from the cache")
        self.assertRegex(result.err, "reference stream: from the cache")
        self.assertRegex(result.err, "all of 4 blocks were committed earlier")
        second = self.figures("gptq", *self.RUN)
        self.assertEqual([r["evaluations"] for r in first], [r["evaluations"] for r in second])
        self.assertEqual(blocks(self.folder / "results.h5"), kept)
        self.assertEqual({p: p.stat().st_mtime_ns for p in cached}, cached)

    def test_two_fresh_runs_are_identical(self):
        files = [self.folder / name / "results.h5" for name in ("a", "b")]
        for file in files:
            file.parent.mkdir()
            self.run_program("gptq", *self.RUN, "--results", file)
        self.assertEqual(blocks(files[0]), blocks(files[1]))

    def test_a_committed_run_is_evaluated_without_quantizing_again(self):
        for program, options in (("gptq", ["--override", "head=int8:channel"]), ("smoothquant", []), ("rtn", ["--activations", "int8:tensor", "--attention", "k=int8:token,v=int8:token", "--bos", "none"])):
            file = self.folder / f"{program}.h5"
            options = [*self.RUN, *options] if program != "smoothquant" else [*self.RUN[:2], *self.RUN[4:]]
            run = self.figures(program, *options, "--results", file)
            for name in (run_folders(file)[0], str(run_folders(file)[0]) + ".h5"):
                again = self.figures("evaluate", name, "--evaluate", "books_test:8x128", "--threads", "2")
                self.assertEqual([r["evaluations"] for r in again], [r["evaluations"] for r in run])
        more = self.figures("evaluate", name, "--evaluate", "wikitext2:2x64", "--evaluate", "books_test:2x64")
        self.assertEqual([e["text"] for e in more[1]["evaluations"]], ["wikitext2", "books_test"])
        self.run_program("evaluate", name, "--evaluate", "books_valid:4x64", status=2, says="--allow-overlap")
        self.run_program("evaluate", name, "--evaluate", "books_test:4x64", "--model", OPT, status=1, says="is not the model this run quantized")
        (run_folders(file)[0] / "block_0003.h5").unlink()
        self.run_program("evaluate", name, "--evaluate", "books_test:4x64", status=1, says="3 of 4 blocks are there")

    def test_a_run_that_adapts_is_evaluated_as_it_was_committed(self):
        runs = self.figures("lrquant_tta", "--model", LLAMA, "--calibrate", "books_valid:4x64", "--evaluate", "books_test:4x64", "--evaluate", "books_valid:3x64", "--allow-overlap",
                            "--learning.steps", "4", "--adaptation.epochs", "1", "--adaptation.updates", "1", "--adaptation.smoothing_rate", "1e-2", "--adaptation.rounding_rate", "1e-1", "--threads", "2")
        committed, adapted = runs[1], runs[2:]
        self.assertEqual(len(adapted), 4)
        for run in adapted:
            with self.subTest(label=run["label"]):
                test, calibration = run["evaluations"]
                kept = float(run["settings"]["adaptation.books_test.kept"])
                if kept > 0:
                    self.assertNotEqual(test["perplexity"], committed["evaluations"][0]["perplexity"])
                if "as published" in run["label"]:
                    self.assertEqual(kept, 1)
                self.assertEqual(calibration, committed["evaluations"][1])  # the text of calibration is not adapted to
                self.assertIn("adaptation.books_test.loss_after", run["settings"])
                self.assertNotIn("adaptation.books_valid.loss_after", run["settings"])
                whole = "segment" not in run["label"]  # what was forgotten is told where one adaptation serves a whole text
                for name in ("source_before", "source_after"):
                    self.assertEqual(f"adaptation.books_test.{name}" in run["settings"], whole)
                self.assertEqual("adaptation.books_test.last_block" in run["settings"], "as published" in run["label"])
                file = self.folder / "results.h5.d" / f"{run['digest']}.h5"
                again = self.run_program("evaluate", file, "--evaluate", "books_test:4x64", "--threads", "2", "--json", self.folder / "again.json")
                self.assertIn("its blocks before any adaptation", again.err)
                found = json.loads((self.folder / "again.json").read_text())["runs"][1]
                self.assertTrue(found["label"].endswith(", as committed"), found["label"])
                self.assertEqual(found["evaluations"], committed["evaluations"][:1])
        (folder,) = run_folders(self.folder / "results.h5")
        self.assertEqual(self.figures("evaluate", folder, "--evaluate", "books_test:4x64", "--threads", "2")[1]["label"], committed["label"])

    def test_two_learned_roundings_are_compared_on_held_out_text(self):
        command = ("generalisation", "--model", LLAMA, "--calibrate", "books_valid:4x64", "--held-out", "books_test:6x64", "--steps", "6", "--weights", "int3:channel:range=flexround", "--rank", "8", "--threads", "2")
        out = self.run_program(*command).out
        rows = [line.split() for line in out.splitlines() if line.split() and line.split()[0].isdigit()]
        self.assertEqual([row[0] for row in rows], ["0", "1", "2", "3"])
        for row in rows:
            learned, held_out, lrq_learned, lrq_held_out, difference = map(float, row[1:6])
            self.assertAlmostEqual(lrq_held_out - held_out, difference, delta=2e-6 + 1e-3 * abs(difference))
            for error in (learned, held_out, lrq_learned, lrq_held_out):
                self.assertTrue(1e-4 < error < 1, row)
        self.assertIn(f"{sum(float(row[5]) <= 0 for row in rows)} held out", out.splitlines()[-1])
        self.assertEqual(self.run_program(*command).out, out)
        # Errors on the sample are those that a driver reports.
        run = self.figures("flexround", "--model", LLAMA, "--calibrate", "books_valid:4x64", "--evaluate", "books_test:2x64", "--weights", "int3:channel:range=flexround", "--learning.steps", "6", "--rounding.rate", "3e-3", "--threads", "2")[2]
        self.assertEqual([f"{b['error']:.6f}" for b in run["blocks"]], [row[1] for row in rows])
        self.run_program("generalisation", "--model", LLAMA, "--calibrate", "books_valid:4x64", "--held-out", "books_valid:4x64", status=2, says="--held-out")
        self.run_program("generalisation", "--model", LLAMA, "--rank", "0", status=2, says="--rank")

    def test_a_model_folder_is_evaluated(self):
        run = self.figures("evaluate", LLAMA, "--evaluate", "books_test:64x256", "--bos", "none")
        self.assertEqual((len(run), round(run[0]["evaluations"][0]["perplexity"], 4)), (1, 69.0492))
        self.assertEqual(run[0]["settings"]["bos"], "none")
        self.run_program("evaluate", GGUF, "--evaluate", "books_test:2x32")

    def test_show_prints_what_was_found(self):
        runs = self.figures("rtn", *self.RUN, "--evaluate", "wikitext2:2x128")
        file = self.folder / "results.h5"
        rows = list(csv.DictReader(io.StringIO(self.run_program("show", file, "--format", "csv").out)))
        self.assertEqual([r["label"] for r in rows], [r["label"] for r in runs])
        for row, run in zip(rows, runs):
            for e in run["evaluations"]:
                column = f"{e['text']}:{e['windows']}x{e['window']}"
                self.assertEqual(float(row[f"{column} perplexity"]), e["perplexity"])
                self.assertEqual(float(row[f"{column} standard_error"]), e["standard_error"])
        markdown = self.run_program("show", file, "--format=markdown").out.splitlines()
        self.assertEqual(len(markdown), 4)
        self.assertTrue(all(line.startswith("| ") and line.endswith(" |") for line in markdown), markdown)
        table = self.run_program("show", file).out
        for run in runs:
            self.assertIn(f"{run['evaluations'][0]['perplexity']:.4f} ± {run['evaluations'][0]['standard_error']:.4f}", table)


class Formats(Programs):
    """Formats by place change the result in the direction they must, and are recorded."""

    RUN = ["--model", LLAMA, "--calibrate", "books_valid:8x128", "--evaluate", "books_test:16x128", "--threads", "2"]

    def found(self, *options):
        run = self.figures("rtn", *self.RUN, *options)[1]
        return run["evaluations"][0]["perplexity"], run

    def test_overrides(self):
        plain, base = self.found("--weights", "int3")
        one, run = self.found("--weights", "int3", "--override", "blocks.0.*=int8:channel")
        every, _ = self.found("--weights", "int3", "--override", "blocks.*=int8:channel")
        last, _ = self.found("--weights", "int3", "--override", "blocks.*=int2", "--override", "blocks.*=int8:channel")
        self.assertLess(one, plain)
        self.assertLess(every, one)
        self.assertEqual(last, every)
        self.assertGreater(run["bits_per_weight"], base["bits_per_weight"])
        self.assertEqual(run["precision"]["override.blocks.0.*"], "int8:channel:asym:range=gptq")
        worse = [a["linears"][0]["relative_error"] / b["linears"][0]["relative_error"] for a, b in zip(base["blocks"], run["blocks"])]
        self.assertGreater(worse[0], 100)

    def test_the_head(self):
        plain, base = self.found("--weights", "int8")
        eight, run = self.found("--weights", "int8", "--override", "head=int8:channel")
        two, _ = self.found("--weights", "int8", "--override", "head=int2:channel")
        self.assertNotEqual(plain, eight)
        self.assertAlmostEqual(eight / plain, 1, delta=2e-3)
        self.assertGreater(two, eight * 1.05)
        self.assertEqual(run["precision"]["override.head"], "int8:channel:asym:range=gptq")
        self.assertEqual(run["bits_per_weight"], base["bits_per_weight"])

    def test_activations_outputs_and_operands_of_attention(self):
        float_, _ = self.found("--weights", "int8")
        for option, fine, coarse, slot in (
            ("--activations", "int8:token", "int4:token", "activations"),
            ("--activations", "int8:static", "int4:static", "activations"),
            ("--activations", "int8:tensor", "int4:tensor", "activations"),
            ("--outputs", "v=int8:token", "v=int2:token", "outputs.self_attn.v_proj"),
            ("--outputs", "v=int8:static,k=int8:static", "v=int3:static,k=int3:static", "outputs.self_attn.k_proj"),
            ("--attention", "q=int8:token,k=int8:token,p=int8:token,v=int8:token", "q=int3:token,k=int3:token,p=int3:token,v=int3:token", "attention.p"),
        ):
            with self.subTest(option=option, format=fine):
                a, run = self.found("--weights", "int8", option, fine)
                b, _ = self.found("--weights", "int8", option, coarse)
                self.assertNotEqual(a, float_)
                self.assertAlmostEqual(a / float_, 1, delta=0.02)
                self.assertGreater(b - float_, 3 * abs(a - float_))
                self.assertTrue(run["precision"][slot].startswith("int8:"), run["precision"])

    def test_they_are_attributes_of_the_results(self):
        if h5py is None:
            skip("h5py is not there")
        self.found("--weights", "int4:g64", "--override", "blocks.0.*=int8:channel", "--override", "head=int8:channel", "--outputs", "v=int8:token", "--attention", "q=int8:token", "--activations", "int8:static", "--bos", "none")
        with h5py.File(self.folder / "results.h5") as file:
            precision = {k: str(v) for k, v in file["runs/0001/precision"].attrs.items()}
            settings = dict(file["runs/0001/settings"].attrs)
            self.assertFalse(file["runs/0001"].attrs["full_precision"])
        formats = {k: ":".join(v.split(":")[:2]) for k, v in precision.items()}
        self.assertEqual(formats, {"weights": "int4:g64", "activations": "int8:static", "outputs.self_attn.v_proj": "int8:token", "attention.q": "int8:token", "attention.k": "none",
                                   "attention.p": "none", "attention.v": "none", "override.blocks.0.*": "int8:channel", "override.head": "int8:channel"})
        self.assertEqual((settings["bos"], settings["calibration.bos"], settings["evaluation.books_test.bos"]), ("none", "none", "none"))

    def test_the_first_token_is_part_of_every_key(self):
        caches = lambda: {p.name for p in (self.folder / "results.h5.d/cache").glob("*.h5")}
        self.found("--weights", "int4")
        usual = caches()
        self.found("--weights", "int4", "--bos", "none")
        self.assertEqual(len(caches() - usual), 2, "the losses of full precision and the calibration cache")
        self.assertEqual(len(run_folders(self.folder / "results.h5")), 2)


main()
