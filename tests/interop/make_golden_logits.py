#!/usr/bin/env python3
"""Golden outputs of tiny models of every family, by transformers, for the tests of modelpress' own forward pass.

    make_golden_logits.py [OUT]        # default: src/engine/models/golden/logits.json; --keep DIR leaves the checkpoints

No weight is stored. Both sides compute every tensor of the checkpoint from its name:

    seed = FNV-1a, 64 bit, of the name's UTF-8 bytes
    bits = splitmix64's finaliser of seed + (i + 1) * 0x9E3779B97F4A7C15 (wrapping), i the flat row-major index
    u    = (bits >> 40) / 2**24                      # in [0, 1)
    v    = 2 u - 1                                   # f64
    kind "embedding": v    "norm": 1 + 0.2 v    "bias": 0.1 v
    kind "matrix":    v * 1.5 / sqrt(last dimension)
    kind "conv1d":    v * 1.5 / sqrt(first dimension)    # GPT-2 stores [in, out]

rounded to f32. Each case is a folder as users have it: the Hub's config.json (rope_theta and rope_scaling at the top
level), the Hub's tensor names (with or without the base model's prefix, one tensor per expert, no tied lm_head) and
its buffers ("arange": 0, 1, 2…; "tril": ones on and below the diagonal), which a reader may ignore. transformers
loads that folder (no key missing), f32, eager attention, one sequence at a time. Stored, with 7 significant digits: the
outputs at a middle and the last position ("logits" or "hidden"), the mean and mean absolute value of the output over
all positions, and for whole-sequence outputs ("class_logits", "embedding") the vector itself.
"""
import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

OUT = Path(__file__).resolve().parents[2] / "src/engine/models/golden/logits.json"
VOCAB, LENGTHS = 96, (40, 17)
GOLDEN_RATIO = 0x9E3779B97F4A7C15


# --- weights by formula

def fnv1a(name):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


def uniform(name, count):
    """v of the formula: `count` values in [-1, 1)."""
    start = np.uint64((fnv1a(name) + GOLDEN_RATIO) % 2**64)
    z = start + np.arange(count, dtype=np.uint64) * np.uint64(GOLDEN_RATIO)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return 2.0 * ((z >> np.uint64(40)).astype(np.float64) / 2**24) - 1.0


def kind_of(name, shape, model_type):
    if name.endswith(".bias") or name.endswith(".beta"):
        return "bias"
    if len(shape) == 1:
        return "norm"
    if "embed" in name or name.split(".")[-2] in ("wte", "wpe"):
        return "embedding"
    conv1d = model_type == "gpt2" and ".h." in f".{name}"
    return "conv1d" if conv1d else "matrix"


def tensor(name, shape, kind):
    v = uniform(name, int(np.prod(shape)))
    scale = {"matrix": lambda: 1.5 / np.sqrt(float(shape[-1])), "conv1d": lambda: 1.5 / np.sqrt(float(shape[0]))}
    x = {"embedding": lambda: v, "norm": lambda: 1 + 0.2 * v, "bias": lambda: 0.1 * v}.get(kind, lambda: v * scale[kind]())()
    return torch.from_numpy(x.astype(np.float32).reshape(shape))


BUFFERS = {"arange": lambda shape: torch.arange(shape[-1]).reshape(shape),
           "tril": lambda shape: torch.ones(shape).tril()}


# --- configs as the Hub has them

def decoder(model_type, architecture, **changes):
    return {"architectures": [architecture], "model_type": model_type, "hidden_size": 64, "intermediate_size": 112,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCAB,
            "max_position_embeddings": 128, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": False, "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2, **changes}


def llama(**changes):
    return decoder("llama", "LlamaForCausalLM", **changes)


def encoder(model_type, architecture, **changes):
    return {"architectures": [architecture], "model_type": model_type, "hidden_size": 64, "intermediate_size": 112,
            "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCAB, "max_position_embeddings": 64,
            "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0,
            "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "torch_dtype": "float32", **changes}


def distilbert(architecture, **changes):
    return {"architectures": [architecture], "model_type": "distilbert", "dim": 64, "hidden_dim": 112, "n_layers": 2,
            "n_heads": 4, "vocab_size": VOCAB, "max_position_embeddings": 64, "activation": "gelu", "pad_token_id": 0,
            "dropout": 0.1, "attention_dropout": 0.1, "sinusoidal_pos_embds": False, "torch_dtype": "float32", **changes}


def gpt2(**changes):
    return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 64, "n_inner": 112, "n_layer": 2,
            "n_head": 4, "n_positions": 64, "n_ctx": 64, "vocab_size": VOCAB, "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32", **changes}


