#!/usr/bin/env python3
"""Light tier: a GGUF artifact read by the `gguf` package of llama.cpp.

    check_gguf.py ARTIFACT.gguf --reference FAKE_QUANT_DIR [--peer PEER.gguf] [--source MODEL_DIR]

Every tensor is dequantized by gguf.quants, its llama.cpp name and row order mapped back, and compared with
FAKE_QUANT_DIR, the same job's dense `safetensors` output: bit for bit once rounded to the dense file's own
dtype (tolerance: none). --peer compares metadata, tensor types and sizes with a file that llama.cpp's own
tools made from the same weights: keys the engine reads must be equal, types must be the same mix, and our
file may not be larger by more than 4 KiB (metadata). With --source as well, our squared error against the
source weights, summed per tensor type, may not exceed the peer's by more than 1 %.
"""
import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

from layouts import Checkpoint, Tally, compare

PARTS = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
         "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
# Free text, or of the tool that wrote the file: not the engine's business.
OF_THE_WRITER = ("general.", "quantize.", "modelpress.", "GGUF.", "split.")


def hf_name(name):
    stem, _, leaf = name.rpartition(".")
    if stem in WHOLE:
        return f"{WHOLE[stem]}.{leaf}"
    m = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    return f"model.layers.{m[1]}.{PARTS[m[2]]}.{leaf}" if m and m[2] in PARTS else None


def value(reader, key):
    field = reader.get_field(key)
    return None if field is None else field.contents()


def tensor(reader, t):
    """The tensor in f32, rows in Hugging Face's order (llama.cpp interleaves q and k for its rotary form)."""
    w = dequantize(t.data, t.tensor_type).astype(np.float32).reshape(tuple(int(d) for d in t.shape[::-1]))
    arch = value(reader, "general.architecture")
    if arch == "llama" and re.search(r"attn_[qk]\.(weight|bias)$", t.name):
        heads = value(reader, f"llama.attention.head_count{'_kv' if 'attn_k' in t.name else ''}")
        rows = w.shape[0]
        w = w.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)
    return w


def check_peer(tally, ours, peer, ours_path, peer_path):
    for key in peer.fields:
        if key.startswith(OF_THE_WRITER) and key not in ("general.architecture", "general.file_type", "general.quantization_version"):
            continue
        a, b = value(ours, key), value(peer, key)
        if a != b:
            show = [json.dumps(x, default=str)[:80] for x in (a, b)]
            if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
                i = next(i for i in range(len(a)) if a[i] != b[i])
                show = [f"[{i}]={a[i]!r}", f"[{i}]={b[i]!r}"]
            tally.check(f"got {show[0]}, peer {show[1]}", f"metadata {key}")
        else:
            tally.check(None)
    types = [{t.name: t.tensor_type.name for t in r.tensors} for r in (ours, peer)]
    for name in sorted(types[0].keys() | types[1].keys()):
        a, b = types[0].get(name), types[1].get(name)
        tally.check(None if a == b else f"type {a}, peer {b}", name)
    sizes = [Path(p).stat().st_size for p in (ours_path, peer_path)]
    print(f"bytes {sizes[0]}, peer {sizes[1]}")
    tally.check(None if sizes[0] <= sizes[1] + 4096 else f"{sizes[0]} bytes, peer {sizes[1]}", "size")


def check_error(tally, ours, peer, source):
    theirs, sums, blocks = {t.name: t for t in peer.tensors}, {}, {}
    for t in ours.tensors:
        name = hf_name(t.name)
        if t.name not in theirs or len(t.shape) < 2 or t.tensor_type != theirs[t.name].tensor_type:
            continue
        w = source[name].astype(np.float32)
        errors = [float(np.square(tensor(r, x) - w, dtype=np.float64).sum()) for r, x in ((ours, t), (peer, theirs[t.name]))]
        s = sums.setdefault(t.tensor_type.name, [0.0, 0.0])
        s[0], s[1] = s[0] + errors[0], s[1] + errors[1]
        b = blocks.setdefault(t.tensor_type.name, [0, 0])
        b[0], b[1] = b[0] + np.count_nonzero(t.data == theirs[t.name].data), b[1] + t.data.size
    for kind, (a, b) in sums.items():
        same = blocks[kind][0] / blocks[kind][1]
        ratio = a / b if b else (0.0 if a == 0 else float("inf"))
        print(f"{kind}: squared error {a:.6e}, peer {b:.6e}, ratio {ratio:.5f}; {100 * same:.3f} % of the stored bytes equal")
        tally.check(None if a <= 1.01 * b else f"squared error {a:.6e} above the peer's {b:.6e}", kind)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("artifact")
    p.add_argument("--reference")
    p.add_argument("--peer")
    p.add_argument("--source")
    a = p.parse_args()
    tally, seen = Tally(), set()
    ours = GGUFReader(a.artifact)
    for key in ("general.architecture", "general.file_type", "general.quantization_version", "tokenizer.ggml.tokens"):
        tally.check(None if value(ours, key) is not None else "missing", f"metadata {key}")
    tally.check(None if value(ours, "GGUF.version") == 3 else "not version 3", "GGUF.version")
    if a.reference:
        reference = Checkpoint(a.reference)
        for t in ours.tensors:
            name = hf_name(t.name)
            if t.name == "rope_freqs.weight":
                continue
            if name is None or name not in reference:
                tally.check(f"stands for {name}, which is not in the reference", t.name)
                continue
            seen.add(name)
            tally.check(compare(f"{t.name} ({t.tensor_type.name})", tensor(ours, t), reference[name]))
        tied = reference.config.get("tie_word_embeddings")
        for name in set(reference) - seen - ({"lm_head.weight"} if tied else set()):
            tally.check("of the reference is missing", name)
    if a.peer:
        peer = GGUFReader(a.peer)
        check_peer(tally, ours, peer, a.artifact, a.peer)
        if a.source:
            check_error(tally, ours, peer, Checkpoint(a.source))
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
