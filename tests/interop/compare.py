#!/usr/bin/env python3
"""The calibrated methods beside the peers': same model, data, bits and evaluation, one after the other on one machine.

    compare.py --binary modelpress [--model DIR] [--text FILE] [--only REGEX] [--results FILE] [--no-peers] [--table]

Every row is compressed by `modelpress compress` (calibrated on the first half of TEXT, measured by itself on the first
windows of the second half), then the artifact is measured on the same windows by an engine that is not ours: transformers,
or llama.cpp for GGUF. Its perplexity must agree with our report within 0.5 %. Then each peer of the row compresses the same
model with the same data by peers.py. Wall time, CPU time and peak memory are of the compression alone, evaluation not
counted; `quiet` says that nothing else was running. One JSON line a run is appended to the results file; --table prints
the newest of each row as the table of the README and runs nothing.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from layouts import Tally

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("INTEROP_CACHE", Path.home() / ".cache/modelpress-interop"))
G64 = {"n_bits": 4, "symmetric": True, "group_size": 64}
W8A8 = {"n_bits": 8, "granularity": "channel", "activations": "dynamic_token"}
CT = "compressed-tensors"


def stage(technique, **options):
    return {"technique": technique, "options": options}


# label, stages, format, samples of 512 tokens (0: none), methods of peers.py
ROWS = [
    ("GPTQ W4 g64, act order static", [stage("gptq", **G64)], CT, 128, ["gptq", "gptqmodel"]),
    ("GPTQ W4 g64, act order group", [stage("gptq", act_order="group", scale_dtype="F16", **G64)], "gptq", 128, []),
    ("GPTQ W4 g64, zero points", [stage("gptq", **{**G64, "symmetric": False})], CT, 128, ["gptq-asym"]),
    ("GPTQ W4 g64, GPTQ layout", [stage("gptq", scale_dtype="F16", **G64)], "gptq", 128, []),
    ("Learned rounding W4 g64", [stage("autoround", **G64)], CT, 128, ["autoround"]),
    ("Rotation, GPTQ W4 g64", [stage("hadamard"), stage("gptq", **G64)], CT, 128, []),
    ("Rotation, Q8_0", [stage("hadamard"), {**stage("ggml", type="Q8_0"), "targets": ["re:.*"], "ignore": []}], "gguf", 0, []),
    ("AWQ W4 g64, zero points", [stage("awq", n_bits=4, symmetric=False, group_size=64)], CT, 64, ["awq"]),
    ("AWQ W4 g64, AWQ layout", [stage("awq", n_bits=4, symmetric=False, group_size=64, scale_dtype="F16")], "awq", 64, []),
    ("SmoothQuant 0.8, W8A8", [stage("smoothquant", smoothing_strength=0.8), stage("rtn", **W8A8)], CT, 64, ["smoothquant"]),
    ("SmoothQuant 0.8, GPTQ W8A8", [stage("smoothquant", smoothing_strength=0.8), stage("gptq", **W8A8)], CT, 64, ["smoothquant-gptq"]),
    ("SmoothQuant 0.8, W8A8 static", [stage("smoothquant", smoothing_strength=0.8), stage("rtn", **W8A8),
                                       stage("static_activations")], CT, 64, ["w8a8-static"]),
    ("FP8 static", [stage("fp8", granularity="tensor", activations="dynamic_token"), stage("static_activations")], CT, 64, ["fp8-static"]),
    ("HQQ W4 g64", [stage("hqq", n_bits=4, group_size=64)], CT, 0, ["hqq"]),
    ("RTN W4 g64, zero points", [stage("rtn", **{**G64, "symmetric": False})], CT, 0, ["rtn-asym"]),
    ("RTN W4 g64", [stage("rtn", **G64)], CT, 0, ["rtn"]),
    ("NF4 nested", [stage("nf4", double_quant=True)], "bitsandbytes", 0, ["nf4-nested"]),
    ("Q4_K_M, imatrix", [{**stage("ggml", type="Q4_K_M", imatrix="calibration"), "targets": ["re:.*"], "ignore": []}], "gguf", 128, []),
    ("IQ3_S, imatrix", [{**stage("ggml", type="IQ3_S", imatrix="calibration"), "targets": ["re:.*"], "ignore": []}], "gguf", 128, []),
]


def busy(seconds=1.0):
    def used():
        user, nice, system = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:4])
        return (user + nice + system) / os.sysconf("SC_CLK_TCK")
    before = used()
    time.sleep(seconds)
    return (used() - before) / seconds


def ours(a, halves, row, out):
    """One run of modelpress: its report, and what the process took."""
    label, stages, form, samples, _ = row
    recipe = {"stages": stages, "formats": [form],
              "evaluation": {"dataset": "e", "num_samples": a.windows, "max_seq_length": 1024}}
    if samples:
        recipe["calibration"] = {"dataset": "c", "num_samples": samples, "max_seq_length": 512}
    others = busy()
    done = subprocess.run([a.binary, "compress", a.model, "--recipe", json.dumps(recipe), "--dataset", f"c={halves[0]}",
                           "--dataset", f"e={halves[1]}", "--out", str(out)], capture_output=True, text=True)
    if done.returncode:
        return None, done.stderr[-1500:]
    report = json.loads((out / "report.json").read_text())
    measured = ("evaluate", "compare")
    work = [s for s in report["stages"] if s["name"] not in measured]
    measures = {m["metric"]: m for m in report["quality"]["measures"]}
    return {"method": label, "tool": "modelpress", "calibration": f"{samples}x512" if samples else None,
            "reported": round(measures["perplexity"]["after"], 4), "before": round(measures["perplexity"]["before"], 4),
            "kl": round(measures["kl"]["after"], 6),
            "wall_seconds": round(sum(s["seconds"] for s in work), 1), "cpu_seconds": round(sum(s["cpu_seconds"] for s in work), 1),
            "peak_rss_mb": max(s["peak_rss_bytes"] for s in work) >> 20, "planned_mb": report["planned_peak_memory_bytes"] >> 20,
            "bits_per_weight": round(report["formats"][0]["bits_per_weight"], 3),
            "bytes": report["formats"][0]["weight_bytes"], "quiet": max(others, busy()) < 0.3, "windows": a.windows}, None


def in_transformers(a, folder):
    done = subprocess.run([a.full, str(HERE / "peers.py"), "perplexity", str(folder), "--windows", str(a.windows), "--model", a.model,
                           "--text", a.text, "--results", os.devnull], capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])["perplexity"] if done.returncode == 0 else done.stderr[-1500:]


def in_llama(a, file, python=sys.executable):
    """The same windows, token for token, through llama.cpp."""
    script = f"""
