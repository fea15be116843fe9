#!/usr/bin/env python3
"""A server that times its artifacts with llama.cpp (decode_speed.py), and a search whose front knows how fast they are.

    check_decode.py --binary modelpress --model DIR
"""
import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from layouts import Tally
from service import Service

RECIPES = ["Q8_0", "Q4_0"]


def wrapped(folder):
    """decode_speed.py with this very Python."""
    path = Path(folder) / "decode-speed"
    script = Path(__file__).with_name("decode_speed.py").resolve()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    path.chmod(0o755)
    return str(path)


def check(service, model):
    tally = Tally()
    model = service.upload(model)
    evaluation = {"dataset": "builtin", "num_samples": 2, "max_seq_length": 128, "metrics": ["kl"]}
    asked = {"model": model, "recipes": RECIPES, "evaluation": evaluation}
    search = service.call("POST", "/v1/searches", asked)["id"]
    while (found := service.call("GET", f"/v1/searches/{search}"))["status"] in ("queued", "running"):
        time.sleep(1)
    for point in found["points"]:
        speed = (point["result"] or {}).get("decode_tokens_per_second")
        print(f"{point['name']}: {speed} tokens a second, {point['best_for']}")
        tally.check(None if speed else str(point), f"decode: {point['name']} is timed")
    return tally


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", default="target/release/modelpress")
    p.add_argument("--model", type=Path, required=True)
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MODELPRESS_DECODE_COMMAND"] = wrapped(scratch)
        with Service(a.binary, scratch) as service:
            return check(service, a.model).finish()


if __name__ == "__main__":
    sys.exit(main())
