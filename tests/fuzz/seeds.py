#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets: small inputs that are right, as the programs that make them write them.

    tests/fuzz/seeds.py            into tests/fuzz/seeds/<target>/
"""

import io
import json
import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent
SEEDS = HERE / "seeds"


def write(target, name, data):
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def safetensors(tensors):
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + data


def npy(descr, shape, content):
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf():
    pairs = [
        (text("general.architecture"), 8, text("llama")),
        (text("general.alignment"), 4, struct.pack("<I", 32)),
        (text("llama.block_count"), 4, struct.pack("<I", 1)),
        (text("llama.context_length"), 4, struct.pack("<I", 64)),
        (text("llama.embedding_length"), 4, struct.pack("<I", 64)),
        (text("llama.feed_forward_length"), 4, struct.pack("<I", 64)),
        (text("llama.attention.head_count"), 4, struct.pack("<I", 2)),
        (text("llama.attention.layer_norm_rms_epsilon"), 6, struct.pack("<f", 1e-5)),
        (text("tokenizer.ggml.model"), 8, text("gpt2")),
        (text("tokenizer.ggml.tokens"), 9, struct.pack("<IQ", 8, 2) + text("a") + text("b")),
        (text("tokenizer.ggml.token_type"), 9, struct.pack("<IQ", 5, 2) + struct.pack("<ii", 1, 1)),
    ]
    tensors = [("token_embd.weight", [64, 2], 0, 512), ("output_norm.weight", [64], 0, 256)]
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    for key, kind, value in pairs:
        out += key + struct.pack("<I", kind) + value
    offset = 0
    for name, shape, kind, size in tensors:
        out += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in shape)
        out += struct.pack("<IQ", kind, offset)
        offset += size + -size % 32
    out += b"\0" * (-len(out) % 32)
    return out + struct.pack("<f", 0.5) * (offset // 4)


def imatrix_dat():
    out = struct.pack("<i", 1)
    name = b"blk.0.attn_q.weight"
    out += struct.pack("<i", len(name)) + name + struct.pack("<ii", 4, 32) + struct.pack("<32f", *range(32))
    data = b"wiki.txt"
    return out + struct.pack("<ii", 4, len(data)) + data


TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {"id": 0, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ],
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3, "\u0120": 4},
        "merges": ["a b"],
    },
}

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 64,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 32,
    "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": True, "torch_dtype": "float32",
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192},
}

RECIPE = """version: 1
stages:
  - technique: rtn
    options: {n_bits: 4, symmetric: true, granularity: group, group_size: 64, range: weighted_mse}
    targets: [Linear, "re:.*q_proj"]
    ignore: [lm_head]
