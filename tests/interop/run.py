#!/usr/bin/env python3
"""Drives the checks: a server, the reference model, one job a row of the tables below, the checks of the tier.

    run.py light|full --binary modelpress --model MODEL_DIR [--text TEXT] [--only REGEX] [--cli] [--keep DIR]

run.sh prepares what this needs; see README.md.
"""
import argparse
import json
import os
import pydoc_data.topics
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from layouts import Tally
from service import CommandLine, Service, ServiceError

HERE = Path(__file__).parent
GGUF = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "Q5_0", "Q5_1",
        "Q5_K_S", "Q3_K_M", "Q3_K_S", "Q3_K_L", "Q2_K", "IQ4_NL", "IQ4_XS", "F16"]
# (label, recipe, format, full-tier check or None, its extra arguments). The reference model is 576 wide: groups of 64.
CT, GROUPS = "check_compressed_tensors.py", {"group_size": 64}
CALIBRATED = {"calibration": {"num_samples": 32, "max_seq_length": 256}}
CHECKPOINTS = [
    ("W4A16", {"preset": "W4A16", "options": GROUPS}, "compressed-tensors", CT, []),
    ("W4A16_ASYM", {"preset": "W4A16_ASYM", "options": GROUPS}, "compressed-tensors", CT, []),
    ("W3A16", {"preset": "W4A16", "options": {"n_bits": 3, **GROUPS}}, "compressed-tensors", CT, []),
    ("W8A16", "W8A16", "compressed-tensors", CT, ["--margin", "0.001"]),
    ("W8A8", "W8A8", "compressed-tensors", CT, ["--margin", "0.001"]),
    ("FP8_DYNAMIC", "FP8_DYNAMIC", "compressed-tensors", CT, ["--margin", "0.001"]),
    ("GPTQ_GROUP", {"preset": "W4A16_GPTQ", "options": {"act_order": "group", "scale_dtype": "F16", **GROUPS}, **CALIBRATED}, "gptq", "check_gptq_awq.py", []),
    ("GPTQ", {"preset": "gptq-rtn", "options": GROUPS}, "gptq", "check_gptq_awq.py", []),
    ("GPTQ_8", {"preset": "gptq-rtn", "options": {"n_bits": 8, **GROUPS}}, "gptq", "check_gptq_awq.py", []),
    # gptq_v2: no reader of the full tier takes it on a CPU.
    ("GPTQ_ASYM", {"preset": "W4A16_ASYM", "options": GROUPS}, "gptq", None, []),
    ("AWQ", {"preset": "W4A16_ASYM", "options": GROUPS}, "awq", "check_gptq_awq.py", []),
    ("AWQ_SYM", {"preset": "W4A16", "options": GROUPS}, "awq", "check_gptq_awq.py", []),
    ("AWQ_CALIBRATED", {"preset": "W4A16_AWQ", "options": GROUPS, **CALIBRATED}, "awq", "check_gptq_awq.py", []),
    ("NF4", "nf4", "bitsandbytes", "check_bnb.py", []),
    ("NF4_DQ", {"preset": "nf4", "options": {"double_quant": True}}, "bitsandbytes", "check_bnb.py", []),
]
DENSE = "safetensors"


def default_text(folder):
    """English prose that ships with Python: good enough for comparing two files on the same text."""
    path = Path(folder) / "text.txt"
    path.write_text("\n\n".join(pydoc_data.topics.topics[k] for k in sorted(pydoc_data.topics.topics)))
    return path


