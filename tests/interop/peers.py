#!/usr/bin/env python3
"""What the peers reach on the reference model: one run, one JSON line, also appended to a results file.

    peers.py METHOD [--samples 128] [--length 512] [--model DIR] [--text FILE] [--results FILE] [--out DIR]
    peers.py perplexity FOLDER [the same options]           # any folder of ours, evaluated the same way

Calibration: the first half of TEXT (split at the middle character) as one string, tokenized without special
tokens, consecutive windows of --length tokens, the first --samples of them, in order. Evaluation: the second
half, by hf_eval.py, 40 windows of 1,024 (--windows). Embedding and lm_head stay as they are. `wall_seconds` and
`cpu_seconds` cover the compression alone; `process_cpu_seconds` and `peak_rss_mb` everything before the
evaluation, imports included. `contended` tells whether other work was running: then only CPU seconds count.

Needs requirements-full.txt; `gptqmodel` an environment of its own (its pins exclude llm-compressor's) with
GPTQMODEL_CPU_WORKERS=2, `hqq` the package of that name.
"""
import argparse
import importlib.metadata
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import torch

from hf_eval import load, perplexity, token_ids, tokenizer
from layouts import dequantize

CACHE = Path(os.environ.get("INTEROP_CACHE", Path.home() / ".cache/modelpress-interop"))
GROUP = 64  # the reference model is 576 wide
INTEGER = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP}


