#!/usr/bin/env python3
"""Full tier, by hand: a quantized base with an adapter, as transformers and PEFT load it, beside PEFT's own LoftQ.

    check_peft_residual.py --binary modelpress --model MODEL_DIR --text TEXT [--rank 32] [--windows 12] [--keep DIR]

Calibration is the first half of TEXT, everything is measured on its second half. `nf4`, `loftq` and `lqer` are run on the same
model, all with NF4 in blocks of 64.

1. transformers loads the base and PEFT the adapter, no key missing and none left over, by PeftModel and by AutoPeftModel. Each
   layer's scaling is 1, and its codes and product add up to the dense weights that the job wrote beside it.
2. Perplexity of that model in f32 is the report's (--tolerance); as a user runs it, in the base's own type, it is near (2 %).
3. At the same rank ours is not above PEFT's: `replace_lora_weights_loftq`, which is one round, and `LoftQConfig` with five.
   Ours with data (`lqer`) is below ours without (`loftq`), and that below `nf4` alone.

PEFT's LoftQ asks for CUDA by name; here those tensors stay on the CPU. Needs requirements-full.txt and peft.
"""
import argparse
import contextlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from peft import AutoPeftModelForCausalLM, LoftQConfig, LoraConfig, PeftModel, get_peft_model, replace_lora_weights_loftq
from safetensors import safe_open
from torch.overrides import TorchFunctionMode

