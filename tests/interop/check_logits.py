#!/usr/bin/env python3
"""Full tier: the logits of a decoder by transformers in f32, and modelpress' beside them.

    check_logits.py MODEL_DIR [--lengths 600,33,1] [--text TEXT]   # writes MODEL_DIR/expected-logits.json
    check_logits.py MODEL_DIR --run                                # and: cargo test --test transformers

expected-logits.json is a list with one entry a sequence: {"input_ids": [...], "positions": [first, middle, last],
"logits": [[...], ...]}, a row over the whole vocabulary for each position. The sequences follow one another in the text
(default: Python's help). No logit may differ by more than 0.001.
"""
import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import torch
from transformers import AutoModelForCausalLM

from hf_eval import tokenizer
from layouts import Tally


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("--lengths", default="600,33,1")
    p.add_argument("--text")
    p.add_argument("--run", action="store_true")
    a = p.parse_args()
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32, attn_implementation="eager").eval()
    text = Path(a.text).read_text() if a.text else "\n\n".join(topics.values())
    ids = tokenizer(a.model)(text, add_special_tokens=False)["input_ids"]
    entries, start = [], 0
    for n in map(int, a.lengths.split(",")):
        x = torch.tensor([ids[start:start + n]])
        with torch.inference_mode():
            logits = model(x, attention_mask=torch.ones_like(x)).logits[0]
        positions = sorted({0, n // 2, n - 1})
        entries.append({"input_ids": x[0].tolist(), "positions": positions, "logits": logits[positions].tolist()})
        start += n
    (a.model / "expected-logits.json").write_text(json.dumps(entries))
    largest = max(abs(v) for e in entries for row in e["logits"] for v in row)
    print(json.dumps({"tokens": [len(e["input_ids"]) for e in entries], "largest_logit": round(largest, 2)}))
    tally = Tally()
    if a.run:
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(["cargo", "test", "--test", "transformers", "--", "--nocapture"], cwd=root,
                              env={**os.environ, "MODELPRESS_TEST_LOGITS": str(a.model.resolve())})
        tally.check(None if done.returncode == 0 else "cargo test --test transformers failed")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
