#!/usr/bin/env python3
"""Soak: uploads, jobs, cancels and downloads against one server and three workers on PostgreSQL and a shared folder, while
workers and the server are killed (kill -9) and the database is restarted; then what must always hold is checked.

    tests/soak/soak.py --minutes 3
    tests/soak/soak.py --minutes 480 --binary target/release/modelpress --seed 7

It makes a PostgreSQL of its own (initdb, pg_ctl) in a temporary folder, needs only Python's library, and ends with the
number of violations; exit code 1 if there are any.
"""

import argparse
import collections
import glob
import hashlib
import http.client
import json
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
OVER = ("succeeded", "failed", "cancelled")
LEASE = 6
CLIENTS = 4


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """A PostgreSQL of its own."""

    def __init__(self, folder):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
        initdb = found[-1] if found else shutil.which("initdb")
        if not initdb:
            raise SystemExit("soak.py needs PostgreSQL's initdb and pg_ctl")
        self.bin, self.port = pathlib.Path(initdb).parent, free_port()
        self.base, self.data = folder / "postgres", folder / "postgres/data"
        self.base.mkdir()
        self.user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        if self.user:
            os.chmod(folder, 0o755)
            os.chown(self.base, self.user.pw_uid, self.user.pw_gid)
        self.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C")
        with open(self.data / "postgresql.conf", "a") as conf:
            conf.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\nmax_connections = 200\n"
            )
        self.control("start", "-w")
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def run(self, program, *args):
        kwargs = {"user": self.user.pw_uid, "group": self.user.pw_gid} if self.user else {}
        subprocess.run([str(self.bin / program), *map(str, args)], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, cwd=self.base, **kwargs)

    def control(self, *args):
        self.run("pg_ctl", "-D", self.data, "-l", self.base / "log", *args)

    def rows(self, query):
        out = subprocess.run([str(self.bin / "psql"), "-qAtF", "\t", self.url, "-c", query], check=True,
                             capture_output=True, text=True).stdout
        return [line.split("\t") for line in out.splitlines()]


