#!/usr/bin/env python3
"""Write a synthetic llama-shaped model of a given size: Gaussian weights from a fixed seed.

    make_synthetic.py gguf OUT.gguf [--layers 24]                F16 GGUF, 1.19 G weights, 2.38 GB
    make_synthetic.py hf OUT_DIR --tokenizer FROM_DIR [--gb 4]   sharded bf16 safetensors checkpoint

Weights are streamed: peak memory is a few hundred MB, whatever the size of the file. The same arguments give the same bytes. Only `numpy` (and `gguf` for the first form)
are needed. The weights mean nothing: use the files for speed and memory, never for quality.
"""
import argparse
import json
import shutil
import struct
from pathlib import Path

import numpy as np


def tensors(a, vocab):
    """(role, layer, shape) of each tensor in the order they are written; norms have one dimension."""
    kv = a.hidden // a.heads * a.kv_heads
    yield "embed", None, (vocab, a.hidden)
    for i in range(a.layers):
        yield "attn_norm", i, (a.hidden,)
        yield "q", i, (a.hidden, a.hidden)
        yield "k", i, (kv, a.hidden)
        yield "v", i, (kv, a.hidden)
        yield "o", i, (a.hidden, a.hidden)
        yield "ffn_norm", i, (a.hidden,)
        yield "gate", i, (a.ffn, a.hidden)
        yield "up", i, (a.ffn, a.hidden)
        yield "down", i, (a.hidden, a.ffn)
    yield "norm", None, (a.hidden,)
    yield "head", None, (vocab, a.hidden)


GGUF_NAMES = {"embed": "token_embd", "norm": "output_norm", "head": "output", "attn_norm": "blk.{}.attn_norm",
              "q": "blk.{}.attn_q", "k": "blk.{}.attn_k", "v": "blk.{}.attn_v", "o": "blk.{}.attn_output",
              "ffn_norm": "blk.{}.ffn_norm", "gate": "blk.{}.ffn_gate", "up": "blk.{}.ffn_up", "down": "blk.{}.ffn_down"}
HF_NAMES = {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head",
            "attn_norm": "model.layers.{}.input_layernorm", "ffn_norm": "model.layers.{}.post_attention_layernorm",
            "q": "model.layers.{}.self_attn.q_proj", "k": "model.layers.{}.self_attn.k_proj",
            "v": "model.layers.{}.self_attn.v_proj", "o": "model.layers.{}.self_attn.o_proj",
            "gate": "model.layers.{}.mlp.gate_proj", "up": "model.layers.{}.mlp.up_proj",
            "down": "model.layers.{}.mlp.down_proj"}