formats: [compressed-tensors, {format: safetensors, options: {dtype: F32}}]
calibration: {dataset: builtin, num_samples: 128, max_seq_length: 512}
evaluation: {metrics: [perplexity, kl, top1_agreement]}
gates: {max_perplexity_increase: 0.01, keep_artifact: false}
"""

RECIPE_JSON = {
    "version": 1,
    "stages": [{"technique": "rtn", "options": {"n_bits": 4, "group_size": 64}, "targets": ["Linear", "re:.*q_proj"], "ignore": ["lm_head"]}],
    "formats": ["compressed-tensors", {"format": "safetensors", "options": {"dtype": "F32"}}],
}


def main():
    f32 = struct.pack("<f", 0.5)
    write("safetensors", "two", safetensors({"a.weight": ("F32", [2, 4], f32 * 8), "b.weight": ("BF16", [4], b"\0?" * 4)}))
    write("gguf", "llama", gguf())
    write("config", "llama", json.dumps(CONFIG))
    for kind in ("bert", "gpt2", "qwen2", "mixtral"):
        write("config", kind, json.dumps({**CONFIG, "model_type": kind, "num_local_experts": 2, "num_experts_per_tok": 1}))
    write("index", "one", json.dumps({"metadata": {"total_size": 100}, "weight_map": {
        "model.norm.weight": "model-00001-of-00001.safetensors"}}))
    write("tokenizer", "bpe", json.dumps(TOKENIZER))
    unigram = {**TOKENIZER, "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
               "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.5]], "byte_fallback": False}}
    write("tokenizer", "unigram", json.dumps(unigram))
    write("tokenizer", "wordpiece", json.dumps({**TOKENIZER, "normalizer": {"type": "BertNormalizer", "clean_text": True,
          "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}, "pre_tokenizer": {"type": "BertPreTokenizer"},
          "model": {"type": "WordPiece", "unk_token": "<s>", "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 100, "vocab": {"<s>": 0, "a": 1, "##b": 2}}}))
    write("recipe", "yaml", RECIPE)
    write("recipe", "json", json.dumps(RECIPE_JSON))
    write("recipe", "preset", '{"preset": "W4A16", "options": {"group_size": 64}, "formats": ["gptq"]}')
    write("recipe_plan", "json", json.dumps(RECIPE_JSON))
    write("recipe_plan", "preset", '{"preset": "W4A16", "options": {"group_size": 64}, "formats": ["gptq"]}')
    write("txt", "utf8", "One line.\n\nAnother, with \u00e9 and \U0001f600.\n")
    write("jsonl", "kinds", '{"text": "a", "label": 1}\n{"messages": [{"role": "user", "content": "b"}]}\n{"input_ids": [1, 2]}\n')
    write("npy", "ids", npy("<i8", (2, 3), struct.pack("<6q", *range(6))))
    write("npy", "floats", npy("<f4", (2, 1, 2), struct.pack("<4f", *range(4))))
    write("arrays", "ids", safetensors({"input_ids": ("I64", [2, 3], struct.pack("<6q", *range(6))),
                                        "labels": ("I64", [2], struct.pack("<2q", 0, 1))}))
    write("imatrix", "llama-imatrix", (HERE.parents[1] / "src/engine/formats/gguf/tests/imatrix.gguf").read_bytes())
    write("imatrix_dat", "one", imatrix_dat())
    write("cursor", "id", "job_01939a6b2b3c7d0e8f00000000000005")
    write("headers", "tus", "Upload-Metadata: filename YS5iaW4=,private\nUpload-Checksum: sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=\n"
          "Upload-Length: 100\nUpload-Offset: 0\nUpload-Defer-Length: 1\n")
    write("headers", "draft", "Upload-Complete: ?1\nRepr-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:\n"
          'Idempotency-Key: "a-b"\nAccept: application/json;q=0.9, text/event-stream\nContent-Type: text/plain; charset=utf-8\n')
    for name, line in {"from": "bytes=0-9", "last": "bytes=-5", "open": "bytes=3-", "two": "bytes=0-1,3-4"}.items():
        write("range", name, struct.pack("<Q", 100) + f"Range: {line}\nIf-Range: \"abc\"\nIf-None-Match: W/\"x\", \"y\"\n".encode())
    write("key", "key", "mp_01939a6b2b3c7d0e8f0000000000000b_" + "A" * 49)
    write("key", "name", "model-00001-of-00002.safetensors")
    write("json", "job", '{"model": "mdl_01939a6b2b3c7d0e8f00000000000001", "recipe": "Q4_K_M", "formats": ["gguf"], "priority": 3}')
    form = ('--b\r\nContent-Disposition: form-data; name="name"\r\n\r\ntiny\r\n--b\r\nContent-Disposition: form-data; name="metadata"'
            '\r\n\r\n{"a":"b"}\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="config.json"\r\n\r\n{}\r\n--b--\r\n')
    write("http", "form", b"\x00\n\n" + form.encode())
    write("http", "form_dataset", b"\x01\n\n" + form.replace("config.json", "a.txt").encode())
    write("http", "tus", b"\x02Upload-Length: 10\nUpload-Metadata: filename YS5iaW4=\n\n")
    write("http", "draft", b"\x03Upload-Complete: ?1\nUpload-Length: 3\n\nabc")
    write("http", "json", b'\x04\n\n{"length": 10}')
    write("http", "patch", b"\x05Upload-Offset: 0\nUpload-Checksum: sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=\n\nabc")
    write("http", "job", b'\x08Idempotency-Key: x\n\n{"model": "mdl_01939a6b2b3c7d0e8f00000000000001", "recipe": "Q4_K_M"}')
    write("http", "key", b'\x0a\n\n{"name": "ci", "scopes": ["jobs:write"]}')


main()