class Site:
    """The processes: one server, workers, the database."""

    def __init__(self, binary, folder, workers):
        self.binary, self.folder, self.data = binary, folder, folder / "data"
        self.cluster = Cluster(folder)
        self.port, self.log = free_port(), open(folder / "log", "ab")
        self.lock = threading.Lock()
        self.server = self.start("serve", MODELPRESS_WORKERS="0")
        self.workers = [self.start("worker", MODELPRESS_WORKERS="1") for _ in range(workers)]
        self.wait_ready()

    def start(self, verb, **extra):
        environment = {
            **os.environ,
            "MODELPRESS_DATABASE_URL": self.cluster.url,
            "MODELPRESS_DATA_DIR": str(self.data),
            "MODELPRESS_LISTEN": f"127.0.0.1:{self.port}",
            "MODELPRESS_LEASE_SECONDS": str(LEASE),
            "MODELPRESS_WORKER_THREADS": "1",
            "MODELPRESS_RESERVE_BYTES": "1MiB",
            "MODELPRESS_LOG_FORMAT": "json",
            "MODELPRESS_CURSOR_SECRET": "the same for the whole soak",
            **extra,
        }
        return subprocess.Popen([self.binary, verb], env=environment, stdout=self.log, stderr=self.log)

    def wait_ready(self, patience=60):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            try:
                if Api(self.port).get("/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise SystemExit(f"the server does not get ready; its log is {self.folder}/log")

    def kill_a_worker(self, chance):
        with self.lock:
            which = chance.randrange(len(self.workers))
            self.workers[which].send_signal(signal.SIGKILL)
            self.workers[which].wait()
            self.workers[which] = self.start("worker", MODELPRESS_WORKERS="1")

    def kill_the_server(self):
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()
        self.server = self.start("serve", MODELPRESS_WORKERS="0")

    def stop(self):
        for process in [*self.workers, self.server]:
            process.terminate()
        return [process.wait(timeout=60) for process in [*self.workers, self.server]]


class Api:
    """One connection; an outage is an OSError."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method, path, body=None, headers=()):
        try:
            self.connection.request(method, path, body=body, headers=dict(headers))
            answer = self.connection.getresponse()
            return answer.status, answer.read(), answer.headers
        except (http.client.HTTPException, OSError) as error:
            self.connection.close()
            raise OSError(str(error)) from error

    def get(self, path):
        return self.ask("GET", path)

    def json(self, method, path, body=None, **headers):
        text = None if body is None else json.dumps(body)
        named = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        status, answer, _ = self.ask(method, path, text, named)
        return status, json.loads(answer) if answer else None


def model(number):
    """A safetensors file; the larger the number, the longer a job on it takes."""
    shapes = {"a.weight": [64, 256], "b.weight": [128 * (1 + number % 4), 1024]}
    chance, header, data = random.Random(number), {}, b""
    for name, shape in shapes.items():
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + size]}
        piece = struct.pack("<256f", *(chance.uniform(-1, 1) for _ in range(256)))
        data += piece * (size // len(piece))
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + data


RECIPES = [
    {"recipe": "W8A16", "formats": ["safetensors"]},
    {"recipe": "FP8_DYNAMIC", "formats": ["safetensors"]},
    {"recipe": {"preset": "W4A16", "options": {"group_size": 64}}, "formats": ["safetensors"]},
    {"recipe": {"preset": "W4A16_ASYM", "options": {"group_size": 32}}, "formats": ["safetensors"]},
]


class Client(threading.Thread):
    """Somebody who works with the server, whatever happens to it."""

    def __init__(self, soak, number):
        super().__init__(daemon=True)
        self.soak, self.number = soak, number
        self.api = Api(soak.site.port)
        self.chance = random.Random(f"{soak.seed}-{number}")
        self.serial = 0

    def run(self):
        while not self.soak.stopping.is_set():
            try:
                self.turn()
            except OSError:
                self.soak.count("outages")
                time.sleep(0.3)
            except Exception as error:  # A client that dies would hide what it saw.
                self.soak.violation(f"client {self.number}: {error!r}")
                time.sleep(1)

    def turn(self):
        which = self.chance.randrange(6)
        ready = self.upload(which)
        asked = dict(self.chance.choice(RECIPES), model=ready)
        job = self.ask_for_job(asked)
        if job is None:
            return
        self.soak.accept(job, which, asked)
        if self.chance.random() < 0.2:
            time.sleep(self.chance.random())
            status, _ = self.api.json("POST", f"/v1/jobs/{job}/cancel")
            self.expect(status, (200, 202, 409), "cancel")
        if self.chance.random() < 0.5:
            self.follow(job)

    def expect(self, status, good, what):
        """5xx during an outage is an outage."""
        if status >= 500:
            raise OSError(f"{what}: {status}")
        if status not in good:
            raise AssertionError(f"{what}: {status}")

    def upload(self, which):
        content = model(which)
        status, made = self.api.json("POST", "/v1/models", {})
        self.expect(status, (201,), "a draft")
        path = f"/v1/models/{made['id']}"
        if self.chance.random() < 0.5:
            status, _, _ = self.api.ask("PUT", f"{path}/files/model.safetensors", content)
            self.expect(status, (200, 201), "a file")
        else:
            upload = self.by_offset(content)
            status, answer = self.api.json("POST", "/v1/models", {"files": [{"name": "model.safetensors", "upload": upload}]})
            self.expect(status, (201,), f"a model of an upload: {answer}")
            self.soak.count("uploads by offset")
            return answer["id"]
        status, answer = self.api.json("POST", f"{path}/commit")
        self.expect(status, (200, 409), f"a commit: {answer}")
        self.soak.count("uploads")
        return made["id"]

    def by_offset(self, content):
        """In two pieces, and after a break where the server says."""
        status, made = self.api.json("POST", "/v1/uploads", {"length": len(content)})
        self.expect(status, (201,), "an upload")
        path, offset = f"/v1/uploads/{made['id']}", 0
        while offset < len(content):
            end = len(content) if offset else len(content) // 2
            headers = {"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"}
            try:
                status, _, answered = self.api.ask("PATCH", path, content[offset:end], headers)
            except OSError:
                status, answered = 0, {}
            if status in (200, 204):
                offset = int(answered["Upload-Offset"])
                continue
            if self.soak.stopping.is_set():
                raise OSError("stopping")
            time.sleep(0.3)
            status, _, answered = self.api.ask("HEAD", path)
            self.expect(status, (200, 204), "an offset")
            offset = int(answered["Upload-Offset"])
        return made["id"]

    def ask_for_job(self, asked):
        """Asked again with the same key until there is an answer: it must always be the same job."""
        self.serial += 1
        key, seen = f"{self.soak.seed}-{self.number}-{self.serial}", None
        for _ in range(60):
            try:
                status, job = self.api.json("POST", "/v1/jobs", asked, Idempotency_Key=key)
            except OSError:
                time.sleep(0.3)
                continue
            if status >= 500:
                time.sleep(0.3)
                continue
            self.expect(status, (202,), f"a job: {job}")
            if seen not in (None, job["id"]):
                self.soak.violation(f"key {key} made {seen} and {job['id']}")
            if seen is None and self.chance.random() < 0.3:
                seen = job["id"]
                continue
            return job["id"]
        return seen

    def follow(self, job):
        end = time.monotonic() + 20
        while time.monotonic() < end and not self.soak.stopping.is_set():
            status, found = self.api.json("GET", f"/v1/jobs/{job}")
            self.expect(status, (200,), "a job")
            if found["status"] in OVER:
                for artifact in found.get("artifacts") or []:
                    self.soak.download(self.api, artifact)
                return
            time.sleep(0.2)


class Soak:
    def __init__(self, site, seed, server_lives):
        self.site, self.seed, self.server_lives = site, seed, server_lives
        self.stopping, self.lock = threading.Event(), threading.Lock()
        self.jobs, self.counts, self.violations = {}, collections.Counter(), []

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def violation(self, text):
        with self.lock:
            self.violations.append(text)
        print(f"VIOLATION: {text}", flush=True)

    def accept(self, job, which, asked):
        with self.lock:
            self.jobs[job] = (which, json.dumps([asked["recipe"], asked["formats"]]), asked["formats"])

    def download(self, api, artifact):
        """The artifact's files, and whether they are what they say."""
        status, found = api.json("GET", f"/v1/artifacts/{artifact}")
        if status >= 500:
            raise OSError("outage")
        if status != 200:
            return self.violation(f"artifact {artifact}: {status}")
        for file in found["files"]:
            status, content, _ = api.get(f"/v1/artifacts/{artifact}/files/{file['name']}")
            if status >= 500:
                raise OSError("outage")
            digest = hashlib.sha256(content).hexdigest()
            if status != 200 or digest != file["digest"].removeprefix("sha256:"):
                self.violation(f"{artifact}/{file['name']}: {status}, {digest} instead of {file['digest']}")
        self.count("downloads")
        return [(file["name"], file["digest"]) for file in found["files"]]

    def run(self, seconds):
        clients = [Client(self, number) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        chance, begun = random.Random(self.seed), time.monotonic()
        next_kill, next_restart = 20, 35
        next_death = 50 if self.server_lives else float("inf")
        while (passed := time.monotonic() - begun) < seconds:
            if passed >= next_kill:
                self.site.kill_a_worker(chance)
                self.count("workers killed")
                next_kill += 20
            if passed >= next_restart:
                self.site.cluster.control("restart", "-w", "-m", chance.choice(["fast", "immediate"]))
                self.count("database restarts")
                next_restart += 45
            if passed >= next_death:
                self.site.kill_the_server()
                self.count("server killed")
                next_death += self.server_lives
            if self.site.server.poll() is not None:
                self.violation(f"the server ended: {self.site.server.returncode}")
                break
            time.sleep(0.5)
        self.stopping.set()
        for client in clients:
            client.join(timeout=90)
        self.site.wait_ready()
        self.settle()
        self.check()
        return len(self.violations)

    def settle(self):
        """Waits until every job is over."""
        end = time.monotonic() + 180
        while time.monotonic() < end:
            left = self.site.cluster.rows("SELECT count(*) FROM job WHERE state IN ('queued', 'running')")
            if left == [["0"]]:
                return
            time.sleep(1)
        for job, state in self.site.cluster.rows("SELECT id, state FROM job WHERE state IN ('queued', 'running')"):
            self.violation(f"{job} is still {state}")

    def check(self):
        api, made = Api(self.site.port), collections.defaultdict(set)
        for job, (which, recipe, formats) in self.jobs.items():
            status, found = api.json("GET", f"/v1/jobs/{job}")
            if status != 200:
                self.violation(f"{job} was accepted and is lost: {status}")
                continue
            self.counts[found["status"]] += 1
            if found["status"] == "failed" and found["error"]["code"] != "worker_lost":
                self.violation(f"{job} failed: {found['error']}")
            self.check_events(api, job, found["status"])
            artifacts = found.get("artifacts") or []
            if len(artifacts) != (len(formats) if found["status"] == "succeeded" else 0):
                self.violation(f"{job} is {found['status']} and has {len(artifacts)} artifacts")
            files = [file for artifact in artifacts for file in self.download(api, artifact) or []]
            if found["status"] == "succeeded":
                made[which, recipe].add(tuple(sorted(files)))
        for (which, recipe), sets in made.items():
            if len(sets) > 1:
                self.violation(f"model {which} with {recipe} gave {len(sets)} different results")
        self.check_rows()
        self.check_files()

    def check_events(self, api, job, state):
        events, after = [], 0
        while True:
            status, page = api.json("GET", f"/v1/jobs/{job}/events?limit=100" + (f"&after={after}" if after else ""))
            if status != 200:
                return self.violation(f"events of {job}: {status}")
            events += page["data"]
            if not page.get("has_more"):
                break
            after = page["next_cursor"]
        numbers = [event["seq"] for event in events]
        if numbers != list(range(1, len(numbers) + 1)):
            self.violation(f"events of {job} are {numbers}")
        ends = [event["message"] for event in events if event["message"].removeprefix("job is ") in OVER]
        if ends != [f"job is {state}"] or events[-1]["message"] != ends[-1]:
            self.violation(f"{job} is {state} and ended as {ends}")

    def check_rows(self):
        known = {row[0] for row in self.site.cluster.rows("SELECT id FROM job")}
        for strange in known - set(self.jobs):
            # Made by a request whose answer nobody got, while the soak was stopping.
            self.counts["jobs without an answer"] += 1
        for query, what in (
            ("SELECT job_id || ' ' || format FROM artifact GROUP BY job_id, format HAVING count(*) > 1", "published twice"),
            ("SELECT job_id FROM job_attempt WHERE ended_at IS NULL", "has an attempt without an end"),
            ("SELECT job_id FROM pending_blob", "is over and announces blobs"),
            ("SELECT id FROM job WHERE (state = 'succeeded') <> EXISTS (SELECT FROM artifact a WHERE a.job_id = job.id)",
             "has not what its state says"),
        ):
            for (row,) in self.site.cluster.rows(query):
                self.violation(f"{row} {what}")

    def check_files(self):
        """Everything ages by two days, and everybody begins anew: the sweep and the workers clean up."""
        self.site.stop()
        blobs = self.site.data / "store/blobs"
        old = time.time() - 2 * 86400
        for path in blobs.rglob("*"):
            if path.is_file():
                os.utime(path, (old, old))
        self.site.server = self.site.start("serve", MODELPRESS_WORKERS="0")
        self.site.workers = [self.site.start("worker", MODELPRESS_WORKERS="1")]
        self.site.wait_ready()
        tables = [row[0] for row in self.site.cluster.rows(
            "SELECT table_name FROM information_schema.columns WHERE column_name = 'digest' AND table_schema = 'public'"
            " AND table_name NOT IN ('model', 'dataset', 'artifact')")]
        union = " UNION ".join(f"SELECT digest FROM {table} WHERE digest IS NOT NULL" for table in tables)
        wanted = {row[0].removeprefix("sha256:") for row in self.site.cluster.rows(union)}
        end = time.monotonic() + 30
        while True:
            there = {path.name for path in blobs.rglob("*") if path.is_file()}
            left = sum(1 for path in (self.site.data / "scratch").rglob("*") if path.is_file())
            if there <= wanted and left <= 1 or time.monotonic() > end:
                break
            time.sleep(0.5)
        for name in sorted(there - wanted):
            self.violation(f"blob {name} is nobody's and stays")
        for name in sorted(wanted - there):
            self.violation(f"blob {name} is referred to and gone")
        if left > 1:
            self.violation(f"{left} files are left in scratch")
        codes = self.site.stop()
        if any(codes):
            self.violation(f"processes ended with {codes}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--binary", default=None)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--server-lives", type=float, default=75,
                        help="seconds after which the server is killed, again and again; 0: never")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the folder with data and logs")
    args = parser.parse_args()
    candidates = [args.binary] if args.binary else [ROOT / "target/release/modelpress", ROOT / "target/debug/modelpress"]
    binary = next((str(path) for path in candidates if pathlib.Path(path).exists()), None)
    if binary is None:
        raise SystemExit("build modelpress first, or name it with --binary")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="modelpress-soak-"))
    site = Site(os.path.abspath(binary), folder, args.workers)
    soak = Soak(site, args.seed, args.server_lives)
    try:
        violations = soak.run(args.minutes * 60)
    finally:
        for process in [*site.workers, site.server]:
            process.kill()
        try:
            site.cluster.control("stop", "-m", "immediate")
        except subprocess.CalledProcessError:
            pass
    print(f"{len(soak.jobs)} jobs; " + ", ".join(f"{what}: {n}" for what, n in sorted(soak.counts.items())))
    print(f"{violations} violations (seed {args.seed})")
    if args.keep or violations:
        print(f"data and logs: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(1 if violations else 0)


main()
