"""Good and bad values of every option: bad ones end with status 2, name the option, and leave nothing behind."""

import json

from programs import LLAMA, OPT, SMALL, TEXTS, Programs, blocks, h5py, main, perplexities, skip

MODEL = ["--model", LLAMA]

# Options of gptq that are refused, and what the message must hold.
REFUSED = [
    (["--weights", "int4:g63"], "groups of 63 do not divide 128 columns"),
    (["--weights", "int9"], "--weights: '9'"),
    (["--weights", "int1"], "--weights: '1'"),
    (["--weights", "int"], "--weights"),
    (["--weights", "4"], "--weights: '4'"),
    (["--weights", "nan"], "--weights: 'nan'"),
    (["--weights", ""], "--weights: ''"),
    (["--weights", "int4:g0"], "--weights"),
    (["--weights", "int4:g-8"], "--weights"),
    (["--weights", "int4:g99999999999999999999"], "--weights"),
    (["--weights", "int4:token"], "--weights: 'token'"),
    (["--weights", "int4:range=best"], "--weights: .*names no convention"),
    (["--weights", "int4:range=absmax"], "symmetric"),
    (["--weights", "mxint9:b16"], "--weights: '9'"),
    (["--weights", "mxint4:g16"], "--weights: 'g16'"),
    (["--weights", "mxint4:b0"], "--weights"),
    (["--activations", "mxint8:b4x16"], "--activations: blocks of 4 tokens"),
    (["--weights", "int4", "int3"], "int3"),
    (["--activations", "int8:channel"], "--activations: 'channel'"),
    (["--activations", "int8:g64"], "--activations: 'g64'"),
    (["--activations", "fp8"], "--activations: 'fp8'"),
    (["--outputs", "int8"], "--outputs: 'int8' is not NAME=FORMAT"),
    (["--outputs", "z=int8"], "--outputs: 'z' is none of"),
    (["--outputs", "v=int88"], "--outputs v: '88'"),
    (["--attention", "x=int8"], "--attention: 'x' is none of"),
    (["--attention", "q=int8:static"], "--attention q: .*static"),
    (["--bias", "int8:static"], "--bias"),
    (["--bias", "int8:g4"], "--bias: 'g4'"),
    (["--factors", "int8"], "--factors.*no recipe here"),
    (["--branch", "mxint8:b16"], "--branch.*no recipe here"),
    (["--override", "int8"], "--override: 'int8' is not NAME=FORMAT"),
    (["--override", "blocks.9.*=int8"], r"--override: 'blocks\.9\.\*' matches no linear .*blocks\.<0 to 3>"),
    (["--override", "q_proj=int8"], "--override: 'q_proj' matches nothing"),
    (["--override", "*nothing*=int8"], "matches no linear"),
    (["--override", "head=int4:g63"], "head: groups of 63"),
    (["--override", "blocks.0.*=int4:token"], "--override blocks.0"),
    (["--calibrate", "books_valid:0x64"], "'0' is not a whole number"),
    (["--calibrate", "books_valid:4x0"], "'0' is not a whole number"),
    (["--calibrate", "books_valid:-4x64"], "'-4' is not a whole number"),
    (["--calibrate", "books_valid:4x64x2"], "'64x2' is not a whole number"),
    (["--calibrate", "books_valid:99999999999999999999x64"], "is not a whole number"),
    (["--calibrate", "books_valid:nanx64"], "'nan' is not a whole number"),
    (["--calibrate", "books_valid:4"], "write NAME or NAME:NxL"),
    (["--calibrate", ""], "no name"),
    (["--calibrate", "unheard_of"], "neither a file nor a known text"),
    (["--evaluate", "books_test:0x64"], "'0' is not a whole number"),
    (["--evaluate", "books_test:4x1"], "'1' is not a whole number"),
    (["--evaluate", ""], "no name"),
    (["--evaluate", "nowhere.txt:4x64"], "neither a file nor a known text"),
    (["--evaluate", "books_valid:4x64"], "are the same text; choose another text, or --allow-overlap"),
    (["--sampling", "1"], "--sampling: '1' is none of"),
    (["--protocol", "0"], "protocol '0' is not known"),
    (["--bos", "once"], "--bos: 'once'"),
    (["--cache-stream", "most"], "--cache-stream: 'most'"),
    (["--streams", "disk"], "--streams: 'disk' is neither memory nor mapped"),
    (["--streams", ""], "--streams: ''"),
    (["--export-dtype", "f8"], "--export-dtype: 'f8'"),
    (["--verify"], "--verify needs --export"),
    (["--seed", "-1"], "--seed: '-1'"),
    (["--seed", "1.5"], "--seed: '1.5'"),
    (["--seed", "nan"], "--seed: 'nan'"),
    (["--seed", ""], "--seed"),
    (["--seed", "100000000000000000000"], "--seed: '100000000000000000000'"),
    (["--seed", "18446744073709551615"], "--seed"),
    (["--seed", "1", "--seed", "2"], "--seed"),
    (["--threads", "-1"], "--threads: '-1'"),
    (["--threads", "1e3"], "--threads: '1e3'"),
    (["--threads", "5000"], "--threads: '5000'"),
    (["--dtype", "bf16"], "--dtype: 'bf16' is none of f32, f64"),
    (["--dtype", "0"], "--dtype: '0'"),
    (["--device", "cuda"], "--device: cuda needs a libtorch with CUDA .*Torch_DIR"),
    (["--device", "tpu"], "--device: 'tpu'"),
    (["--results", ""], "--results"),
    (["--json", ""], "--json"),
    (["--cache", ""], "--cache"),
    (["--quick=maybe"], "--quick"),
    (["--solver.damp", "nan"], "solver.damp: 'nan'"),
    (["--solver.damp", "inf"], "solver.damp: 'inf'"),
    (["--solver.damp", "1e999"], "solver.damp: '1e999'"),
    (["--solver.damp", "-1"], "solver.damp must lie in"),
    (["--solver.damp", "0,01"], "solver.damp: '0,01'"),
    (["--solver.damp", ""], "solver.damp"),
    (["--solver.block", "0"], "solver.block"),
    (["--solver.block", "100000000000000000000"], "solver.block"),
    (["--solver.block", "1.5"], "solver.block"),
    (["--solver.order", "1"], "solver.order: '1' is none of natural"),
    (["--solver.order", "Natural"], "solver.order"),
    (["--solver.static_groups", "1"], "solver.static_groups: '1' is neither true nor false"),
    (["--solver.static_groups", "yes"], "solver.static_groups"),
    (["--solver.dampen", "0.1"], "--solver.dampen"),
    (["--rounding.rank", "4"], "--rounding.rank"),
    (["--learning.steps", "-1"], "learning.steps"),
    (["--learning.batch", "0"], "learning.batch"),
    (["--loss.reduce", "sum"], "no row is left to run"),
    (["--unheard-of"], "--unheard-of"),
    (["stray"], "stray"),
    (["--resume"], "--resume"),
]


