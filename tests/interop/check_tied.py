#!/usr/bin/env python3
"""Full tier, by hand: a checkpoint of the format tied in transformers.

    check_tied.py FOLDER --text TEXT (--report report.json | --perplexity X) [--tolerance 0.005] [--windows 40]
                  [--whole SAFETENSORS_FOLDER]

1. transformers loads the folder with trust_remote_code: no key missing, none left over, none of another shape; it has as
   many weights as the files, each once; it generates, with a key/value cache and without the same.
2. Perplexity by hf_eval.py on the second half of TEXT is the report's to the tolerance (relative).
3. With --whole, the same model written out block by block: equal logits, and fewer weights than that.
4. What save_pretrained writes is loaded again, with as many weights and equal logits.

The report must have been measured on the same windows: `evaluation: {dataset: second half, num_samples: 40,
max_seq_length: 1024}`.
"""
import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from hf_eval import generate, perplexity, token_ids
from layouts import Checkpoint, Tally

KEYS = ("missing_keys", "unexpected_keys", "mismatched_keys")


def loaded(tally, folder, label):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=True, output_loading_info=True)
    for what in KEYS:
        tally.check(f"{what}: {sorted(map(str, info[what]))[:5]}" if info[what] else None, label)
    return model.eval()


def weights(model):
    return sum(p.numel() for p in model.parameters())


def logits(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits


def expected(a):
    if a.report is None:
        return a.perplexity
    quality = json.loads(a.report.read_text())["quality"]
    if quality["max_seq_length"] != 1024 or quality["sequences"] != a.windows:
        sys.exit(f"the report measured {quality['sequences']} sequences of {quality['max_seq_length']}, not {a.windows} of 1024")
    return next(m["after"] for m in quality["measures"] if m["metric"] == "perplexity")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("--text", required=True)
    figure = p.add_mutually_exclusive_group(required=True)
    figure.add_argument("--report", type=Path)
    figure.add_argument("--perplexity", type=float)
    p.add_argument("--tolerance", type=float, default=0.005)
    p.add_argument("--windows", type=int, default=40)
    p.add_argument("--whole")
    a = p.parse_args()
    tally, want = Tally(), expected(a)
    model = loaded(tally, a.folder, "loading")
    checkpoint = Checkpoint(a.folder)
    stored = sum(math.prod(checkpoint.entries[name][3]) for name in checkpoint)
    held = weights(model)
    tally.check(None if held == stored else f"{held} weights in transformers, {stored} in the files", "weights")
    ids = token_ids(a.folder, a.text)
    text = generate(model, a.folder)
    model.generation_config.use_cache = False
    again = generate(model, a.folder)
    model.generation_config.use_cache = True
    tally.check(None if text.strip() and text == again else f"{text!r} with a cache, {again!r} without", "generating")
    got = perplexity(model, ids, a.windows)
    apart = abs(got / want - 1)
    tally.check(None if apart <= a.tolerance else f"perplexity {got:.4f}, report {want:.4f}: {100 * apart:.3f} % apart", "perplexity")
    found = {"folder": a.folder, "weights": stored, "text": text, "report": want, "transformers": round(got, 4)}
    some = logits(model, ids[:64])
    if a.whole:
        whole = loaded(tally, a.whole, "whole")
        found["whole"] = weights(whole)
        tally.check(None if held < found["whole"] else f"{held} weights, as many as written out", "weights")
        tally.check(None if torch.equal(some, logits(whole, ids[:64])) else "other logits than written out", "whole")
    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(place)
        second = loaded(tally, place, "saved")
        tally.check(None if weights(second) == held else f"{weights(second)} weights once saved, {held} before", "saved")
        tally.check(None if torch.equal(some, logits(second, ids[:64])) else "other logits once saved", "saved")
    print(json.dumps(found))
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
