#!/usr/bin/env python3
"""Full tier: a compressed-tensors folder in transformers, against llm-compressor's round-to-nearest.

    check_compressed_tensors.py ARTIFACT_DIR --reference FAKE_QUANT_DIR --source MODEL_DIR --text TEXT
                                [--windows 10] [--cache DIR] [--margin 0]

1. AutoModelForCausalLM loads the folder and generates; no key is missing, none unexpected.
2. The weights as the compressed-tensors library decompresses them equal FAKE_QUANT_DIR's, bit for bit
   (both in the model's dtype; tolerance: none).
3. Perplexity by BASELINE's protocol on the second half of TEXT, at or below that of llm-compressor's own
   QuantizationModifier (memoryless min-max) run here on the same weights with the artifact's own
   config_groups and ignore list. --margin is a relative allowance for schemes where both are exact to the
   noise of rounding (8 bit). Where llm-compressor is not installed, compressed-tensors' own quantizer is used.
"""
import argparse
import hashlib
import json
import sys
from pathlib import Path

import torch

from hf_eval import compare_weights, generate, load, perplexity, token_ids
from layouts import Checkpoint, Tally


def decompressed(folder):
    from transformers import AutoModelForCausalLM
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    model.hf_quantizer.compressor.decompress_model(model=model)
    return model, info


def rtn(source, scheme, target):
    """llm-compressor's round-to-nearest of the source with the artifact's own scheme, saved at target."""
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    groups = json.loads(json.dumps(scheme["config_groups"]))
    for group in groups.values():
        group.pop("format", None)
    model = load(source, "auto")
    oneshot(model=model, recipe=QuantizationModifier(config_groups=groups, ignore=scheme["ignore"]))
    model.save_pretrained(target, save_compressed=True)


def rtn_without_llmcompressor(source, scheme):
    """The same rounding by the compressed-tensors library alone, as a model with fake-quantized weights."""
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams
    model = load(source, "auto")
    apply_quantization_config(model, QuantizationConfig(
        config_groups=scheme["config_groups"], ignore=scheme["ignore"], quant_method="compressed-tensors"))
    for module in model.modules():
        s = getattr(module, "quantization_scheme", None)
        if s is None or s.weights is None or not isinstance(module, torch.nn.Linear):
            continue
        w, size = module.weight.data, s.weights.group_size
        x = w.unflatten(1, (-1, size)) if s.weights.strategy == "group" else w.unsqueeze(1)
        scale, zero = calculate_qparams(x.amin(-1), x.amax(-1), s.weights)
        module.weight.data = fake_quantize(w, scale, zero, s.weights)
        module.quantization_enabled = False
    return model.float()


def peer_perplexity(a, scheme, ids):
    scheme = {k: scheme[k] for k in ("config_groups", "ignore")}
    key = hashlib.sha256(json.dumps(scheme, sort_keys=True).encode()).hexdigest()[:12]
    target = Path(a.cache) / f"rtn-{key}"
    try:
        import llmcompressor  # noqa: F401
    except ImportError:
        return perplexity(rtn_without_llmcompressor(a.source, scheme), ids, a.windows), "compressed-tensors"
    if not (target / "config.json").exists():
        rtn(a.source, scheme, target)
    return perplexity(load(target), ids, a.windows), "llm-compressor"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("artifact")
    p.add_argument("--reference", required=True)
    p.add_argument("--source", required=True)
    p.add_argument("--text", required=True)
    p.add_argument("--windows", type=int, default=10)
    p.add_argument("--cache", default="interop-cache")
    p.add_argument("--margin", type=float, default=0.0)
    a = p.parse_args()
    tally = Tally()
    scheme = json.loads((Path(a.artifact) / "config.json").read_text())["quantization_config"]
    model, info = decompressed(a.artifact)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        tally.check(f"{what}: {sorted(map(str, info[what]))[:5]}" if info[what] else None, "loading")
    compare_weights(tally, dict(model.named_parameters()), Checkpoint(a.reference), "decompressed")
    del model
    model = load(a.artifact)
    text = generate(model, a.artifact)
    tally.check(None if text.strip() else "generates nothing")
    ids = token_ids(a.source, a.text)
    ours = perplexity(model, ids, a.windows)
    del model
    base = perplexity(load(a.source), ids, a.windows)
    peer, tool = peer_perplexity(a, scheme, ids)
    print(json.dumps({"artifact": a.artifact, "windows": a.windows, "perplexity": round(ours, 4), "rtn": round(peer, 4),
                      "rtn_by": tool, "uncompressed": round(base, 4), "text": text}))
    tally.check(None if ours <= peer * (1 + a.margin) else f"perplexity {ours:.4f} above {tool}'s {peer:.4f}")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