LABELS = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # every branch is taken
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "decoder_sparse_step": 1}


def cases():
    """(name, config, output, options): a prefix dropped from the saved names, renamings, buffers."""
    causal, hidden, classes = "logits", "hidden", "class_logits"
    yield "llama_mha", llama(num_key_value_heads=4), causal, {}
    yield "llama_gqa_tied", llama(tie_word_embeddings=True), causal, {}
    yield "llama_mqa_head_dim", llama(num_key_value_heads=1, head_dim=24), causal, {}
    yield "llama_biases", llama(attention_bias=True, mlp_bias=True), causal, {}
    yield "llama_rope_llama3", llama(rope_scaling=LLAMA3), causal, {}
    yield "llama_rope_linear", llama(rope_scaling={"type": "linear", "factor": 4.0}), causal, {}
    yield "llama_rope_dynamic", llama(rope_scaling={"type": "dynamic", "factor": 2.0}, max_position_embeddings=24), causal, {}
    # As transformers 5 writes it: everything about RoPE in one object.
    v5 = llama(rope_parameters={"rope_theta": 500000.0, **LLAMA3}, dtype="float32", head_dim=16)
    del v5["rope_theta"], v5["torch_dtype"]
    yield "llama_rope_parameters", v5, causal, {}
    yield "qwen2_rope_yarn", decoder("qwen2", "Qwen2ForCausalLM", rope_scaling=YARN, rope_theta=1000000.0, max_position_embeddings=64), causal, {}
    yield "mistral_sliding_window", decoder("mistral", "MistralForCausalLM", sliding_window=8), causal, {}
    # The window is written but switched off, as in Qwen2.5's files.
    yield "qwen2_tied", decoder("qwen2", "Qwen2ForCausalLM", tie_word_embeddings=True, sliding_window=8, use_sliding_window=False,
                                max_window_layers=1, rms_norm_eps=1e-6, rope_theta=1000000.0), causal, {}
    # The window holds from layer max_window_layers on.
    yield "qwen2_window_layers", decoder("qwen2", "Qwen2ForCausalLM", sliding_window=8, use_sliding_window=True,
                                         max_window_layers=1, rms_norm_eps=1e-6), causal, {}
    yield "qwen3", decoder("qwen3", "Qwen3ForCausalLM", head_dim=32, attention_bias=False, tie_word_embeddings=True,
                           rms_norm_eps=1e-6, rope_theta=1000000.0), causal, {}
    yield "smollm3", decoder("smollm3", "SmolLM3ForCausalLM", num_hidden_layers=3, no_rope_layers=[1, 0, 1], no_rope_layer_interval=2,
                             tie_word_embeddings=True, rope_theta=5000000.0, pad_token_id=0), causal, {}
    yield "mixtral", decoder("mixtral", "MixtralForCausalLM", num_local_experts=4, num_experts_per_tok=2, sliding_window=None,
                             rope_theta=1000000.0), causal, {}
    yield "qwen2_moe", decoder("qwen2_moe", "Qwen2MoeForCausalLM", shared_expert_intermediate_size=56, norm_topk_prob=False, **MOE), causal, {}
    # Layer 1 is dense.
    yield "qwen3_moe", decoder("qwen3_moe", "Qwen3MoeForCausalLM", head_dim=32, norm_topk_prob=True, mlp_only_layers=[1],
                               num_hidden_layers=3, **MOE), causal, {}
    yield "gpt2", gpt2(), causal, {"drop": "transformer.", "buffers": {f"h.{i}.attn.bias": ("tril", [1, 1, 64, 64]) for i in range(2)}}
    yield "gpt2_prefixed", gpt2(), causal, {}
    yield "gpt2_untied", gpt2(tie_word_embeddings=False), causal, {}
    position_ids = lambda name, n: {"buffers": {name: ("arange", [1, n])}}
    yield "bert", encoder("bert", "BertModel"), hidden, {}
    # As bert-base-uncased: a masked-LM checkpoint, norms named by their old names.
    yield "bert_gamma_beta", encoder("bert", "BertForMaskedLM"), hidden, {
        "rename": {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}}
    yield "bert_classes", encoder("bert", "BertForSequenceClassification", **LABELS), classes, position_ids("bert.embeddings.position_ids", 64)
    roberta = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "max_position_embeddings": 66, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    yield "roberta", encoder("roberta", "RobertaForMaskedLM", **roberta), hidden, position_ids("roberta.embeddings.position_ids", 66)
    yield "roberta_classes", encoder("roberta", "RobertaForSequenceClassification", **roberta, **LABELS), classes, {}
    yield "distilbert", distilbert("DistilBertForMaskedLM"), hidden, {}
    yield "distilbert_classes", distilbert("DistilBertForSequenceClassification", **LABELS), classes, {}
    yield "minilm", encoder("bert", "BertModel", num_hidden_layers=6), "embedding", position_ids("embeddings.position_ids", 64)


