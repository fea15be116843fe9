#!/usr/bin/env python3
"""Full tier: a GPTQ or AWQ folder read by code of the tools that own these layouts.

    check_gptq_awq.py ARTIFACT_DIR --reference FAKE_QUANT_DIR --source MODEL_DIR --text TEXT [--windows 6] [--cache DIR]

GPTQ: transformers loads the folder through auto-round's torch kernels for the GPTQ layout; each QuantLinear's
weight is read out by multiplying the identity matrix. AWQ: compressed-tensors' own AutoAWQ converter turns the
folder into a compressed-tensors one, which transformers loads. In both the weights must equal the numpy
reader's of layouts.py in f16, the dtype these layouts compute in (tolerance: none), the model must generate,
and its perplexity must be within 0.5 % of the dense FAKE_QUANT_DIR's. check_layout.py compares the numpy
reader with FAKE_QUANT_DIR, which closes the circle.
"""
import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from hf_eval import generate, load, perplexity, to_numpy, token_ids
from layouts import Tally, compare, dequantize


def gptq_model(folder):
    from transformers import AutoModelForCausalLM, AutoRoundConfig
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float16, device_map="cpu", quantization_config=AutoRoundConfig(backend="torch")).eval()


def gptq_weights(model):
    for name, module in model.named_modules():
        if hasattr(module, "qweight"):
            with torch.inference_mode():
                eye = torch.eye(module.infeatures, dtype=torch.float32)
                yield f"{name}.weight", to_numpy(module(eye).T.to(torch.float16))


def awq_model(folder, target):
    from compressed_tensors.entrypoints.convert import convert_checkpoint
    from compressed_tensors.entrypoints.convert.converters import AutoAWQConverter
    convert_checkpoint(folder, target, AutoAWQConverter.from_pretrained(folder))
    model = load(target, torch.float16)
    model.hf_quantizer.compressor.decompress_model(model=model)
    return model


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("artifact")
    p.add_argument("--reference", required=True)
    p.add_argument("--source", required=True)
    p.add_argument("--text", required=True)
    p.add_argument("--windows", type=int, default=6)
    p.add_argument("--cache")
    a = p.parse_args()
    tally = Tally()
    method = json.loads((Path(a.artifact) / "config.json").read_text())["quantization_config"]["quant_method"]
    ours = {n: w for n, w in dequantize(a.artifact)}
    with tempfile.TemporaryDirectory() as scratch:
        if method == "gptq":
            model = gptq_model(a.artifact)
            theirs = dict(gptq_weights(model))
        else:
            model = awq_model(a.artifact, scratch)
            theirs = {n: to_numpy(w) for n, w in model.named_parameters() if n.endswith("proj.weight")}
    tally.check(None if theirs else f"no {method} layer was made")
    for name, w in theirs.items():
        tally.check(compare(name, ours[name], w.astype(np.float16)), "numpy reader against the tool's")
    text = generate(model, a.source)
    tally.check(None if text.strip() else "generates nothing")
    ids = token_ids(a.source, a.text)
    got = perplexity(torch.nn.Module.float(model), ids, a.windows)
    want = perplexity(load(a.reference), ids, a.windows)
    print(json.dumps({"artifact": a.artifact, "windows": a.windows, "perplexity": round(got, 4), "dense": round(want, 4), "text": text}))
    tally.check(None if abs(got / want - 1) <= 0.005 else f"perplexity {got:.4f}, dense {want:.4f}")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