def calibration(a):
    text = Path(a.text).read_text()
    ids = tokenizer(a.model)(text[:len(text) // 2], add_special_tokens=False)["input_ids"]
    assert len(ids) >= a.samples * a.length, f"the text has {len(ids) // a.length} windows only"
    return [ids[i * a.length:(i + 1) * a.length] for i in range(a.samples)]


# --- the methods: each returns a callable that compresses and leaves a folder or a model to evaluate

def llmcompressor(recipe, data=True):
    def prepare(a):
        from datasets import Dataset
        from llmcompressor import oneshot
        from llmcompressor.pipelines.cache import IntermediatesCache
        IntermediatesCache._pin_intermediate = classmethod(lambda *_: None)  # 0.14 pins memory without a driver
        windows = calibration(a) if data else []
        rows = Dataset.from_dict({"input_ids": windows, "attention_mask": [[1] * len(w) for w in windows]})
        options = {"dataset": rows, "num_calibration_samples": len(windows), "max_seq_length": a.length,
                   "shuffle_calibration_samples": False} if data else {}
        model = load(a.model, getattr(torch, a.dtype))

        def compress():
            oneshot(model=model, recipe=recipe(a), **options)
            model.save_pretrained(a.out, save_compressed=True)
        return compress
    return prepare


def groups(**weights):
    return {"group_0": {"targets": ["Linear"], "weights": {**INTEGER, **weights}}}


def gptq(symmetric=True, actorder="static"):
    def recipe(a):
        from llmcompressor.modifiers.gptq import GPTQModifier
        return GPTQModifier(config_groups=groups(symmetric=symmetric), ignore=["lm_head"], actorder=actorder)
    return recipe


def rtn(**scheme):
    def recipe(a):
        from llmcompressor.modifiers.quantization import QuantizationModifier
        return QuantizationModifier(ignore=["lm_head"], **scheme)
    return recipe


def awq(a):
    from llmcompressor.modifiers.transform.awq import AWQModifier
    return [AWQModifier(), rtn(config_groups=groups(symmetric=False))(a)]


def smoothquant(a):
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
    return [SmoothQuantModifier(smoothing_strength=0.8), rtn(targets="Linear", scheme="W8A8")(a)]


def smoothquant_static(a):
    scheme = {"weights": {"num_bits": 8, "type": "int", "strategy": "channel"},
              "input_activations": {"num_bits": 8, "type": "int", "strategy": "tensor", "dynamic": False}}
    return [smoothquant(a)[0], rtn(config_groups={"group_0": {"targets": ["Linear"], **scheme}})(a)]


def smoothquant_gptq(a):
    from llmcompressor.modifiers.gptq import GPTQModifier
    return [smoothquant(a)[0], GPTQModifier(targets="Linear", scheme="W8A8", ignore=["lm_head"])]


def gptqmodel(a):
    from gptqmodel import GPTQModel, QuantizeConfig
    windows = [{"input_ids": w, "attention_mask": [1] * len(w)} for w in calibration(a)]
    model = GPTQModel.load(a.model, QuantizeConfig(bits=4, group_size=GROUP), device="cpu")

    def compress():
        model.quantize(windows, batch_size=1)
        model.save(a.out)
    return compress


def autoround(a):
    from auto_round import AutoRound
    windows = [torch.tensor([w]) for w in calibration(a)]
    rounder = AutoRound(load(a.model, getattr(torch, a.dtype)), tokenizer(a.model), bits=4, group_size=GROUP, sym=True,
                        dataset=windows, nsamples=a.samples, seqlen=a.length, iters=a.iters, device_map="cpu")
    return lambda: rounder.quantize_and_save(a.out, format="auto_gptq")


def sparse(modifier, pattern="0:0"):
    def recipe(a):
        from llmcompressor.modifiers import pruning
        return getattr(pruning, modifier)(sparsity=0.5, mask_structure=pattern, targets=["Linear"], ignore=["re:.*lm_head"])
    return recipe


def magnitude(a):
    from torch.nn.utils import prune
    model = load(a.model, getattr(torch, a.dtype))

    def compress():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                prune.l1_unstructured(module, "weight", amount=0.5)
                prune.remove(module, "weight")
        model.save_pretrained(a.out)
    return compress


def hqq(a):
    from hqq.core.quantize import Quantizer
    model = load(a.model)
    stored = []

    def compress():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                codes, meta = Quantizer.quantize(module.weight.data, nbits=4, group_size=GROUP, axis=1, device="cpu", compute_dtype=torch.float32)
                stored.append(codes.numel() * codes.element_size() + 2 * (meta["scale"].numel() + meta["zero"].numel()))
                module.weight.data = Quantizer.dequantize(codes, meta).reshape(module.weight.shape).float()
        linear = sum(m.weight.numel() for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head")
        rest = 2 * (sum(p.numel() for p in model.parameters()) - linear)
        a.bytes = sum(stored) + rest  # as if scales and zeros were stored in 16 bits
        a.made = model
    return compress


def nf4(nested=False):
    def prepare(a):
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        def compress():
            quantize = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32,
                                          bnb_4bit_use_double_quant=nested)
            AutoModelForCausalLM.from_pretrained(a.model, quantization_config=quantize, device_map="cpu").save_pretrained(a.out)
        return compress
    return prepare


METHODS = {
    "none": ("transformers", lambda a: lambda: setattr(a, "out", a.model)),
    "gptq": ("llmcompressor", llmcompressor(gptq())),
    "gptq-in-order": ("llmcompressor", llmcompressor(gptq(actorder=None))),
    "gptq-asym": ("llmcompressor", llmcompressor(gptq(symmetric=False))),
    "awq": ("llmcompressor", llmcompressor(awq)),
    "smoothquant": ("llmcompressor", llmcompressor(smoothquant)),
    "smoothquant-gptq": ("llmcompressor", llmcompressor(smoothquant_gptq)),
    "fp8-dynamic": ("llmcompressor", llmcompressor(rtn(targets="Linear", scheme="FP8_DYNAMIC"), data=False)),
    "fp8-static": ("llmcompressor", llmcompressor(rtn(targets="Linear", scheme="FP8"))),
    "w8a8": ("llmcompressor", llmcompressor(rtn(targets="Linear", scheme="W8A8"), data=False)),
    "w8a8-static": ("llmcompressor", llmcompressor(smoothquant_static)),
    "rtn": ("llmcompressor", llmcompressor(rtn(config_groups=groups(symmetric=True)), data=False)),
    "rtn-asym": ("llmcompressor", llmcompressor(rtn(config_groups=groups(symmetric=False)), data=False)),
    "sparsegpt": ("llmcompressor", llmcompressor(sparse("SparseGPTModifier"))),
    "sparsegpt-2:4": ("llmcompressor", llmcompressor(sparse("SparseGPTModifier", "2:4"))),
    "wanda": ("llmcompressor", llmcompressor(sparse("WandaPruningModifier"))),
    "wanda-2:4": ("llmcompressor", llmcompressor(sparse("WandaPruningModifier", "2:4"))),
    "magnitude": ("torch", magnitude),
    "gptqmodel": ("gptqmodel", gptqmodel),
    "autoround": ("auto-round", autoround),
    "hqq": ("hqq", hqq),
    "nf4": ("bitsandbytes", nf4()),
    "nf4-nested": ("bitsandbytes", nf4(nested=True)),
}
UNCALIBRATED = {"none", "fp8-dynamic", "w8a8", "rtn", "rtn-asym", "hqq", "magnitude", "nf4", "nf4-nested", "perplexity"}


# --- evaluation and the record

def evaluated(folder):
    """The folder as transformers runs it; layouts whose kernels want a GPU as the dense weights they stand for."""
    config = json.loads((Path(folder) / "config.json").read_text())
    if config.get("quantization_config", {}).get("quant_method") not in ("gptq", "awq", "auto-round"):
        return load(folder)
    from transformers import AutoConfig, AutoModelForCausalLM
    config.pop("quantization_config")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32).eval()
    lost = model.load_state_dict({n: torch.from_numpy(w.astype("float32")) for n, w in dequantize(folder)}, strict=False)
    missing = set(lost.missing_keys) - ({"lm_head.weight"} if config.get("tie_word_embeddings") else set())
    assert not missing and not lost.unexpected_keys, lost
    model.tie_weights()
    return model


def busy(seconds=1.0):
    """CPU seconds a second that others use now."""
    def used():
        user, nice, system = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:4])
        return (user + nice + system) / os.sysconf("SC_CLK_TCK")
    before = used()
    time.sleep(seconds)
    return (used() - before) / seconds


