"""A tiny LLaMA as a Hugging Face folder: enough to compress, calibrate and evaluate within seconds."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np

CHARACTERS = 94
VOCAB, HIDDEN, INNER, BLOCKS = CHARACTERS + 258, 256, 256, 2
SMALL = {"num_samples": 2, "max_seq_length": 32}
"""Calibration or evaluation that takes no time."""


def write(folder: Path, seed: int = 0) -> Path:
    """config.json, model.safetensors and tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": BLOCKS, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": VOCAB, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    random = np.random.default_rng(seed)
    save(folder / "model.safetensors", {name: weight(random, shape) for name, shape in shapes().items()})
    return folder


def shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN),
    }  # fmt: skip
    for block in range(BLOCKS):
        inside = {
            "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
            "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (HIDDEN // 2, HIDDEN),
            "self_attn.v_proj": (HIDDEN // 2, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
            "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER),
        }  # fmt: skip
        found.update({f"model.layers.{block}.{name}.weight": shape for name, shape in inside.items()})
    return found


def weight(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Norms around 1, matrices of about unit gain."""
    values = random.uniform(-1, 1, shape)
    return (1 + 0.3 * values if len(shape) == 1 else values * 1.7 / shape[-1] ** 0.5).astype("<f4")


def save(path: Path, tensors: dict[str, np.ndarray]) -> None:
    header, end = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [end, end + values.nbytes]}
        end += values.nbytes
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(v.tobytes() for v in tensors.values()))


def tokenizer() -> dict[str, object]:
    """Of single characters, with bytes to fall back to, as GGUF wants it."""
    names = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), *(chr(33 + i) for i in range(CHARACTERS))]
    vocab = {name: i for i, name in enumerate(names)}
    model = {
        "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": True, "vocab": vocab, "merges": [],
    }  # fmt: skip
    words = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": words, "post_processor": None, "decoder": None, "model": model,
    }  # fmt: skip
