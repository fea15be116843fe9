#!/usr/bin/env python3
"""The whole job with files in an object store that is not the one of our own tests: moto's. The bucket is not made by us.

    check_s3.py --binary modelpress --model DIR
"""
import argparse
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import boto3
from layouts import Tally
from moto.server import ThreadedMotoServer
from service import Service

KEY = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


def digest(file):
    return "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()


def doctor(binary, data, url):
    env = {**os.environ, "MODELPRESS_DATA_DIR": str(data), "MODELPRESS_BLOB_URL": url}
    return subprocess.run([binary, "doctor"], env=env, capture_output=True, text=True)


def check(a, scratch, endpoint, bucket):
    tally = Tally()
    url = f"s3://models/some/prefix?endpoint={endpoint}&allow_http=true"
    os.environ["MODELPRESS_BLOB_URL"] = url
    with Service(a.binary, scratch / "service") as service:
        model = service.upload(a.model)
        service.compress(model, "W8A16", ["compressed-tensors"], scratch / "out")
        # A piece of an upload that is left lying.
        left = service.call("POST", "/v1/uploads", {"length": 10})["id"]
    keys = [o.key for o in bucket.objects.all()]
    tally.check(None if all(k.startswith("some/prefix/") for k in keys) and len(keys) > 4 else f"{keys}", "s3: everything is in the bucket")
    stored = {k.split("/")[3] for k in keys if k.startswith("some/prefix/labels/")}
    wanted = {digest(f)[7:] for f in a.model.iterdir() if f.is_file()} | {digest(f)[7:] for f in (scratch / "out").rglob("*") if f.is_file()}
    tally.check(None if wanted <= stored else f"missing {wanted - stored}", "s3: under its digests, as downloaded")
    tally.check(None if any(left.removeprefix("upl_") in k for k in keys) else left, "s3: an open upload is there for other servers")
    found = doctor(a.binary, scratch / "service" / "data", url)
    tally.check(None if found.returncode == 0 else found.stdout + found.stderr, "s3: doctor")
    found = doctor(a.binary, scratch / "service" / "data", url.replace("s3://models", "s3://nothing"))
    right = found.returncode == 1 and "bucket does not exist" in found.stdout
    tally.check(None if right else found.stdout + found.stderr, "s3: doctor misses a bucket")
    return tally


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", default="target/release/modelpress")
    p.add_argument("--model", type=Path, required=True)
    a = p.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    os.environ.update(KEY)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    bucket = boto3.resource("s3", endpoint_url=endpoint).create_bucket(Bucket="models")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return check(a, Path(scratch), endpoint, bucket).finish()
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