def cpu_seconds():
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def run(a):
    tool, prepare = METHODS[a.method]
    record = {"method": a.method, "tool": tool, "version": importlib.metadata.version(tool),
              "calibration": None if a.method in UNCALIBRATED else f"{a.samples}x{a.length}"}
    if a.method == "autoround":
        record["iters"] = a.iters
    if tool in ("llmcompressor", "auto-round", "torch"):
        record["dtype"] = a.dtype
    compress = prepare(a)
    others = busy()
    began, cpu = time.time(), cpu_seconds()
    compress()
    cost = {"wall_seconds": round(time.time() - began, 1), "cpu_seconds": round(cpu_seconds() - cpu, 1),
            "process_cpu_seconds": round(cpu_seconds(), 1),
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "bytes": a.bytes or sum(f.stat().st_size for f in Path(a.out).glob("*.safetensors"))}
    cost["contended"] = max(others, busy()) > 0.2
    return record, a.made or evaluated(a.out), cost


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("method", choices=[*METHODS, "perplexity"])
    p.add_argument("folder", nargs="?", help="for `perplexity`")
    p.add_argument("--samples", type=int, default=64)
    p.add_argument("--length", type=int, default=512)
    p.add_argument("--iters", type=int, default=200, help="of auto-round")
    p.add_argument("--dtype", default="bfloat16", help="in which llm-compressor, auto-round and torch hold the model")
    p.add_argument("--windows", type=int, default=40, help="0: no evaluation")
    p.add_argument("--model", default=str(CACHE / "smollm2"))
    p.add_argument("--text", default=os.environ.get("TEXT"))
    p.add_argument("--results", default=str(CACHE / "peers.jsonl"))
    p.add_argument("--out", help="keep what the method wrote in this folder")
    a = p.parse_args()
    a.made, a.bytes = None, None
    with tempfile.TemporaryDirectory() as scratch:
        a.out = a.out or scratch
        if a.method == "perplexity":
            record = {"method": Path(a.folder).name, "tool": "modelpress"}
            model, cost = evaluated(a.folder), {"bytes": sum(f.stat().st_size for f in Path(a.folder).glob("*.safetensors"))}
        else:
            record, model, cost = run(a)
        record["windows"] = a.windows
        record["perplexity"] = round(perplexity(model, token_ids(a.model, a.text), a.windows), 4) if a.windows else None
    line = json.dumps({**record, **cost})
    print(line)
    with open(a.results, "a") as f:
        f.write(line + "\n")


if __name__ == "__main__":
    main()
