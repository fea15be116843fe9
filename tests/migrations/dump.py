#!/usr/bin/env python3
"""Dumps the schema as it is after a migration, with a row or more in every table: what an installation of that time
holds. A test (src/server/store/conformance/upgrade.rs) brings each of them up to the newest schema.

    tests/migrations/dump.py 9        after adding migrations/*/0009_….sql: writes tests/migrations/{sqlite,postgres}/0009.sql

Needs psql and pg_dump, and a PostgreSQL at $MODELPRESS_TEST_POSTGRES_URL in which it makes and drops a database.
A dump is written once and then stays: it is what that version made.
"""

import hashlib
import os
import pathlib
import re
import sqlite3
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/migrations"


def steps(dialect, until):
    for path in sorted((ROOT / "migrations" / dialect).glob("*.sql")):
        version = int(path.name[:4])
        if version <= until:
            yield version, path.stem, path.read_text()


def rows(dialect, version):
    """Rows that the migration's time could have written; tests/migrations/rows/NNNN.sql adds to those before."""
    for path in sorted((HERE / "rows").glob("*.sql")):
        if int(path.stem) <= version:
            yield int(path.stem), path.read_text()


BOOK = {
    "sqlite": """CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);""",
    "postgres": """CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMPTZ NOT NULL DEFAULT now(),
    success BOOLEAN NOT NULL,
    checksum BYTEA NOT NULL,
    execution_time BIGINT NOT NULL
);""",
}


def script(dialect, until):
    """Migrations and rows in the order in which an installation lived through them."""
    parts = [BOOK[dialect]]
    waiting = list(rows(dialect, until))
    for version, name, text in steps(dialect, until):
        checksum = hashlib.sha384(text.encode()).hexdigest()
        literal = f"x'{checksum}'" if dialect == "sqlite" else f"'\\x{checksum}'"
        parts.append(text)
        when = "'2026-01-01 00:00:00'"
        parts.append(
            "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time)"
            f" VALUES ({version}, '{name}', {when}, true, {literal}, 0);"
        )
        while waiting and waiting[0][0] <= version:
            parts.append(waiting.pop(0)[1])
    return "\n".join(parts)


def sqlite(until):
    connection = sqlite3.connect(":memory:")
    connection.executescript(script("sqlite", until))
    return "\n".join(connection.iterdump()) + "\n"


def postgres(until):
    admin = os.environ["MODELPRESS_TEST_POSTGRES_URL"]
    name = f"modelpress_dump_{os.getpid()}"
    url = re.sub(r"/[^/]*$", f"/{name}", admin)

    def psql(url, text):
        subprocess.run(["psql", "-q", "-v", "ON_ERROR_STOP=1", url], input=text, text=True, check=True)

    psql(admin, f"CREATE DATABASE {name}")
    try:
        psql(url, script("postgres", until))
        dump = subprocess.run(
            ["pg_dump", "--inserts", "--no-owner", "--no-privileges", "--no-comments", url],
            check=True, capture_output=True, text=True,
        ).stdout
    finally:
        psql(admin, f"DROP DATABASE {name}")
    lines = [
        line.replace("public.", "")
        for line in dump.splitlines()
        if line and not re.match(r"(--|SET |SELECT pg_catalog|\\)", line)
    ]
    return "\n".join(lines) + "\n"


def main():
    until = int(sys.argv[1])
    for dialect, dump in (("sqlite", sqlite), ("postgres", postgres)):
        path = HERE / dialect / f"{until:04}.sql"
        path.parent.mkdir(exist_ok=True)
        path.write_text(dump(until))
        print(path.relative_to(ROOT))


main()
