#!/usr/bin/env python3
"""What llama.cpp's quantizer plans: the golden file of the mixes, and the small importance matrix the tests read.

    make_ggml_mixes.py path/to/llama.cpp/build/bin mixes.json imatrix.gguf

Needs the `gguf` package. Models of a few shapes are written as GGUF with zeros for weights; `llama-quantize --dry-run`
says what would become of each tensor, with an importance matrix and without. Each line of the golden file is a mix:
the type of most matrices (`*`), and the parts of the network that differ, from the first block to the last.
"""
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

MIXES = ["Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS",
         "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS", "Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S",
         "IQ2_XS", "IQ2_XXS"]
# layers, heads, kv_heads, experts, tied, width
SHAPES = {"small": (30, 9, 3, 0, True, 576), "gqa": (32, 32, 8, 0, False, 256), "mha": (24, 8, 8, 0, False, 256),
          "seventy": (80, 64, 8, 0, False, 256), "sixty_five": (80, 64, 64, 0, False, 256),
          "eight_experts": (32, 32, 8, 8, False, 256), "four_experts": (16, 8, 8, 4, True, 256)}
LINE = re.compile(r"\] +(\S+) +- \[.*?\], type = +(\S+), size = .*?(?:-> +[\d.]+ MiB \((\S+)\))?$")


def write_model(path, layers, heads, kv, experts, width, tied, rng=None):
    def matrix(*shape):
        if rng is None:
            return np.zeros(shape, np.float16)
        return (rng.standard_normal(shape) * 0.2).astype(np.float16)
    w, vocab = GGUFWriter(path, "llama"), 512
    w.add_block_count(layers)
    w.add_context_length(64)
    w.add_embedding_length(width)
    w.add_feed_forward_length(width)
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_rope_dimension_count(max(width // heads // 2 * 2, 2))
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(vocab)
    w.add_file_type(1)
    if experts:
        w.add_expert_count(experts)
        w.add_expert_used_count(2)
    w.add_tokenizer_model("llama")
    w.add_token_list(["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + [f"t{i}" for i in range(253)])
    w.add_token_scores([0.0] * vocab)
    w.add_token_types([2, 3, 3] + [6] * 256 + [1] * 253)
    w.add_tensor("token_embd.weight", matrix(vocab, width))
    w.add_tensor("output_norm.weight", np.ones(width, np.float32))
    if not tied:
        w.add_tensor("output.weight", matrix(vocab, width))
    side = width * kv // heads
    for i in range(layers):
        b = f"blk.{i}."
        w.add_tensor(b + "attn_norm.weight", np.ones(width, np.float32))
        w.add_tensor(b + "ffn_norm.weight", np.ones(width, np.float32))
        for part, rows in (("attn_q", width), ("attn_k", side), ("attn_v", side), ("attn_output", width)):
            w.add_tensor(f"{b}{part}.weight", matrix(rows, width))
        for part in ("ffn_gate", "ffn_up", "ffn_down"):
            if experts:
                w.add_tensor(f"{b}{part}_exps.weight", matrix(experts, width, width))
            else:
                w.add_tensor(f"{b}{part}.weight", matrix(width, width))
        if experts:
            w.add_tensor(b + "ffn_gate_inp.weight", np.zeros((experts, width), np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def planned(tools, model, mix, matrix):
    command = [tools / "llama-quantize", "--dry-run", *(["--imatrix", matrix] if matrix else []), model, mix]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    parts = {}
    for line in (run.stdout + run.stderr).splitlines():
        found = LINE.search(line)
        if found and found[1].endswith(".weight") and "norm" not in found[1] and "inp" not in found[1]:
            block = re.match(r"blk\.(\d+)\.", found[1])
            part = found[1].split(".")[2 if block else 0].removesuffix("_exps")
            parts.setdefault(part, []).append((int(block[1]) if block else 0, (found[3] or found[2]).upper()))
    types = {part: [kind for _, kind in sorted(kinds)] for part, kinds in sorted(parts.items())}
    most = Counter(kind for kinds in types.values() for kind in kinds).most_common(1)[0][0]
    return {"*": most} | {part: runs(kinds) for part, kinds in types.items() if set(kinds) != {most}}


def runs(kinds):
    out = []
    for kind in kinds:
        if out and out[-1][0] == kind:
            out[-1][1] += 1
        else:
            out.append([kind, 1])
    return " ".join(f"{kind}*{n}" for kind, n in out)


def dump(golden):
    """One line a mix."""
    shapes = []
    for name, shape in golden.items():
        mixes = [f'   "{key}": {json.dumps(value)}' for key, value in shape["mixes"].items()]
        facts = json.dumps({k: v for k, v in shape.items() if k != "mixes"})[1:-1]
        shapes.append(f' "{name}": {{{facts}, "mixes": {{\n' + ",\n".join(mixes) + "\n  }}")
    return "{\n" + ",\n".join(shapes) + "\n}\n"


def main(tools, mixes, matrix):
    tools, golden = Path(tools), {}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        model = scratch / "tiny.gguf"
        write_model(model, 1, 2, 1, 0, 32, True, np.random.default_rng(0))
        (scratch / "text").write_text("All happy families are alike; each unhappy family is unhappy in its own way. " * 8)
        subprocess.run([tools / "llama-imatrix", "-m", "tiny.gguf", "-f", "text", "-o", "tiny.imatrix.gguf", "-c", "32",
                        "-b", "32", "--chunks", "2", "-t", "1"], check=True, cwd=scratch, capture_output=True)
        Path(matrix).write_bytes((scratch / "tiny.imatrix.gguf").read_bytes())
        for name, (layers, heads, kv, experts, tied, width) in SHAPES.items():
            write_model(model, layers, heads, kv, experts, width, tied)
            lines = {}
            for mix in MIXES:
                plain = planned(tools, model, mix, None)
                weighed = planned(tools, model, mix, matrix)
                lines[mix] = plain
                if weighed != plain:
                    lines[mix + " imatrix"] = weighed
            golden[name] = {"layers": layers, "heads": heads, "kv_heads": kv, "experts": experts, "tied": tied,
                            "cols": width, "mixes": lines}
            print(name, len(lines))
    Path(mixes).write_text(dump(golden))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