def files(folder):
    return [p for p in folder.rglob("*") if p.is_file()]


class Refused(Programs):
    def test_bad_values_name_their_option_and_leave_nothing(self):
        for options, says in REFUSED:
            with self.subTest(options):
                defaults = [text for i in range(0, len(SMALL), 2) if SMALL[i] != options[0] for text in SMALL[i : i + 2]]
                for path in files(self.folder):
                    path.unlink()
                result = self.run_program("gptq", *MODEL, *defaults, *options, status=2, says=says)
                self.assertEqual(result.out, "")
                self.assertEqual(files(self.folder), [])

    def test_a_row_that_formats_rule_out_is_an_error_but_an_entry_of_a_sweep_is_left_out_and_said(self):
        self.run_program("claq", *MODEL, *SMALL, "--weights", "int3,int4:g64", status=2, says="claq int4:g64: claq fits a codebook a column: write --weights int4")
        self.run_program("lrquant", *MODEL, *SMALL, "--weights", "mxint4:b16", status=2, says="lrquant, not learned mxint4:b16.*: a learned clip needs a step that can move")
        self.assertEqual(files(self.folder), [])
        swept = self.run_program("ablation_solvers", *MODEL, *SMALL, "--weights", "int4:g64", "--activations", "int8", "--dry-run", says="left out: claq int4:g64.* and 1 more: claq fits a codebook a column")
        self.assertIn("gptq", swept.out)
        self.assertNotIn("claq", swept.out)

    def test_operands_of_attention_follow_the_activations_only_where_those_have_no_static_ranges(self):
        options = [*MODEL, *SMALL, "--activations", "int8:static"]
        self.run_program("lrquant", *options, status=2, says="--attention q=activations: .*static.*a format of its own, or none")
        self.assertEqual(files(self.folder), [])
        self.run_program("lrquant", *options, "--attention", "q=none,k=int8", "--dry-run")

    def test_a_model_must_be_named(self):
        self.run_program("gptq", *SMALL, status=2, says="--model")
        self.run_program("gptq", "--model", "", *SMALL, status=2)
        self.run_program("gptq", "--model", "nowhere", *SMALL, status=2, says="nowhere: no such file or folder")

    def test_windows_beyond_learned_positions_are_refused_before_the_work(self):
        small = ["--calibrate", "books_valid:4x64"]
        self.run_program("gptq", "--model", OPT, *small, "--evaluate", "books_test:4x257", status=2, says="--evaluate: 257 tokens are more than the model's 256 positions")
        self.run_program("gptq", "--model", OPT, "--calibrate", "books_valid:4x300", "--evaluate", "books_test:4x64", status=2, says="--calibrate: 300 tokens")
        self.run_program("rtn", "--model", LLAMA, *small, "--evaluate", "books_test:2x300", status=0, says="300 tokens are more than the 256 positions the model was made for")

    def test_texts_that_are_absent_or_too_short(self):
        for name in ("ptb", "ptb-new", "c4", "c4-new"):
            self.run_program("rtn", *MODEL, "--calibrate", "books_valid:4x64", "--evaluate", name, status=1, says=f"text '{name}' for evaluation: no .*PTQ_TEXTS")
        self.run_program("rtn", *MODEL, "--calibrate", "c4:4x64", "--evaluate", "books_test:4x64", status=1, says="text 'c4' for calibration")
        self.run_program("rtn", *MODEL, "--calibrate", "books_valid:4x64", "--evaluate", "books_test:9999x64", status=1, says="has 1485 windows|has 147[0-9] windows|not 9999")
        self.run_program("rtn", *MODEL, "--calibrate", "books_valid:4x999999", "--evaluate", "books_test:4x64", status=1, says="crops of 999999 need at least 1000000")

    def test_files_that_are_no_texts(self):
        empty, binary, blank = self.folder / "empty.txt", self.folder / "binary.txt", self.folder / "blank.txt"
        empty.write_bytes(b"")
        binary.write_bytes(bytes(range(256)) * 40)
        blank.write_text(" \n\t\n")
        for path, says in ((empty, "the text is empty"), (blank, "the text is empty"), (binary, "is not UTF-8"), (self.folder, "no such file")):
            for option, other in (("--evaluate", ["--calibrate", "books_valid:4x64"]), ("--calibrate", ["--evaluate", "books_test:4x64"])):
                self.run_program("rtn", *MODEL, *other, option, f"{path}:4x64", status=1, says=says)

    def test_tools_refuse_too(self):
        text = TEXTS / "books_test.txt"
        for program, options in (
            ("inspect", []), ("inspect", ["--model", "nowhere"]), ("inspect", [*MODEL, "--nll", text, "--window", "1"]), ("inspect", [*MODEL, "--nll", text, "--windows", "0"]),
            ("inspect", [*MODEL, "--generate", "x", "--length", "-1"]), ("inspect", [*MODEL, "--generate", "x", "--temperature", "nan"]),
            ("inspect", [*MODEL, "--generate", "x", "--temperature", "-1"]), ("inspect", [*MODEL, "--generate", "x", "--seed", "x"]),
            ("evaluate", []), ("evaluate", ["nowhere"]), ("evaluate", [LLAMA, "--evaluate", ""]), ("evaluate", [LLAMA, "--protocol", "x"]), ("evaluate", [LLAMA, "--bos", "x"]),
            ("evaluate", [LLAMA, "--threads", "x"]), ("show", []), ("show", ["nowhere.h5"]), ("show", ["--format", "html"]), ("show", ["--unheard-of"]),
        ):
            with self.subTest(program=program, options=options):
                self.run_program(program, *options, status=2)
        self.run_program("inspect", *MODEL, "--nll", "nowhere.txt", status=1, says="nowhere.txt")
        self.run_program("inspect", *MODEL, "--tokens", "nowhere.txt", status=1, says="nowhere.txt")
        self.run_program("evaluate", self.folder, status=1)
        self.run_program("show", text, status=1, says="books_test.txt")


