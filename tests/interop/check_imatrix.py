#!/usr/bin/env python3
"""Full tier: importance matrices against llama.cpp's own tools (llama-imatrix, llama-quantize, llama-perplexity).

    check_imatrix.py --binary modelpress --model MODEL_DIR --llama BIN_DIR --text CALIBRATION.txt
                     [--chunks 128] [--imatrix FILE] [--types Q4_K_M,...] [--kl EVALUATION.txt] [--kl-types Q4_K_M,IQ3_S]
                     [--keep DIR]

Collected: modelpress and llama-imatrix run over the same chunks of 512 tokens of the same text; for every tensor, the
norm of the difference of the mean squares by the norm of llama.cpp's (tolerance 0.01: it multiplies in F16, we in F32),
and the same names and counts. --imatrix takes a file that llama-imatrix made of the same text and chunks before.
Imported: with llama-imatrix's file, every tensor of modelpress' GGUF has the bytes of llama-quantize's. IQ3_S may
differ in blocks where llama.cpp reads numbers of another block (src/engine/kernels/ggml/iq3.rs): in at most 0.1 %.
Exported: llama-quantize takes our file, and what it makes with it is what we make with it, byte for byte.
--kl: the mean KL divergence to the F16 file, with each tool's own importance: ours may not be 1 % above.
"""
import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from gguf import GGUFReader

from layouts import Tally

TYPES = "Q4_K_M,IQ4_XS,Q2_K,IQ3_S,IQ2_XS,Q4_0"


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def compress(a, source, recipe, out):
    """One file that modelpress makes."""
    folder = a.keep / out
    if not folder.exists():
        run(a.binary, "compress", source, "--recipe", json.dumps(recipe), "--out", folder)
    return {f.parent.name: f for f in folder.glob("*/*.gguf")}


def means(path):
    """Mean squares by tensor, and counts."""
    tensors = {t.name: np.array(t.data, dtype=np.float64) for t in GGUFReader(path).tensors}
    names = [n.removesuffix(".in_sum2") for n in tensors if n.endswith(".in_sum2")]
    counts = {n: tensors[f"{n}.counts"].ravel() for n in names}
    return {n: tensors[f"{n}.in_sum2"].ravel() / counts[n][0] for n in names}, counts


def check_collected(tally, ours, theirs):
    (a, counts_a), (b, counts_b) = means(ours), means(theirs)
    tally.check(None if a.keys() == b.keys() else f"names differ: {sorted(a.keys() ^ b.keys())[:4]}", "entries")
    worst = (0.0, "")
    differences = []
    for name in sorted(a.keys() & b.keys()):
        difference = float(np.linalg.norm(a[name] - b[name]) / np.linalg.norm(b[name]))
        differences.append(difference)
        worst = max(worst, (difference, name))
        tally.check(None if difference <= 0.01 else f"relative difference {difference:.5f}", name)
        same = np.array_equal(counts_a[name], counts_b[name])
        tally.check(None if same else f"counts {counts_a[name]}, llama.cpp {counts_b[name]}", name)
    print(f"collected: {len(differences)} entries, relative difference median {np.median(differences):.6f}, "
          f"largest {worst[0]:.6f} ({worst[1]})")


def check_equal(tally, label, ours, theirs):
    a, b = ({t.name: t for t in GGUFReader(p).tensors} for p in (ours, theirs))
    tally.check(None if a.keys() == b.keys() else "other tensors", label)
    different, total = 0, 0
    for name in a.keys() & b.keys():
        x, y = a[name], b[name]
        if x.tensor_type != y.tensor_type or x.data.shape != y.data.shape:
            tally.check(f"{x.tensor_type.name}, llama.cpp {y.tensor_type.name}", f"{label} {name}")
            continue
        n = int(np.count_nonzero(x.data.view(np.uint8) != y.data.view(np.uint8)))
        total, different = total + x.data.nbytes, different + n
        allowed = 0.001 * x.data.nbytes if x.tensor_type.name == "IQ3_S" else 0
        tally.check(None if n <= allowed else f"{n} of {x.data.nbytes} bytes differ", f"{label} {name}")
    print(f"{label}: {different} of {total} bytes differ")


