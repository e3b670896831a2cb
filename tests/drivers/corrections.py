"""Corrections and number formats at their edges, through the programs: the right result, or one sentence that names option or layer."""

import json
import math

from programs import LLAMA, SMALL, Programs, main, perplexities

MODEL = ["--model", LLAMA]
BARE = ["--activations", "none", "--attention", "q=none", "--branch", "none", "--bias", "none"]  # weights alone, for l2qer

REFUSED = [
    (["--correction.rank", "2.5"], "correction.rank: '2.5'"),
    (["--correction.rank", "nan"], "correction.rank: 'nan'"),
    (["--correction.energy", "nan"], "correction.energy: 'nan'"),
    (["--correction.budget", "inf"], "correction.budget: 'inf'"),
    (["--correction.blocks", "sideways"], "correction.blocks: 'sideways' is none of outer"),
    (["--correction.form", "best"], "correction.form: 'best' is none of exact"),
    (["--correction.magnitude", "rms"], "--correction.magnitude"),  # L²QER's alone
    (["--factors", "int8:token"], "--factors: 'token'"),
    (["--factors", "mxint8:b0"], "--factors"),
    (["--branch", "int8:static"], "--branch"),
    (["--branch", "mxint8:b2x16"], "--branch: blocks of 2 tokens"),
    (["--weights", "float4:e2:g7"], "groups of 7 do not divide 128 columns"),
    (["--weights", "float16:e5"], "8 bits at most, which is too few for float16:e5"),
    (["--weights", "float4:e2:g8:b8"], "--weights: 'b8' .* a second time"),
    (["--override", "head=float12:e4"], "head: codes of weights have 8 bits at most"),
]


