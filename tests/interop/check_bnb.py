#!/usr/bin/env python3
"""Full tier: a bitsandbytes NF4 folder, read by bitsandbytes on the CPU.

    check_bnb.py ARTIFACT_DIR --reference FAKE_QUANT_DIR --source MODEL_DIR --text TEXT [--windows 6] [--cache DIR]

1. QuantState.from_dict takes our tensors, dequantize_4bit gives FAKE_QUANT_DIR's weights bit for bit.
2. bitsandbytes quantizes the source weights itself: the share of equal codes is printed; it must be above
   99.9 % and every block scale must be equal (without double quantization).
3. AutoModelForCausalLM loads the folder, generates, and its perplexity is within 0.1 % of bitsandbytes' own.
"""
import argparse
import json
import sys

import numpy as np
import torch
from bitsandbytes.functional import QuantState, dequantize_4bit, quantize_4bit

from hf_eval import generate, load, perplexity, to_numpy, token_ids
from layouts import Checkpoint, Tally, compare

STATE = ".quant_state.bitsandbytes__nf4"


def to_torch(x):
    x = np.array(x)
    return torch.from_numpy(x.view(np.uint16)).view(torch.bfloat16) if x.dtype.name == "bfloat16" else torch.from_numpy(x)


def check_tensors(tally, ours, reference, source):
    codes = [0, 0]
    for name in ours:
        if not name.endswith(STATE):
            continue
        w = name[:-len(STATE)]
        parts = {n: to_torch(ours[n]) for n in ours if n.startswith(w + ".")}
        state = QuantState.from_dict(dict(parts), device=torch.device("cpu"))
        packed = to_torch(ours[w])
        got = dequantize_4bit(packed, state)
        tally.check(compare(w, to_numpy(got).astype(np.float32), reference[w]), "bitsandbytes' weights")
        theirs, peer = quantize_4bit(to_torch(source[w]), blocksize=state.blocksize, quant_type="nf4")
        a, b = packed.reshape(-1), theirs.reshape(-1)
        codes[0] += int(((a >> 4) == (b >> 4)).sum() + ((a & 15) == (b & 15)).sum())
        codes[1] += 2 * a.numel()
        if not state.nested:
            off = int((state.absmax != peer.absmax).sum())
            tally.check(f"{off} of {peer.absmax.numel()} block scales differ" if off else None, w)
    tally.check(None if codes[1] else "no NF4 tensor")
    share = codes[0] / max(1, codes[1])
    print(f"codes equal to bitsandbytes' own: {100 * share:.4f} %")
    tally.check(None if share > 0.999 else f"only {100 * share:.3f} % of the codes are bitsandbytes'")


def peer_model(source):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    return AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, quantization_config=config, device_map="cpu").eval()


def dequantized(model):
    """The model with its 4-bit layers as plain f32 ones, so that both are scored in the same arithmetic.
    Only before the first forward pass: on the CPU that repacks the codes for its kernel."""
    return model.dequantize().float()


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
    check_tensors(tally, Checkpoint(a.artifact), Checkpoint(a.reference), Checkpoint(a.source))
    text = generate(load(a.artifact, torch.bfloat16), a.source)
    tally.check(None if text.strip() else "generates nothing")
    ids = token_ids(a.source, a.text)
    got = perplexity(dequantized(load(a.artifact, torch.bfloat16)), ids, a.windows)
    want = perplexity(dequantized(peer_model(a.source)), ids, a.windows)
    print(json.dumps({"artifact": a.artifact, "windows": a.windows, "perplexity": round(got, 4), "bitsandbytes": round(want, 4), "text": text}))
    tally.check(None if got <= want * 1.001 else f"perplexity {got:.4f}, bitsandbytes {want:.4f}")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