import json, math, sys
import numpy as np
from pathlib import Path
from llama_cpp import Llama
from tokenizers import Tokenizer
text = Path({a.text!r}).read_text()
ids = Tokenizer.from_file({str(Path(a.model) / "tokenizer.json")!r}).encode(text[len(text) // 2:], add_special_tokens=False).ids
llm = Llama(model_path={str(file)!r}, n_ctx=1024, n_batch=1024, logits_all=True, n_threads=2, n_threads_batch=2, verbose=False)
nll = 0.0
for w in range({a.windows}):
    window = ids[w * 1024:(w + 1) * 1024]
    llm.reset(); llm.eval(window)
    x = np.asarray(llm.scores[:1023], np.float64)
    x -= x.max(axis=1, keepdims=True)
    nll -= float((x[np.arange(1023), window[1:]] - np.log(np.exp(x).sum(axis=1))).sum())
print(math.exp(nll / ({a.windows} * 1023)))
"""
    done = subprocess.run([python, "-c", script], capture_output=True, text=True)
    return round(float(done.stdout.split()[-1]), 4) if done.returncode == 0 else done.stderr[-1500:]


def keep(a, record):
    print(json.dumps(record), flush=True)
    with open(a.results, "a") as f:
        f.write(json.dumps(record) + "\n")


def run(a):
    tally = Tally()
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(a.text).read_text()
        halves = [Path(scratch) / "c.txt", Path(scratch) / "e.txt"]
        halves[0].write_text(text[:len(text) // 2])
        halves[1].write_text(text[len(text) // 2:])
        for row in ROWS:
            if not re.search(a.only, row[0]):
                continue
            if a.samples and row[3]:
                row = (*row[:3], a.samples, row[4])
            out = Path(scratch) / "out"
            record, why = ours(a, halves, row, out)
            tally.check(why, row[0])
            if record:
                form = row[2]
                got = in_llama(a, next((out / form).glob("*.gguf"))) if form == "gguf" else in_transformers(a, out / form)
                if isinstance(got, float):
                    record["perplexity"] = got
                    apart = abs(got / record["reported"] - 1)
                    tally.check(None if apart <= 0.005 else f"perplexity {got} in the engine, {record['reported']} reported", row[0])
                else:
                    tally.check(got, row[0])
                keep(a, record)
            subprocess.run(["rm", "-rf", str(out)], check=True)
            for peer in row[4] if a.peers else []:
                python = a.gptqmodel if peer == "gptqmodel" else a.full
                if not Path(python).exists():
                    tally.check(f"there is no {python}: tests/interop/README.md says what goes there", f"{row[0]}: {peer}")
                    continue
                command = [python, str(HERE / "peers.py"), peer, "--samples", str(row[3] or 1), "--windows", str(a.windows),
                           "--model", a.model, "--text", a.text, "--results", os.devnull, "--dtype", a.dtype, *(["--iters", a.iters] if peer == "autoround" else [])]
                done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "GPTQMODEL_CPU_WORKERS": "2"})
                tally.check(None if done.returncode == 0 else done.stderr[-1500:], f"{row[0]}: {peer}")
                if done.returncode == 0:
                    peer_record = json.loads(done.stdout.splitlines()[-1])
                    keep(a, {**peer_record, "row": row[0]})
    return tally.finish()


def table(a):
    """The newest line of each run, a row for each method."""
    mine, theirs = {}, {}
    for line in Path(a.results).read_text().splitlines():
        r = json.loads(line)
        if r["tool"] == "modelpress":
            mine[r["method"]] = r
        else:
            theirs[r["row"], r["method"]] = r
    cost = lambda r: f"{r['wall_seconds']:.0f} s, {r['cpu_seconds']:.0f} s, {r['peak_rss_mb']} MB" + ("" if r.get("quiet", not r.get("contended")) else " *")
    print("| method | calibration | perplexity, in its engine | mean KL | wall, CPU, memory | peer | perplexity | wall, CPU, memory |")
    print("|---|---|---|---|---|---|---|---|")
    for label, _, _, _, peers in ROWS:
        if label not in mine:
            continue
        r = mine[label]
        left = f"| {label} | {r['calibration'] or ''} | {r['reported']:.3f}, {r.get('perplexity', float('nan')):.3f} | {r['kl']:.4f} | {cost(r)} |"
        found = [theirs[label, p] for p in peers if (label, p) in theirs]
        for p in found or [None]:
            right = f" {p['tool']} {p['version']} | {p['perplexity']:.3f} | {cost(p)} |" if p else " | | |"
            print(left + right)
            left = "| | | | | |"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", default="target/release/modelpress")
    p.add_argument("--model", default=str(CACHE / "smollm2"))
    p.add_argument("--text", default=os.environ.get("TEXT"))
    p.add_argument("--only", default="")
    p.add_argument("--windows", type=int, default=40)
    p.add_argument("--samples", type=int, help="instead of the row's, for a quick look")
    p.add_argument("--iters", default="200", help="of auto-round")
    p.add_argument("--dtype", default="bfloat16", help="of the peers; float32 where the CPU has no instructions for bfloat16")
    p.add_argument("--results", default=str(CACHE / "compare.jsonl"))
    p.add_argument("--no-peers", dest="peers", action="store_false")
    p.add_argument("--table", action="store_true")
    p.add_argument("--full", default=os.environ.get("INTEROP_PYTHON_FULL", str(CACHE / "venv-full/bin/python")))
    p.add_argument("--gptqmodel", default=str(CACHE / "venv-gptqmodel/bin/python"))
    a = p.parse_args()
    return table(a) if a.table else run(a)


if __name__ == "__main__":
    sys.exit(main())