def linears(model):
    """Shapes (out, in) of the linears of a LLaMA model's blocks, by its configuration."""
    c = json.loads((model / "config.json").read_text())
    hidden, ffn, heads = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"]
    narrow = c["num_key_value_heads"] * (hidden // heads)
    block = [(hidden, hidden), (narrow, hidden), (narrow, hidden), (hidden, hidden), (ffn, hidden), (ffn, hidden), (hidden, ffn)]
    return block * c["num_hidden_layers"]


def mean_bits(of):
    """Bits a weight over all linears, `of` (out, in) bits of one."""
    shapes = linears(LLAMA)
    return sum(of(*s) for s in shapes) / sum(o * i for o, i in shapes)


class Edges(Programs):
    def test_bad_values_name_their_option(self):
        for options, says in REFUSED:
            with self.subTest(options):
                self.run_program("qera", *MODEL, *SMALL, *options, status=2, says=says)

    def test_full_rank_in_floating_point_restores_the_model(self):
        runs = self.figures("qera", *MODEL, *SMALL, "--weights", "mxint2:b16", "--correction.rank", "100000")
        full, plain, *corrected = [p[0] for p in perplexities(runs)]
        self.assertEqual(len(corrected), 3)
        self.assertGreater(plain / full, 1.05)
        for found in corrected:
            self.assertAlmostEqual(found / full, 1, delta=1e-4)

    def test_budgets_that_buy_nothing_and_everything(self):
        def run(*options):
            return self.figures("qera", *MODEL, *SMALL, "--weights", "mxint3:b16", "--factors", "mxint8:b16", *options)

        nothing, everything, usual = run("--correction.budget", "1e-9"), run("--correction.budget", "1e300"), run()
        for row in nothing[2:]:
            self.assertEqual((row["bits_per_weight"], row["evaluations"][0]["perplexity"]), (nothing[1]["bits_per_weight"], nothing[1]["evaluations"][0]["perplexity"]))
        self.assertEqual(perplexities(everything), perplexities(usual))
        for budget in (0.5, 1, 3):
            for row in run("--correction.budget", str(budget), "--correction.rank", "128")[2:]:
                spent = row["bits_per_weight"] - nothing[1]["bits_per_weight"]
                self.assertTrue(0.5 * budget < spent <= budget * 1.02, f"{row['label']} spends {spent} of {budget}")  # short blocks cost a little more

    def test_an_energy_of_one_keeps_all_and_less_keeps_less(self):
        bits = [self.figures("qera", *MODEL, *SMALL, "--weights", "mxint3:b16", "--correction.energy", e)[4]["bits_per_weight"] for e in ("0", "1", "0.7", "0.3", "1e-300")]
        self.assertEqual(bits[0], bits[1])
        self.assertEqual(bits[1:], sorted(bits[1:], reverse=True))
        self.assertAlmostEqual(bits[4] - mean_bits(lambda o, i: 3 * o * i + 8 * o * math.ceil(i / 16)), mean_bits(lambda o, i: 32 * (o + i)), places=9)  # one direction each

    def test_bits_of_blocks_that_do_not_divide_of_two_dimensions_and_of_minifloats(self):
        up = math.ceil
        for text, of in (
            ("mxint3:b7", lambda o, i: 3 * o * i + 8 * o * up(i / 7)),
            ("mxint3:b4x7", lambda o, i: 3 * o * i + 8 * up(o / 4) * up(i / 7)),
            ("mxint3:b1073741824x1073741824", lambda o, i: 3 * o * i + 8),
            ("float4:e2:b48", lambda o, i: 4 * o * i + 8 * o * up(i / 48)),
            ("float4:e2:b3x100:bias2", lambda o, i: 4 * o * i + 8 * up(o / 3) * up(i / 100)),
            ("float6:e3:g32", lambda o, i: 6 * o * i + 32 * o * (i // 32)),
            ("float8:e4:tensor", lambda o, i: 8 * o * i + 32),
            ("float8:e4:bias12", lambda o, i: 8 * o * i),
        ):
            with self.subTest(text):
                rtn, gptq = (self.figures(p, *MODEL, *SMALL, "--weights", text)[1] for p in ("rtn", "gptq"))
                for run in (rtn, gptq):
                    self.assertAlmostEqual(run["bits_per_weight"], mean_bits(of), places=9)
                    self.assertTrue(math.isfinite(run["evaluations"][0]["perplexity"]))
                if not text.startswith("float8"):  # elsewhere there is hardly an error
                    self.assertLess(gptq["blocks"][-1]["error"], rtn["blocks"][-1]["error"])

    def test_factors_and_their_branch_in_every_kind_of_format(self):
        for factors, branch in (("int8:g16", "int8:token"), ("mxint4:b7", "mxint8:b7"), ("mxint8:b3x5", "none"), ("float8:e4:b16", "float8:e4:token"), ("float16:e5", "float8:e5"),
                                ("float6:e3:channel", "float8:e4:b16"), ("fixed8:f5", "fixed8:f3")):
            with self.subTest(factors=factors, branch=branch):
                runs = self.figures("qera", *MODEL, *SMALL, "--weights", "int3", "--factors", factors, "--branch", branch, "--correction.rank", "16")
                self.assertLess(runs[4]["blocks"][-1]["error"], runs[1]["blocks"][-1]["error"])

    def test_two_tokens_are_enough_to_fit_to(self):
        runs = self.figures("qera", *MODEL, "--calibrate", "books_valid:1x2", "--evaluate", "books_test:4x64")
        for run in runs:
            self.assertTrue(math.isfinite(run["evaluations"][0]["perplexity"]))

    def test_a_weight_that_is_not_finite_is_named(self):
        model = self.copy_model(LLAMA)
        data = bytearray((model / "model.safetensors").read_bytes())
        size = int.from_bytes(data[:8], "little")
        name = "model.layers.1.self_attn.q_proj.weight"
        at = 8 + size + json.loads(data[8 : 8 + size])[name]["data_offsets"][0]
        data[at : at + 8] = b"\xff" * 8  # NaN in every floating point type
        (model / "model.safetensors").write_bytes(data)
        for options in ([], ["--weights", "float4:e2:g32"], ["--weights", "int4:g32"]):
            self.run_program("l2qer", "--model", model, *SMALL, *BARE, *options, status=1, says=f"{name} .*NaN")

    def test_an_error_of_zero_needs_no_factors(self):
        model = self.copy_model(LLAMA)
        data = bytearray((model / "model.safetensors").read_bytes())
        size = int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8 : 8 + size]).items():
            if name.endswith("proj.weight"):
                begin, end = (8 + size + x for x in entry["data_offsets"])
                data[begin:end] = bytes(end - begin)
        (model / "model.safetensors").write_bytes(data)
        runs = self.figures("qera", "--model", model, *SMALL, "--weights", "mxint4:b16")
        for run in runs[1:]:
            self.assertEqual(run["evaluations"][0]["perplexity"], runs[0]["evaluations"][0]["perplexity"])
            self.assertAlmostEqual(run["bits_per_weight"], 4.5)


main()
