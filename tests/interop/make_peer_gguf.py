#!/usr/bin/env python3
"""What llama.cpp makes of the reference model: an F16 GGUF of a Hugging Face llama folder and its quantized files.

    make_peer_gguf.py MODEL_DIR OUT_DIR TYPE...      # Q4_K_M Q8_0 …

Writes OUT_DIR/F16.gguf with llama.cpp's `gguf` package (names, row order of q and k, tokenizer as its own
converter writes them; the tensors were compared with convert_hf_to_gguf.py's and are equal byte for byte),
then OUT_DIR/TYPE.gguf with llama.cpp's quantizer through llama-cpp-python. Files that exist are kept.
The pre-tokenizer name is SmolLM's: this is for the reference model, not a general converter.
"""
import ctypes
import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, SpecialVocab

from check_gguf import PARTS, WHOLE
from layouts import Checkpoint

FTYPES = {"F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12,
          "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ3_S": 26,
          "IQ3_M": 27, "IQ4_XS": 30, "BF16": 32, "TQ1_0": 36, "TQ2_0": 37}


def gguf_name(name):
    stem = name.rpartition(".")[0]
    for ours, theirs in WHOLE.items():
        if stem == theirs:
            return ours + ".weight"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{next(k for k, v in PARTS.items() if v == part)}.weight"


def write_f16(folder, path):
    ckpt = Checkpoint(folder)
    c = ckpt.config
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    w = GGUFWriter(path, "llama")
    w.add_name(Path(folder).name)
    w.add_file_type(1)
    w.add_quantization_version(2)
    w.add_block_count(c["num_hidden_layers"])
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_key_length(c["head_dim"])
    w.add_value_length(c["head_dim"])
    w.add_rope_dimension_count(c["head_dim"])
    w.add_rope_freq_base(c["rope_theta"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_vocab_size(c["vocab_size"])
    t = json.loads((Path(folder) / "tokenizer.json").read_text())
    special = {a["id"] for a in t["added_tokens"] if a["special"]}
    tokens = sorted(t["model"]["vocab"], key=t["model"]["vocab"].get)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list(tokens)
    w.add_token_types([3 if i in special else 1 for i in range(len(tokens))])
    SpecialVocab(folder, load_merges=True, n_vocab=len(tokens)).add_to_gguf(w, quiet=True)
    w.add_add_bos_token(False)
    for name in ckpt:
        x = ckpt[name].astype(np.float32)
        for part, n in (("q_proj", heads), ("k_proj", kv)):
            if part in name:
                x = x.reshape(n, 2, x.shape[0] // n // 2, -1).swapaxes(1, 2).reshape(x.shape)
        w.add_tensor(gguf_name(name), np.ascontiguousarray(x if x.ndim == 1 else x.astype(np.float16)))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def quantize(source, target, kind):
    import llama_cpp
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FTYPES[kind]
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    if code != 0:
        sys.exit(f"llama.cpp could not quantize to {kind}: {code}")


def main(folder, out, *kinds):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    base = out / "F16.gguf"
    if not base.exists():
        write_f16(folder, base)
    for kind in kinds:
        if kind != "F16" and not (out / f"{kind}.gguf").exists():
            quantize(base, out / f"{kind}.part", kind)
            (out / f"{kind}.part").rename(out / f"{kind}.gguf")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
