#!/usr/bin/env python3
"""How long a cancel takes to end a running calibrated job, in every stage of it.

    check_cancel.py --binary modelpress [--model DIR] [--limit 2.0] [--technique gptq]

Starts a server, uploads the model and cancels one job after another, each a little later than the one before, until one ends
by itself. Prints stage and seconds from the request to the state `cancelled`; fails where one took longer than the limit.
"""
import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from layouts import Tally
from service import Service

CACHE = Path(os.environ.get("INTEROP_CACHE", Path.home() / ".cache/modelpress-interop"))
RECIPES = {
    "gptq": [{"technique": "gptq", "options": {"group_size": 64}}],
    "awq": [{"technique": "awq", "options": {"group_size": 64}}],
    "autoround": [{"technique": "autoround", "options": {"group_size": 64, "iters": 20}}],
    "smoothquant": [{"technique": "smoothquant"}, {"technique": "rtn", "options": {
        "n_bits": 8, "granularity": "channel", "activations": "dynamic_token"}}, {"technique": "static_activations"}],
    "ggml": [{"technique": "ggml", "options": {"type": "Q4_K_M", "imatrix": "calibration"}, "targets": ["re:.*"], "ignore": []}],
}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", required=True)
    p.add_argument("--model", default=str(CACHE / "smollm2"))
    p.add_argument("--limit", type=float, default=2.0)
    p.add_argument("--technique", choices=RECIPES, default="gptq")
    p.add_argument("--samples", type=int, default=16)
    p.add_argument("--step", type=float, default=1.7, help="seconds that each job runs longer than the one before")
    a = p.parse_args()
    tally, slowest = Tally(), {}
    recipe = {"stages": RECIPES[a.technique], "formats": ["gguf" if a.technique == "ggml" else "compressed-tensors"],
              "calibration": {"num_samples": a.samples, "max_seq_length": 512},
              "evaluation": {"num_samples": 4, "max_seq_length": 1024}}
    with tempfile.TemporaryDirectory() as scratch, Service(a.binary, scratch) as service:
        model = service.upload(a.model)
        wait = 0.3
        while True:
            job = service.call("POST", "/v1/jobs", {"model": model, "recipe": recipe})["id"]
            while service.call("GET", f"/v1/jobs/{job}")["status"] == "queued":
                time.sleep(0.02)
            time.sleep(wait)
            before = service.call("GET", f"/v1/jobs/{job}")
            if before["status"] != "running":
                tally.check(None if before["status"] == "succeeded" else f"the job ended as {before['status']}", "last")
                break
            began = time.time()
            service.call("POST", f"/v1/jobs/{job}/cancel")
            while (after := service.call("GET", f"/v1/jobs/{job}"))["status"] not in ("cancelled", "succeeded", "failed"):
                time.sleep(0.02)
            took = time.time() - began
            stage = (before.get("stage") or {}).get("name", "?")
            slowest[stage] = max(slowest.get(stage, 0.0), took)
            print(f"{wait:6.1f} s: {stage}: {after['status']} after {took:.2f} s", flush=True)
            tally.check(None if took <= a.limit else f"{took:.2f} s", stage)
            wait += a.step
    print("slowest: " + ", ".join(f"{s} {t:.2f} s" for s, t in slowest.items()))
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
