#!/usr/bin/env python3
"""Full tier: the forward pass against transformers on torch, in turns, on the same tokens.

    bench_forward.py --bench target/release/deps/forward-… [--model DIR] [--text FILE] [--windows 40] [--rounds 3]

Both compute the logits of every token of the same windows of 1,024 in f32 with two threads; loading is not counted there,
and here it is (weights are read block by block). Prints each round and the medians; fails where ours is slower.
`cargo bench --bench forward --no-run` says where the bench is.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from hf_eval import WINDOW, load, token_ids

CACHE = Path(os.environ.get("INTEROP_CACHE", Path.home() / ".cache/modelpress-interop"))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bench", required=True)
    p.add_argument("--model", default=str(CACHE / "smollm2"))
    p.add_argument("--text", default=os.environ.get("TEXT"))
    p.add_argument("--windows", type=int, default=40)
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    torch.set_num_threads(2)
    model, ids = load(a.model), token_ids(a.model, a.text)
    windows = [torch.tensor([ids[w * WINDOW:(w + 1) * WINDOW]]) for w in range(a.windows)]
    half = Path(tempfile.mkdtemp()) / "half.txt"
    text = Path(a.text).read_text()
    half.write_text(text[len(text) // 2:])
    env = {**os.environ, "MODEL": a.model, "TEXT": str(half), "WINDOWS": str(a.windows), "RAYON_NUM_THREADS": "2"}
    theirs, ours = [], []
    for _ in range(a.rounds):
        began = time.time()
        with torch.inference_mode():
            for x in windows:
                model(x).logits
        theirs.append(time.time() - began)
        line = json.loads(subprocess.run([a.bench], env=env, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        ours.append(line["seconds"])
        print(f"transformers {theirs[-1]:.1f} s, modelpress {line}", flush=True)
    a, b = statistics.median(theirs), statistics.median(ours)
    print(f"median: transformers {a:.1f} s, modelpress {b:.1f} s, {b / a:.2f} of its time")
    return 0 if b <= a else 1


if __name__ == "__main__":
    sys.exit(main())