class Accepted(Programs):
    def test_help(self):
        for program in ("rtn", "gptq", "smoothquant", "evaluate", "inspect", "show"):
            self.assertIn("--", self.run_program(program, "--help").out)

    def test_a_dry_run_says_what_it_would_do_and_does_nothing(self):
        out = self.run_program("gptq", *MODEL, *SMALL, "--weights", "int4,int3:g64", "--dry-run", "--json", "x.json", "--export", "exported").out
        for part in ("llama, 4 blocks", "4 x 64 tokens of books_valid", "4 windows of 64 tokens of books_test", "GB on disk in results.h5.d/cache", "memory       at most", "gptq(order=descending, static_groups=true) int4:channel", "static_groups=true) int3:g64"):
            self.assertIn(part, out)
        self.assertEqual(list(self.folder.iterdir()), [])
        self.run_program("gptq", *MODEL, *SMALL, "--weights", "int4:g63", "--dry-run", status=2)

    def test_quiet_leaves_the_table_alone(self):
        result = self.run_program("rtn", *MODEL, *SMALL, "--quiet")
        self.assertEqual(result.err, "")
        self.assertIn("full precision", result.out)

    def test_several_formats_are_rows_and_several_texts_columns(self):
        runs = self.figures("rtn", *MODEL, *SMALL, "--weights", "int4:g64,int3", "--weights", "int8:sym", "--evaluate", "wikitext2:2x64", "--evaluate", "wikitext2_valid:2x64")
        self.assertEqual([r["label"] for r in runs], ["full precision", "rtn int4:g64", "rtn int3:channel", "rtn int8:channel:sym"])
        for run in runs:
            self.assertEqual([e["text"] for e in run["evaluations"]], ["books_test", "wikitext2", "wikitext2_valid"])

    def test_fields_of_policies_are_options_and_recorded(self):
        fields = {"solver.damp": "0.05", "solver.block": "64", "solver.order": "descending", "solver.static_groups": "true", "solver.true_sequential": "true"}
        options = [text for path, value in fields.items() for text in (f"--{path}", value)]
        run = self.figures("gptq", *MODEL, *SMALL, "--weights", "int3:g64", *options)[1]
        for path, value in fields.items():
            self.assertEqual(run["description"][path], value)
        self.assertIn("damp=0.05", run["label"])

    def test_operands_of_attention_may_follow_the_activations(self):
        runs = self.figures("rtn", *MODEL, *SMALL, "--activations", "int8:token,int6:token", "--attention", "k=activations,v=int4:token")
        self.assertEqual(len(runs), 3)
        for run, bits in zip(runs[1:], (8, 6)):
            given = {name: run["precision"][f"attention.{name}"] for name in "qkpv"}
            self.assertEqual(given["k"], run["precision"]["activations"])
            self.assertRegex(given["k"], f"^int{bits}:token")
            self.assertRegex(given["v"], "^int4:token")
            self.assertEqual((given["q"], given["p"]), ("none", "none"))

    def test_the_cached_and_the_computed_stream_give_the_same_figures(self):
        for program, options in (("gptq", ["--weights", "int3:g64"]), ("smoothquant", [])):
            kept = self.figures(program, *MODEL, *SMALL, *options, "--cache-stream", "all", "--results", self.folder / "all.h5")
            last = self.figures(program, *MODEL, *SMALL, *options, "--cache-stream", "last", "--results", self.folder / "last.h5")
            for a, b in zip(kept, last):
                self.assertEqual((a["evaluations"], a["digest"], [x["error"] for x in a["blocks"]]), (b["evaluations"], b["digest"], [x["error"] for x in b["blocks"]]))
        self.assertEqual(blocks(self.folder / "all.h5"), blocks(self.folder / "last.h5"))

    def test_one_thread_and_double_precision_agree_with_the_usual(self):
        usual = perplexities(self.figures("gptq", *MODEL, *SMALL, "--weights", "int4:g64"))
        for options in (["--threads", "1"], ["--dtype", "f64"]):
            small = SMALL[:-2] + options
            other = perplexities(self.figures("gptq", *MODEL, *small, "--weights", "int4:g64"))
            self.assertAlmostEqual(other[0][0] / usual[0][0], 1, delta=1e-5)
            self.assertAlmostEqual(other[1][0] / usual[1][0], 1, delta=1e-2)

    def test_protocols_cut_windows_differently(self):
        text = self.folder / "text.txt"
        text.write_text((TEXTS / "books_test.txt").read_text()[2000:5000])
        small = ["--calibrate", "books_valid:4x64", "--evaluate", text, "--allow-overlap"]
        windows = {}
        for protocol in ("gptq", "tail"):
            evaluation = self.figures("rtn", *MODEL, *small, "--protocol", protocol)[0]["evaluations"][0]
            self.assertEqual(evaluation["protocol"], protocol)
            windows[protocol] = (evaluation["windows"], evaluation["tokens"])
        self.assertEqual(windows["tail"][0], windows["gptq"][0] + 1)
        self.assertGreater(windows["tail"][1], windows["gptq"][1])

    def test_overlap_is_allowed_on_demand(self):
        self.run_program("rtn", *MODEL, "--calibrate", "books_test:4x64", "--evaluate", "books_test:4x64", "--allow-overlap", "--quiet")
        copy = self.folder / "copy.txt"
        copy.write_text((TEXTS / "books_valid.txt").read_text()[1000:200_000])
        self.run_program("rtn", *MODEL, "--calibrate", "books_valid:4x64", "--evaluate", f"{copy}:4x64", status=2, says="--allow-overlap")

    def test_quick_scales_the_papers_settings_down(self):
        run = self.figures("gptq", *MODEL, "--quick")[1]
        self.assertEqual((run["evaluations"][0]["text"], run["evaluations"][0]["windows"], run["evaluations"][0]["window"]), ("wikitext2", 8, 256))
        self.assertEqual((run["settings"]["calibration.samples"], run["settings"]["calibration.length"]), ("16", "256"))
        run = self.figures("gptq", *MODEL, *SMALL, "--quick")[1]  # what is given explicitly stays
        self.assertEqual((run["settings"]["calibration.samples"], run["evaluations"][0]["window"]), ("4", 64))