def kl(a, base, model):
    text = run(Path(a.llama) / "llama-perplexity", "-m", model, "--kl-divergence", "--kl-divergence-base", base,
               "-c", 512, "--chunks", 60, "-f", a.kl, "-t", 2)
    found = {key: re.search(pattern, text) for key, pattern in {
        "kl": r"Mean\s+KLD:\s+([\d.]+)", "perplexity": r"Mean PPL\(Q\)\s*:\s+([\d.]+)",
        "top": r"Same top p:\s+([\d.]+)"}.items()}
    return {key: float(match[1]) for key, match in found.items() if match}


def check_kl(tally, a, f16, theirs, calibration):
    base = a.keep / "base.kld"
    if not base.exists():
        run(Path(a.llama) / "llama-perplexity", "-m", f16, "--kl-divergence-base", base, "-c", 512, "--chunks", 60,
            "-f", a.kl, "-t", 2)
    for kind in a.kl_types.split(","):
        recipe = {"preset": kind, "options": {"imatrix": "calibration"}, "calibration": calibration}
        mine = compress(a, a.model, recipe, f"own-{kind}")["gguf"]
        peer = a.keep / f"llama-{kind}.gguf"
        if not peer.exists():
            run(Path(a.llama) / "llama-quantize", "--imatrix", theirs, f16, peer, kind, 2)
        x, y = kl(a, base, mine), kl(a, base, peer)
        print(f"{kind}: {mine.stat().st_size} bytes {x}; llama.cpp {peer.stat().st_size} bytes {y}")
        tally.check(None if x["kl"] <= 1.01 * y["kl"] else f"mean KL {x['kl']}, llama.cpp {y['kl']}", f"{kind} KL")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("binary", "model", "llama", "text"):
        p.add_argument(f"--{name}", required=True)
    p.add_argument("--chunks", type=int, default=128)
    p.add_argument("--imatrix")
    p.add_argument("--types", default=TYPES)
    p.add_argument("--kl")
    p.add_argument("--kl-types", default="Q4_K_M,IQ3_S")
    p.add_argument("--keep", type=Path)
    a = p.parse_args()
    a.keep = a.keep or Path(tempfile.mkdtemp())
    a.keep.mkdir(parents=True, exist_ok=True)
    tally, llama = Tally(), Path(a.llama)
    calibration = {"dataset": a.text, "num_samples": a.chunks, "max_seq_length": 512}
    f16 = compress(a, a.model, {"preset": "F16"}, "f16")["gguf"]
    theirs = Path(a.imatrix) if a.imatrix else a.keep / "llama-imatrix.gguf"
    if not theirs.exists():
        run(llama / "llama-imatrix", "-m", f16, "-f", a.text, "-c", 512, "--chunks", a.chunks, "-o", theirs, "-t", 2)
    recipe = {"preset": "F16", "options": {"imatrix": "calibration"}, "formats": ["imatrix"], "calibration": calibration}
    ours = compress(a, a.model, recipe, "ours")["imatrix"]
    check_collected(tally, ours, theirs)
    pairs = [(theirs, "llama", kind) for kind in a.types.split(",") if kind] + [(ours, "ours", "Q4_K_M")]
    for matrix, whose, kind in pairs:
        recipe = {"preset": kind, "options": {"imatrix": str(matrix)}}
        mine = compress(a, f16, recipe, f"{whose}-{kind}")["gguf"]
        peer = a.keep / f"{whose}-{kind}.gguf"
        run(llama / "llama-quantize", "--imatrix", matrix, f16, peer, kind, 2)
        check_equal(tally, f"{kind} with the matrix of {'llama-imatrix' if whose == 'llama' else 'modelpress'}", mine, peer)
    if a.kl:
        check_kl(tally, a, f16, theirs, calibration)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