class Run:
    def __init__(self, a, scratch):
        self.a, self.scratch, self.tally = a, Path(scratch), Tally()
        self.text = a.text or default_text(scratch)
        self.full = os.environ.get("INTEROP_PYTHON_FULL", sys.executable)

    def check(self, label, script, *arguments, python=sys.executable):
        began = time.time()
        done = subprocess.run([python, str(HERE / script), *map(str, arguments)], capture_output=True, text=True)
        lines = [l for l in done.stdout.splitlines() if l and " | " not in l]
        failures = [l for l in lines if l.startswith("FAIL")]
        print(f"{'ok  ' if done.returncode == 0 else 'FAIL'} {label} {script} ({time.time() - began:.0f} s)", flush=True)
        for line in failures[:8] + [l for l in lines if not l.startswith("FAIL")]:
            print("     " + line[:600], flush=True)
        if len(failures) > 8:
            print(f"     … {len(failures) - 8} more failures", flush=True)
        if done.returncode != 0 and not failures:
            print("     " + "\n     ".join(done.stderr.splitlines()[-12:]), flush=True)
        self.tally.check(f"{label}: {script}" if done.returncode else None)

    def job(self, service, model, label, recipe, formats):
        out = self.scratch / label
        shutil.rmtree(out, ignore_errors=True)
        began = time.time()
        try:
            folders, _ = service.compress(model, recipe, formats, out)
        except ServiceError as e:
            self.tally.check(str(e), label)
            return None
        missing = [f for f in formats if f not in folders]
        self.tally.check(f"no artifact of format {missing}, only {sorted(folders)}" if missing else None, label)
        print(f"     {label}: job took {time.time() - began:.1f} s, " + ", ".join(
            f"{f} {sum(x.stat().st_size for x in d.rglob('*') if x.is_file())} bytes" for f, d in folders.items()), flush=True)
        return None if missing else folders

    def gguf(self, service, model, kind):
        folders = self.job(service, model, kind, kind, ["gguf", DENSE])
        if not folders:
            return
        files = sorted(folders["gguf"].rglob("*.gguf"))
        self.tally.check(None if len(files) == 1 else f"{len(files)} gguf files", kind)
        peers = Path(self.a.cache) / "peers"
        if not (peers / f"{kind}.gguf").exists():
            made = subprocess.run([sys.executable, str(HERE / "make_peer_gguf.py"), self.a.model, str(peers), kind], capture_output=True, text=True)
            self.tally.check(None if made.returncode == 0 else made.stderr[-800:], f"peer {kind}")
        peer = ["--peer", peers / f"{kind}.gguf"]
        self.check(kind, "check_gguf.py", files[0], "--reference", folders[DENSE], "--source", self.a.model, *peer)
        self.check(kind, "check_llama.py", files[0], self.text, *peer, "--base", peers / "F16.gguf", "--chunks", self.a.chunks)

    def checkpoint(self, service, model, label, recipe, form, script, extra):
        folders = self.job(service, model, label, recipe, [form, DENSE])
        if not folders:
            return
        self.check(label, "check_layout.py", folders[form], "--reference", folders[DENSE], "--source", self.a.model)
        if self.a.tier == "full" and script:
            self.check(label, script, folders[form], "--reference", folders[DENSE], "--source", self.a.model, "--text", self.text,
                       "--windows", self.a.windows, "--cache", self.a.cache, *extra, python=self.full)

    def all(self):
        wanted = lambda label: re.search(self.a.only, label)
        service = CommandLine(self.a.binary) if self.a.cli else Service(self.a.binary, self.scratch / "service")
        with service:
            model = service.upload(self.a.model)
            for kind in filter(wanted, GGUF):
                self.gguf(service, model, kind)
                self.forget(kind)
            for row in CHECKPOINTS:
                if wanted(row[0]):
                    self.checkpoint(service, model, *row)
                    self.forget(row[0])
        if not self.a.cli and wanted("tus"):
            self.check("tus", "check_tus.py", "--binary", self.a.binary, "--model", self.a.model)
        if not self.a.cli and wanted("decode"):
            self.check("decode", "check_decode.py", "--binary", self.a.binary, "--model", self.a.model)
        if wanted("smaller"):
            # One row for all structures where CI runs it, each by itself with transformers.
            rows = [] if self.a.tier == "full" else ["--only", "all"]
            full = ["--full", self.full] if self.a.tier == "full" else []
            self.check("smaller", "check_smaller.py", "--binary", self.a.binary, "--model", self.a.model, "--text", self.text, *rows, *full)
        if not self.a.cli and wanted("s3"):
            self.check("s3", "check_s3.py", "--binary", self.a.binary, "--model", self.a.model)
        if self.a.tier == "full" and self.a.llama and wanted("imatrix"):
            self.check("imatrix", "check_imatrix.py", "--binary", self.a.binary, "--model", self.a.model, "--llama", self.a.llama,
                       "--text", self.text, "--kl", self.text, "--keep", self.scratch / "imatrix")
            self.forget("imatrix")
        return self.tally.finish()

    def forget(self, label):
        if not self.a.keep:
            shutil.rmtree(self.scratch / label, ignore_errors=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("tier", choices=["light", "full"])
    p.add_argument("--binary", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--text")
    p.add_argument("--cache", default=os.environ.get("INTEROP_CACHE", "interop-cache"))
    p.add_argument("--chunks", type=int, default=20, help="windows of 512 tokens in llama.cpp")
    p.add_argument("--windows", type=int, default=6, help="windows of 1,024 tokens in transformers")
    p.add_argument("--only", default="", help="a regular expression on the labels")
    p.add_argument("--cli", action="store_true", help="use `modelpress compress` instead of the HTTP API")
    p.add_argument("--llama", default=os.environ.get("LLAMA_BIN"), help="folder of llama.cpp's tools: importance matrices too")
    p.add_argument("--keep", help="keep the artifacts in this folder")
    a = p.parse_args()
    if a.keep:
        return Run(a, a.keep).all()
    with tempfile.TemporaryDirectory(prefix="modelpress-interop-") as scratch:
        return Run(a, scratch).all()


if __name__ == "__main__":
    sys.exit(main())