# --- one case

LOADERS = {"logits": AutoModelForCausalLM, "hidden": AutoModel, "embedding": AutoModel, "class_logits": AutoModelForSequenceClassification}


def write_checkpoint(folder, config, options):
    """config.json and model.safetensors under the Hub's names; the lists of tensors and buffers."""
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    model = getattr(transformers, config["architectures"][0])(AutoConfig.from_pretrained(folder))
    model.save_pretrained(folder)
    saved = load_file(folder / "model.safetensors")
    weights, tensors, buffers = {}, [], []
    for old in sorted(saved):
        name, shape = old.removeprefix(options.get("drop", "")), list(saved[old].shape)
        for a, b in options.get("rename", {}).items():
            name = name.replace(a, b)
        kind = kind_of(name, shape, config["model_type"])
        weights[name] = tensor(name, shape, kind)
        tensors.append({"name": name, "shape": shape, "kind": kind})
    for name, (values, shape) in options.get("buffers", {}).items():
        weights[name] = BUFFERS[values](shape).contiguous()
        buffers.append({"name": name, "shape": shape, "dtype": "I64" if values == "arange" else "F32", "values": values})
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2))  # ours, not the one transformers rewrote
    return tensors, buffers


def digits(x):
    return json.loads("[" + ", ".join(f"{v:.7g}" for v in np.atleast_1d(np.asarray(x, dtype=np.float64))) + "]")


def outputs(model, ids, output):
    x = torch.tensor([ids])
    extra = {"token_type_ids": torch.zeros_like(x)} if model.config.model_type == "bert" else {}
    with torch.inference_mode():
        y = model(x, attention_mask=torch.ones_like(x), **extra)
    if output == "class_logits":
        return {output: digits(y.logits[0])}
    whole = (y.logits if output == "logits" else y.last_hidden_state)[0]
    positions = [len(ids) // 2, len(ids) - 1]
    summary = {"mean": digits(whole.double().mean())[0], "mean_abs": digits(whole.double().abs().mean())[0]}
    if output == "embedding":
        return {output: digits(torch.nn.functional.normalize(whole.mean(0), dim=0)), **summary}
    return {"positions": positions, output: [digits(whole[p]) for p in positions], **summary}


def make(name, config, output, options, folder):
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    tensors, buffers = write_checkpoint(folder, config, options)
    # Ids from 3 up: no padding or other special token. They too come from the formula.
    ids = [[3 + int((v + 1) / 2 * (VOCAB - 3)) for v in uniform(f"{name}/input_ids/{n}", n)] for n in LENGTHS]
    results = []
    for sequence in ids:  # loaded anew each time: dynamic RoPE remembers the longest sequence
        model, info = LOADERS[output].from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        missing = {k for k in info["missing_keys"] if "pooler" not in k}  # a masked-LM checkpoint has none, none is used
        assert not missing and not info["mismatched_keys"], (name, info)
        results.append(outputs(model.eval(), sequence, output))
    return {"name": name, "output": output, "config": config, "tensors": tensors, "buffers": buffers,
            "input_ids": ids, "results": results}


def render(made):
    """One line a tensor list or a vector keeps the file readable in a diff."""
    line = lambda x: json.dumps(x, separators=(",", ":"))
    text = []
    for c in made:
        fields = ",\n".join(f'  "{k}": ' + ("[\n   " + ",\n   ".join(map(line, v)) + "]" if k in ("tensors", "input_ids", "results") else line(v))
                            for k, v in c.items())
        text.append("{\n" + fields + "}")
    about = {"made_by": f"tests/interop/make_golden_logits.py, transformers {transformers.__version__}, torch {torch.__version__}",
             "weights": __doc__[__doc__.index("    seed"):__doc__.index("rounded to f32")].rstrip().splitlines(),
             "example": {"name": "lm_head.weight", "v": uniform("lm_head.weight", 4).tolist()}}
    return '{"about": ' + json.dumps(about, indent=1) + ',\n"cases": [\n' + ",\n".join(text) + "\n]}\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", nargs="?", type=Path, default=OUT)
    p.add_argument("--keep", type=Path, help="leave the checkpoints in this folder")
    a = p.parse_args()
    folder = Path(a.keep or tempfile.mkdtemp())
    made = []
    for case in cases():
        made.append(make(*case, folder / case[0]))
        print(case[0], len(made[-1]["tensors"]), "tensors", flush=True)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(render(made))
    if not a.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
