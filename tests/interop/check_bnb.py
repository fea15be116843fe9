#!/usr/bin/env python3
"""Full tier: a bitsandbytes NF4 folder, read by bitsandbytes on the CPU.

    check_bnb.py ARTIFACT_DIR --reference FAKE_QUANT_DIR --source MODEL_DIR --text TEXT [--windows 6] [--cache DIR]

1. QuantState.from_dict takes our tensors, dequantize_4bit gives FAKE_QUANT_DIR's weights bit for bit.
2. bitsandbytes quantizes the source weights itself: the share of equal codes is printed; it must be above
   99.9 % and every block scale must be equal. With double quantization the map must be bitsandbytes' own, the
   offset and the outer scales equal but for the order of a sum, and 99.9 % of the scales' codes equal.
3. AutoModelForCausalLM loads the folder, generates, and its perplexity is within 0.1 % of bitsandbytes' own.
"""
import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from bitsandbytes.functional import QuantState, dequantize_4bit, quantize_4bit

from hf_eval import generate, load, perplexity, to_numpy, token_ids
from layouts import Checkpoint, Tally, compare

STATE = ".quant_state.bitsandbytes__nf4"


def to_torch(x):
    x = np.array(x)
    return torch.from_numpy(x.view(np.uint16)).view(torch.bfloat16) if x.dtype.name == "bfloat16" else torch.from_numpy(x)


def check_nested(tally, w, state, peer, absmax):
    """`state` is what bitsandbytes read of ours, `peer` what it made itself."""
    same = bool((state.state2.code == peer.state2.code).all())
    tally.check(None if same else "another dynamic map", w)
    gap = abs(float(state.offset) / float(peer.offset) - 1)
    tally.check(None if gap < 1e-5 else f"offset {float(state.offset)}, bitsandbytes {float(peer.offset)}", w)
    close = torch.allclose(state.state2.absmax, peer.state2.absmax, rtol=1e-4)
    tally.check(None if close else "outer scales differ", w)
    absmax[0] += int((state.absmax == peer.absmax).sum())
    absmax[1] += peer.absmax.numel()


def check_tensors(tally, ours, reference, source):
    codes, absmax = [0, 0], [0, 0]
    for name in ours:
        if not name.endswith(STATE):
            continue
        w = name[:-len(STATE)]
        parts = {n: to_torch(ours[n]) for n in ours if n.startswith(w + ".")}
        state = QuantState.from_dict(dict(parts), device=torch.device("cpu"))
        packed = to_torch(ours[w])
        got = dequantize_4bit(packed, state)
        tally.check(compare(w, to_numpy(got).astype(np.float32), reference[w]), "bitsandbytes' weights")
        theirs, peer = quantize_4bit(to_torch(source[w]), blocksize=state.blocksize, quant_type="nf4",
                                     compress_statistics=state.nested)
        a, b = packed.reshape(-1), theirs.reshape(-1)
        codes[0] += int(((a >> 4) == (b >> 4)).sum() + ((a & 15) == (b & 15)).sum())
        codes[1] += 2 * a.numel()
        if state.nested:
            check_nested(tally, w, state, peer, absmax)
        else:
            off = int((state.absmax != peer.absmax).sum())
            tally.check(f"{off} of {peer.absmax.numel()} block scales differ" if off else None, w)
    tally.check(None if codes[1] else "no NF4 tensor")
    if absmax[1]:
        share = absmax[0] / absmax[1]
        print(f"scales' codes equal to bitsandbytes' own: {100 * share:.4f} %")
        tally.check(None if share > 0.999 else f"only {100 * share:.3f} % of the scales' codes are bitsandbytes'")
    share = codes[0] / max(1, codes[1])
    print(f"codes equal to bitsandbytes' own: {100 * share:.4f} %")
    tally.check(None if share > 0.999 else f"only {100 * share:.3f} % of the codes are bitsandbytes'")


def peer_model(source, nested):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32,
                                bnb_4bit_use_double_quant=nested)
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
    nested = json.loads((Path(a.artifact) / "config.json").read_text())["quantization_config"]["bnb_4bit_use_double_quant"]
    want = perplexity(dequantized(peer_model(a.source, nested)), ids, a.windows)
    print(json.dumps({"artifact": a.artifact, "windows": a.windows, "perplexity": round(got, 4), "bitsandbytes": round(want, 4), "text": text}))
    tally.check(None if got <= want * 1.001 else f"perplexity {got:.4f}, bitsandbytes {want:.4f}")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