from check_bnb import dequantized, peer_model
from hf_eval import generate, load, perplexity, token_ids
from layouts import Tally

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class OnCpu(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if getattr(function, "__name__", "") == "to":
            args = tuple("cpu" if a == "cuda" else a for a in args)
            kwargs = {k: "cpu" if k == "device" and v == "cuda" else v for k, v in kwargs.items()}
        return function(*args, **kwargs)


@contextlib.contextmanager
def no_cuda():
    to = Params4bit.to
    Params4bit.to = lambda self, *a, **k: to(self, *("cpu" if x == "cuda" else x for x in a), **k)
    try:
        with OnCpu():
            yield
    finally:
        Params4bit.to = to


# --- ours

def run(a, name, stage, formats, calibration, evaluation):
    folder = a.keep / name
    if not (folder / "report.json").exists():
        recipe = {"stages": [stage], "calibration": {"dataset": str(calibration), "num_samples": 128, "max_seq_length": 512},
                  "evaluation": {"dataset": str(evaluation), "metrics": ["perplexity", "kl"], "num_samples": a.windows,
                                 "max_seq_length": 1024}}
        command = [a.binary, "compress", a.model, "--recipe", json.dumps(recipe), "--out", folder]
        for f in formats:
            command += ["--format", f]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if not (folder / "report.json").exists():
            sys.exit(done.stderr[-2000:])
    report = json.loads((folder / "report.json").read_text())
    return folder, report, next(m["after"] for m in report["quality"]["measures"] if m["metric"] == "perplexity")


def adapters(model):
    return {name.removeprefix("base_model.model."): m for name, m in model.named_modules() if hasattr(m, "lora_A")}


def whole(module):
    """What a layer with its adapter multiplies by."""
    base = module.get_base_layer()
    weight = dequantize_4bit(base.weight.data, base.weight.quant_state) if isinstance(base, Linear4bit) else base.weight.data
    a, b = module.lora_A["default"].weight.data.float(), module.lora_B["default"].weight.data.float()
    return weight.float() + module.scaling["default"] * (b @ a)


def merged(model, dense):
    """A plain f32 model with those weights, so that all are scored in the same arithmetic."""
    with torch.no_grad():
        for name, module in adapters(model).items():
            dense.get_submodule(name).weight.copy_(whole(module))
    return dense


def check_adapter(tally, folder, dense, model, label):
    config = json.loads((folder / "adapter/adapter_config.json").read_text())
    found = adapters(model)
    with safe_open(folder / "adapter/adapter_model.safetensors", "pt") as f:
        names = set(f.keys())
        for name, module in found.items():
            for which, layer in (("lora_A", module.lora_A), ("lora_B", module.lora_B)):
                key = f"base_model.model.{name}.{which}.weight"
                same = key in names and torch.equal(f.get_tensor(key).float(), layer["default"].weight.data.float())
                tally.check(None if same else f"{key} is not what the model has", label)
                names.discard(key)
    tally.check(f"left over: {sorted(names)[:3]}" if names else None, label)
    tally.check(None if set(found) == set(config["target_modules"]) else "other modules than target_modules", label)
    scalings = {module.scaling["default"] for module in found.values()}
    tally.check(None if scalings == {1.0} else f"scalings {scalings}", label)
    with safe_open(dense / "model.safetensors", "pt") as f:
        for name, module in found.items():
            want = f.get_tensor(f"{name}.weight").float()
            apart = ((whole(module) - want).norm() / want.norm()).item()
            # The dense file is rounded to the model's own type.
            tally.check(None if apart < 3e-3 else f"{name}: {apart} from the dense weights", label)


def ours(a, tally, name, folder, want, ids):
    peft = folder / "peft"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(load(peft, torch.bfloat16), str(peft / "adapter")).eval()
    keys = [str(w.message) for w in said if "key" in str(w.message).lower()]
    tally.check(keys[0] if keys else None, f"{name} loads")
    check_adapter(tally, peft, folder / "safetensors", model, name)
    got = perplexity(merged(model, load(a.model)), ids, a.windows)
    tally.check(None if abs(got / want - 1) < a.tolerance else f"perplexity {got:.4f}, report {want:.4f}", name)
    text = generate(model, a.model)
    stock = perplexity(model, ids, a.windows)
    tally.check(None if abs(stock / want - 1) < 0.02 else f"as loaded {stock:.4f}, report {want:.4f}", name)
    here = os.getcwd()
    os.chdir(peft)
    try:
        auto = AutoPeftModelForCausalLM.from_pretrained("adapter")
    finally:
        os.chdir(here)
    tally.check(None if len(adapters(auto)) == len(adapters(model)) else "AutoPeftModel finds other adapters", name)
    return {"report": round(want, 4), "transformers+PEFT, f32": round(got, 4), "as loaded": round(stock, 4), "text": text}


# --- theirs

def replaced(a):
    model = get_peft_model(peer_model(a.model, False), LoraConfig(r=a.rank, lora_alpha=a.rank, target_modules=MODULES))
    with no_cuda():
        replace_lora_weights_loftq(model, str(a.model))
    return model


def initialised(a, rounds):
    config = LoraConfig(r=a.rank, lora_alpha=a.rank, target_modules=MODULES, init_lora_weights="loftq",
                        loftq_config=LoftQConfig(loftq_bits=4, loftq_iter=rounds))
    with no_cuda():
        return get_peft_model(load(a.model), config)


def theirs(a, ids):
    """Their figures, each kept once it is there: decomposing every matrix five times takes torch an hour."""
    makers = {"none": lambda: load(a.model),
              "bitsandbytes NF4": lambda: dequantized(peer_model(a.model, False)),
              "replace_lora_weights_loftq": lambda: merged(replaced(a), load(a.model)),
              "LoftQConfig, 5": lambda: merged(initialised(a, 5), load(a.model))}
    path = a.keep / f"peers-{a.rank}-{a.windows}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for name, make in makers.items():
        if name not in known:
            known[name] = perplexity(make(), ids, a.windows)
            path.write_text(json.dumps(known))
        print(json.dumps({name: round(known[name], 4)}), flush=True)
    return known


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--text", required=True)
    p.add_argument("--rank", type=int, default=32)
    p.add_argument("--windows", type=int, default=12)
    p.add_argument("--tolerance", type=float, default=0.001)
    p.add_argument("--keep", type=Path, default=Path("peft-check"))
    p.add_argument("--peers-only", action="store_true")
    a = p.parse_args()
    a.keep.mkdir(parents=True, exist_ok=True)
    text = Path(a.text).read_text()
    halves = [a.keep / "calibration.txt", a.keep / "evaluation.txt"]
    for path, half in zip(halves, (text[:len(text) // 2], text[len(text) // 2:])):
        path.write_text(half)
    tally, ids = Tally(), token_ids(a.model, a.text)
    peers = theirs(a, ids)
    if a.peers_only:
        return 0
    found = {}
    _, _, found["nf4"] = run(a, "nf4", {"technique": "nf4"}, ["bitsandbytes"], *halves)
    print(json.dumps({"nf4": found["nf4"]}), flush=True)
    for name in ("loftq", "lqer"):
        stage = {"technique": name, "options": {"rank": a.rank}}
        folder, report, found[name] = run(a, name, stage, ["peft", "safetensors"], *halves)
        figures = ours(a, tally, name, folder, found[name], ids)
        print(json.dumps({name: {**figures, "bytes": report["formats"][0]["bytes"]}}), flush=True)
    best = min(v for k, v in peers.items() if "oft" in k)
    tally.check(None if found["loftq"] <= best else f"loftq {found['loftq']:.4f}, PEFT {best:.4f}", "no data, same rank")
    tally.check(None if found["lqer"] < found["loftq"] < found["nf4"] else f"{found}", "data helps, a product helps")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
