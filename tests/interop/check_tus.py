#!/usr/bin/env python3
"""A model uploaded by tuspy, the tus client of its makers: in pieces with checksums, given up in the middle, gone on with.

    check_tus.py --binary modelpress --model DIR
"""
import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

from layouts import Tally
from service import Service
from tusclient.client import TusClient

PIECE = 8 << 20


def upload(service, file):
    """The upload's id; the first client sends one piece and is never heard of again."""
    client = TusClient(f"{service.base}/v1/uploads")
    first = client.uploader(str(file), chunk_size=PIECE, upload_checksum=True, metadata={"filename": file.name})
    first.upload_chunk()
    second = client.uploader(str(file), url=first.url, chunk_size=PIECE, upload_checksum=True)
    stood = second.offset
    second.upload()
    return first.url.rsplit("/", 1)[1], stood


def check(service, model):
    tally = Tally()
    files = sorted(f for f in model.iterdir() if f.suffix in (".json", ".safetensors"))
    sent = []
    for file in files:
        id, stood = upload(service, file)
        size, got = file.stat().st_size, service.call("GET", f"/v1/uploads/{id}")
        digest = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
        tally.check(None if stood == min(PIECE, size) else f"stood at {stood}", f"tus: {file.name} goes on")
        right = got["status"] == "complete" and got["digest"] == digest and got["length"] == size
        tally.check(None if right else f"{got}, should be {digest}", f"tus: {file.name} arrives")
        sent.append({"name": file.name, "upload": id})
    made = service.call("POST", "/v1/models", {"files": sent})
    tally.check(None if made["status"] == "ready" else str(made), "tus: a model of these files")
    return tally


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", default="target/release/modelpress")
    p.add_argument("--model", type=Path, required=True)
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as scratch, Service(a.binary, scratch) as service:
        return check(service, a.model).finish()


if __name__ == "__main__":
    sys.exit(main())