def rows(rng, shape, at_most=1 << 22):
    """The tensor in f32, a few rows at a time."""
    if len(shape) == 1:
        yield np.ones(shape, np.float32)
        return
    step = max(1, at_most // shape[1])
    for r in range(0, shape[0], step):
        yield rng.standard_normal((min(step, shape[0] - r), shape[1]), dtype=np.float32) * np.float32(0.02)


def write_gguf(a):
    from gguf import GGMLQuantizationType, GGUFWriter, TokenType
    w = GGUFWriter(a.out, "llama")
    w.add_name("synthetic")
    w.add_file_type(1)
    w.add_context_length(2048)
    w.add_embedding_length(a.hidden)
    w.add_block_count(a.layers)
    w.add_feed_forward_length(a.ffn)
    w.add_head_count(a.heads)
    w.add_head_count_kv(a.kv_heads)
    w.add_rope_dimension_count(a.hidden // a.heads)
    w.add_rope_freq_base(10000.0)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(a.vocab)
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 256
    tokens += [f"t{i}" for i in range(len(tokens), a.vocab)]
    kinds += [TokenType.NORMAL] * (a.vocab - len(kinds))
    w.add_tokenizer_model("llama")
    w.add_token_list(tokens)
    w.add_token_scores([0.0] * a.vocab)
    w.add_token_types(kinds)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    plan = list(tensors(a, a.vocab))
    for role, i, shape in plan:
        t, size = (np.float32, 4) if len(shape) == 1 else (np.float16, 2)
        kind = GGMLQuantizationType.F32 if len(shape) == 1 else GGMLQuantizationType.F16
        w.add_tensor_info(GGUF_NAMES[role].format(i) + ".weight", shape, np.dtype(t), int(np.prod(shape)) * size, kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    rng = np.random.default_rng(a.seed)
    for _, _, shape in plan:
        kind = np.float32 if len(shape) == 1 else np.float16
        w.write_tensor_data(np.concatenate([x.astype(kind) for x in rows(rng, shape)]))
    w.close()
    report(plan, Path(a.out).stat().st_size)


def to_bf16(x):
    u = x.view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def write_hf(a):
    out = Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    source = Path(a.tokenizer)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (source / name).exists():
            shutil.copyfile(source / name, out / name)
    reference = json.loads((source / "config.json").read_text())
    vocab, head_dim = reference["vocab_size"], a.hidden // a.heads
    layer = 2 * a.hidden * a.hidden + 2 * a.hidden * head_dim * a.kv_heads + 3 * a.hidden * a.ffn
    a.layers = max(1, round((a.gb * 1e9 / 2 - 2 * vocab * a.hidden) / layer))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "hidden_size": a.hidden, "intermediate_size": a.ffn, "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads, "num_key_value_heads": a.kv_heads, "head_dim": head_dim,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None, "max_position_embeddings": 2048,
        "vocab_size": vocab, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": False, "bos_token_id": reference["bos_token_id"], "eos_token_id": reference["eos_token_id"],
    }
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    plan = [(HF_NAMES[r].format(i) + ".weight", s) for r, i, s in tensors(a, vocab)]
    shards, size = [[]], 0
    for name, shape in plan:
        nbytes = int(np.prod(shape)) * 2
        if shards[-1] and size + nbytes > a.shard_gb * 1e9:
            shards.append([])
            size = 0
        shards[-1].append((name, shape))
        size += nbytes
    rng, total, index = np.random.default_rng(a.seed), 0, {}
    for n, shard in enumerate(shards, 1):
        file = f"model-{n:05d}-of-{len(shards):05d}.safetensors"
        header, offset = {"__metadata__": {"format": "pt"}}, 0
        for name, shape in shard:
            end = offset + int(np.prod(shape)) * 2
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
            index[name], offset = file, end
        head = json.dumps(header, separators=(",", ":")).encode()
        head += b" " * (-len(head) % 8)
        with open(out / file, "wb") as f:
            f.write(struct.pack("<Q", len(head)) + head)
            for _, shape in shard:
                for x in rows(rng, shape):
                    f.write(to_bf16(x).data)
        total += offset
    (out / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {"total_size": total}, "weight_map": index}, indent=2) + "\n")
    report(plan, total)


def report(plan, size):
    count = sum(int(np.prod(p[-1])) for p in plan)
    print(f"tensors={len(plan)} weights={count} bytes={size}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("form", choices=["gguf", "hf"])
    p.add_argument("out")
    p.add_argument("--tokenizer", help="hf: folder to copy tokenizer and vocabulary size from")
    p.add_argument("--gb", type=float, default=4.0, help="hf: bytes of weights, in 1e9")
    p.add_argument("--shard-gb", type=float, default=1.0, help="hf: largest shard, in 1e9")
    p.add_argument("--layers", type=int, default=24, help="gguf only; hf derives it from --gb")
    p.add_argument("--hidden", type=int, default=2048)
    p.add_argument("--ffn", type=int, default=5632)
    p.add_argument("--heads", type=int, default=32)
    p.add_argument("--kv-heads", type=int, default=4)
    p.add_argument("--vocab", type=int, default=32000, help="gguf only")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    if a.form == "hf" and not a.tokenizer:
        p.error("hf needs --tokenizer FROM_DIR")
    (write_gguf if a.form == "gguf" else write_hf)(a)


if __name__ == "__main__":
    main()
