"""Models, caches and committed blocks that are wrong, cut short or damaged: an error that names the file, never a crash."""

import json
import random
import shutil
import signal
import struct

from programs import GGUF, LLAMA, SMALL, Programs, blocks, main, run_folders


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x40
    path.write_bytes(content)


class Models(Programs):
    def refused(self, model, says):
        self.run_program("rtn", "--model", model, *SMALL, status=1, says=says)
        self.run_program("inspect", "--model", model, "--generate", "x", "--length", "1", status=1, says=says)

    def test_folders_that_are_no_models(self):
        (self.folder / "nothing").mkdir()
        self.refused(self.folder / "nothing", "nothing")
        model = self.copy_model(LLAMA)
        (model / "config.json").unlink()
        self.refused(model, "model/config.json: missing")
        model = self.copy_model(LLAMA)
        (model / "model.safetensors").unlink()
        self.refused(model, "model: ")
        model = self.copy_model(LLAMA)
        for name in ("tokenizer.json", "tokenizer.model"):
            (model / name).unlink()
        self.refused(model, "tokenizer")

    def test_an_architecture_that_is_not_known_is_refused_by_name(self):
        model = self.copy_model(LLAMA)
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}))
        self.refused(model, 'config.json: model type "gpt2" is not supported; supported are llama')
        (model / "config.json").write_text("{")
        self.refused(model, "config.json")

    def test_safetensors_cut_short(self):
        for size in (0, 7, 100, 5000, 1_000_000, -1):
            model = self.copy_model(LLAMA)
            whole = (model / "model.safetensors").read_bytes()
            (model / "model.safetensors").write_bytes(whole[:size])
            self.refused(model, "model.safetensors: .*(cut short|too small)")

    def test_gguf_cut_short(self):
        whole = GGUF.read_bytes()
        path = self.folder / "short.gguf"
        for size in (0, 3, 20, 1000, 100_000, 1_000_000, len(whole) - 1):
            path.write_bytes(whole[:size])
            self.refused(path, "short.gguf")
        path.write_bytes(b"GGUX" + whole[4:])
        self.refused(path, "short.gguf: neither a GGUF file")

    def test_numbers_that_are_none_are_named_by_tensor(self):
        whole = (LLAMA / "model.safetensors").read_bytes()
        header = struct.unpack("<Q", whole[:8])[0]
        tensors = json.loads(whole[8 : 8 + header])
        for number in (0x7FC0, 0x7F80, 0xFF80):  # bfloat16 NaN, inf, -inf
            for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight", "model.layers.2.mlp.down_proj.weight", "model.layers.3.input_layernorm.weight", "model.norm.weight"):
                model = self.copy_model(LLAMA)
                content = bytearray(whole)
                at = 8 + header + tensors[name]["data_offsets"][0] + 2 * 5
                content[at : at + 2] = struct.pack("<H", number)
                (model / "model.safetensors").write_bytes(content)
                self.run_program("rtn", "--model", model, *SMALL, status=1, says=f"error: {name} .*NaN or infinity")

    def test_weights_that_overflow_name_the_block(self):
        whole = (LLAMA / "model.safetensors").read_bytes()
        header = struct.unpack("<Q", whole[:8])[0]
        begin, end = json.loads(whole[8 : 8 + header])["model.layers.1.mlp.up_proj.weight"]["data_offsets"]
        model = self.copy_model(LLAMA)
        content = bytearray(whole)
        content[8 + header + begin : 8 + header + end] = struct.pack("<H", 0x7F00) * ((end - begin) // 2)  # 1.7e38
        (model / "model.safetensors").write_bytes(content)
        self.run_program("rtn", "--model", model, *SMALL, status=1, says="error: block 1, ")

    def test_a_few_random_bytes_of_a_model_never_crash_it(self):
        seed = random.SystemRandom().randrange(2**32)
        print(f"random seed {seed}", flush=True)
        chance = random.Random(seed)
        whole = GGUF.read_bytes()
        path = self.folder / "random.gguf"
        for _ in range(12):
            content = bytearray(whole)
            for _ in range(4):
                content[chance.randrange(min(len(content), 140_000))] = chance.randrange(256)  # where the metadata is
            path.write_bytes(content)
            try:
                self.run_program("inspect", "--model", path)
            except AssertionError:
                self.run_program("inspect", "--model", path, status=1, says=r"random\.gguf|tokenizer|\S")


class OwnFiles(Programs):
    RUN = ["--model", LLAMA, "--weights", "int4:g64", "--calibrate", "books_valid:8x128", "--evaluate", "books_test:4x64", "--threads", "2"]

    def setUp(self):
        super().setUp()
        self.file = self.folder / "results.h5"

    def damaged(self, path, program, *arguments):
        """Several ways of damage, each noticed; the file as it was afterwards."""
        whole = path.read_bytes()
        name = path.name.replace(".", r"\.")
        for size in (0, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            self.run_program(program, *arguments, status=1, says=rf"{name}: .*; delete that file, and the command that made it makes it again")
        for offset in (0, 200, len(whole) // 2, len(whole) - 300, len(whole) - 3):
            path.write_bytes(whole)
            flip(path, offset)
            self.run_program(program, *arguments, status=1, says=rf"{name}: .*; delete that file, and the command that made it makes it again")
        path.write_bytes(whole)

    def test_a_committed_block(self):
        self.run_program("gptq", *self.RUN)
        good, run = blocks(self.file), run_folders(self.file)[0]
        self.damaged(run / "block_0001.h5", "evaluate", run, "--evaluate", "books_test:2x64")
        (run / "block_0001.h5").write_bytes(b"")
        self.run_program("gptq", *self.RUN, status=1, says=r"block_0001\.h5")
        (run / "block_0001.h5").unlink()
        self.run_program("gptq", *self.RUN)
        self.assertEqual(blocks(self.file), good)

    def test_the_quantized_stream_and_the_report_of_an_interrupted_run(self):
        process = self.start("gptq", *self.RUN)
        self.wait_for(lambda: blocks(self.file), process)
        process.send_signal(signal.SIGINT)
        process.wait()
        run = run_folders(self.file)[0]
        stream, report = sorted(run.glob("stream_*.h5"))[-1], run / "report_0000.h5"
        self.damaged(stream, "gptq", *self.RUN)
        self.damaged(report, "gptq", *self.RUN)
        stream.unlink()
        self.run_program("gptq", *self.RUN)
        good = blocks(self.file)
        shutil.rmtree(run)
        self.run_program("gptq", *self.RUN)
        self.assertEqual(blocks(self.file), good)

    def test_caches(self):
        self.run_program("gptq", *self.RUN)
        good, run = blocks(self.file), run_folders(self.file)[0]
        losses, stream = sorted((self.folder / "results.h5.d/cache").glob("*.h5"), key=lambda p: p.stat().st_size)
        self.damaged(losses, "gptq", *self.RUN)
        whole = stream.read_bytes()
        shutil.rmtree(run)
        for offset in (0, 300, len(whole) // 2, len(whole) * 3 // 4, len(whole) - 3):  # GPTQ never reads the first row: it embeds the tokens itself
            stream.write_bytes(whole)
            flip(stream, offset)
            self.run_program("gptq", *self.RUN, status=1, says=rf"{stream.name}: .*; delete that file")
            shutil.rmtree(run)
        stream.write_bytes(whole[: len(whole) // 3])
        self.run_program("gptq", *self.RUN, status=1, says=rf"{stream.name}: .*; delete that file")
        stream.unlink()
        self.run_program("gptq", *self.RUN)
        self.assertEqual(blocks(self.file), good)

    def test_the_collection_and_the_file_of_a_run(self):
        self.run_program("rtn", *self.RUN)
        whole = self.file.read_bytes()
        for content in (whole[: len(whole) // 2], whole[:500] + b"\x55" + whole[501:]):
            self.file.write_bytes(content)
            self.run_program("show", self.file, status=1, says=r"results\.h5: ")
            self.run_program("rtn", *self.RUN, status=1, says=r"results\.h5: exists and is not replaced.*move it away")
        self.file.unlink()
        self.run_program("rtn", *self.RUN)
        self.assertEqual(len(self.run_program("show", self.file, "--format", "csv").out.splitlines()), 3)


main()
