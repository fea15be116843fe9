#!/usr/bin/env python3
"""Light tier: models of another structure (fewer neurons, heads, blocks, channels) in llama.cpp; with --full in transformers too.

    check_smaller.py --binary modelpress --model DIR --text FILE [--windows 3] [--full PYTHON] [--only REGEX]

Each row is compressed by `modelpress compress`, calibrated on the first half of TEXT and measured by itself on windows of
1,024 tokens of the second half, as a GGUF of f16 and as safetensors. llama.cpp must have the report's perplexity on the same
tokens to 0.5 %; the GGUF must be smaller than the model. With --full, `check_structured.py` holds the folder to transformers.
"""
import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from compare import in_llama, stage
from layouts import Tally

HERE = Path(__file__).parent
ROWS = {
    "neurons": [stage("prune_neurons", ratio=0.125)],
    "heads": [stage("prune_heads", keep=2)],
    "blocks": [stage("prune_blocks", ratio=0.1)],
    "hidden": [stage("prune_hidden", ratio=0.1)],
    "all of them": [stage("prune_blocks", keep=28), stage("prune_heads", keep=2), stage("prune_neurons", ratio=0.125),
                    stage("prune_hidden", ratio=0.06)],
}


def compressed(a, halves, stages, out):
    recipe = {"stages": stages, "formats": [{"format": "gguf", "options": {}}, "safetensors"],
              "calibration": {"dataset": "c", "num_samples": 8, "max_seq_length": 512},
              "evaluation": {"dataset": "e", "num_samples": a.windows, "max_seq_length": 1024}}
    done = subprocess.run([a.binary, "compress", a.model, "--recipe", json.dumps(recipe), "--dataset", f"c={halves[0]}",
                           "--dataset", f"e={halves[1]}", "--out", str(out)], capture_output=True, text=True)
    return done.stderr[-1500:] if done.returncode else None


def row(a, tally, halves, label, stages, out):
    error = compressed(a, halves, stages, out)
    tally.check(error, label)
    if error:
        return
    report = json.loads((out / "report.json").read_text())
    want = next(m for m in report["quality"]["measures"] if m["metric"] == "perplexity")
    file = next(out.rglob("*.gguf"))
    source = sum(f.stat().st_size for f in Path(a.model).glob("*.safetensors"))
    tally.check(None if file.stat().st_size < source else f"{file.stat().st_size} bytes, and the model has {source}", label)
    a.model, model = str(next(out.rglob("tokenizer.json")).parent), a.model
    got = in_llama(a, file)
    a.model = model
    found = {"row": label, "before": round(want["before"], 4), "report": round(want["after"], 4), "llama.cpp": got, "bytes": file.stat().st_size}
    if not isinstance(got, float):
        tally.check(got, label)
    else:
        apart = abs(got / want["after"] - 1)
        tally.check(None if apart <= 0.005 else f"llama.cpp {got}, report {want['after']:.4f}", label)
    if a.full:
        folder = next(out.rglob("model.safetensors")).parent
        done = subprocess.run([a.full, str(HERE / "check_structured.py"), str(folder), "--text", a.text, "--perplexity", str(want["after"]),
                               "--windows", str(a.windows), "--source", a.model], capture_output=True, text=True)
        tally.check((done.stdout + done.stderr)[-1500:] if done.returncode else None, label)
        found["transformers"] = next((json.loads(l)["transformers"] for l in done.stdout.splitlines() if l.startswith("{")), None)
    print(json.dumps(found), flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--text", required=True)
    p.add_argument("--windows", type=int, default=3)
    p.add_argument("--full", help="an interpreter that has torch and transformers")
    p.add_argument("--only", default="")
    a = p.parse_args()
    tally = Tally()
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(a.text).read_text()
        halves = [Path(scratch) / "c.txt", Path(scratch) / "e.txt"]
        halves[0].write_text(text[:len(text) // 2])
        halves[1].write_text(text[len(text) // 2:])
        for label, stages in ROWS.items():
            if re.search(a.only, label):
                row(a, tally, halves, label, stages, Path(scratch) / label.replace(" ", "-"))
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