class Figures(Programs):
    """--json against the plan of its fields, and standard errors against the losses of windows in results.h5."""

    def test_json_has_the_agreed_fields_and_honest_errors(self):
        runs = self.figures("gptq", *MODEL, "--calibrate", "books_valid:8x128", "--evaluate", "books_test:12x128", "--evaluate", "wikitext2:1x128", "--weights", "int4:g64,int2:g64")
        text = (self.folder / "figures.json").read_text()
        self.assertEqual(list(json.loads(text)), ["runs"])
        self.assertEqual([r["full_precision"] for r in runs], [True, False, False])
        for run in runs:
            self.assertLessEqual({"recipe", "label", "bits_per_weight", "model_bits_per_parameter", "evaluations", "blocks", "seconds", "peak_memory_bytes"}, set(run))
            for e in run["evaluations"]:
                self.assertEqual(set(e), {"text", "protocol", "windows", "window", "tokens", "perplexity", "standard_error", "difference", "difference_standard_error"})
                self.assertEqual(e["tokens"], e["windows"] * e["window"])
            self.assertEqual([b["index"] for b in run["blocks"]], [] if run["full_precision"] else [0, 1, 2, 3])
            for block in run["blocks"]:
                self.assertEqual(len(block["linears"]), 7)
                for linear in block["linears"]:
                    self.assertLessEqual({"name", "relative_error", "relative_to_rtn"}, set(linear))
                    self.assertTrue(0 < linear["relative_error"] < 1)
            self.assertGreater(run["seconds"], 0)
            self.assertTrue(10e6 < run["peak_memory_bytes"] < 2e9)
        self.assertEqual((runs[0]["bits_per_weight"], runs[1]["evaluations"][1]["standard_error"], runs[0]["evaluations"][0]["difference"]), (16, None, None))
        # (4 + (32 + 4) / 64) and (2 + (32 + 2) / 64): a float scale and a zero point of the weight's bits a group
        self.assertAlmostEqual(runs[1]["bits_per_weight"], 4.5625)
        self.assertAlmostEqual(runs[2]["bits_per_weight"], 2.53125)
        if h5py is None:
            skip("without h5py the losses of windows cannot be read")
        with h5py.File(self.folder / "results.h5") as file:
            nll = [[float(x) for x in file[f"runs/{i:04}/evaluations/0000/nll"]] for i in range(3)]
        for run, losses in zip(runs, nll):
            self.assert_figures(run["evaluations"][0], losses, nll[0], run["full_precision"])

    def assert_figures(self, e, losses, reference, full_precision):
        from math import exp
        from statistics import mean, stdev

        n = len(losses)
        self.assertEqual(n, e["windows"])
        perplexity, base = exp(mean(losses)), exp(mean(reference))
        self.assertAlmostEqual(e["perplexity"] / perplexity, 1, delta=1e-12)
        self.assertAlmostEqual(e["standard_error"] / (perplexity * stdev(losses) / n**0.5), 1, delta=1e-9)
        if not full_precision:
            paired = [perplexity * q - base * r for q, r in zip(losses, reference)]
            self.assertAlmostEqual(e["difference"] / (perplexity - base), 1, delta=1e-9)
            self.assertAlmostEqual(e["difference_standard_error"] / (stdev(paired) / n**0.5), 1, delta=1e-9)


main()
