#!/usr/bin/env python3
"""Light tier: a compressed checkpoint folder read by the independent numpy readers of layouts.py.

    check_layout.py ARTIFACT_DIR --reference FAKE_QUANT_DIR [--source MODEL_DIR]

FAKE_QUANT_DIR is the same job's `safetensors` output: the weights the compressed form stands for, in a
dense file. Every tensor of it must be there and decode to its bits, once rounded to the dense file's own
dtype (tolerance: none). With --source, tensors that are not quantized must be the source's bits.
"""
import argparse
import sys

import numpy as np
from safetensors import safe_open

from layouts import Checkpoint, LayoutError, Tally, compare, dequantize


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("artifact")
    p.add_argument("--reference", required=True)
    p.add_argument("--source")
    a = p.parse_args()
    tally, seen, saved = Tally(), set(), 0
    reference = Checkpoint(a.reference)
    source = Checkpoint(a.source) if a.source else None
    try:
        artifact = Checkpoint(a.artifact)
        for file in {e[0] for e in artifact.entries.values()}:
            with safe_open(file, framework="numpy") as f:
                tally.check(None if set(f.keys()) <= set(artifact) else "safetensors sees other tensors", str(file))
        for name, w in dequantize(a.artifact):
            seen.add(name)
            if name not in reference:
                tally.check(f"{name} is not in the reference")
                continue
            tally.check(compare(name, w, reference[name]))
            if source and name in source and name in artifact and artifact[name].dtype == source[name].dtype:
                tally.check(compare(name, np.asarray(artifact[name], np.float32), source[name]), "against the source")
        for name in set(reference) - seen:
            tally.check(f"{name} of the reference is missing")
    except LayoutError as e:
        tally.check(str(e))
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
