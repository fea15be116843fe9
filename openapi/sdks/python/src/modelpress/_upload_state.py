"""What a process remembers of its uploads, so that the next one can go on with them.

Owns: small files in a cache folder, one for each file that is being uploaded, with a lock.
Must not know: how bytes are sent.
Invariant: two processes never go on with one upload: each would end the other's requests.
"""
from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from ._files import LocalFile

if sys.platform != "win32":
    import fcntl

# Servers delete unfinished uploads after a day unless told otherwise.
_FORGET_AFTER_SECONDS = 30 * 86400


def default_folder() -> Path:
    """`MODELPRESS_CACHE`, or modelpress in the user's cache folder."""
    named = os.environ.get("MODELPRESS_CACHE")
    if named:
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "modelpress"


class Memory:
    """Uploads to one server with one key."""

    def __init__(self, folder: Path, base_url: str, api_key: Optional[str]) -> None:
        self._folder = folder / "uploads"
        # `mp_<id>_<secret>`: the id is enough to tell keys apart.
        self._whose = f"{base_url}\n{(api_key or '').rpartition('_')[0]}"

    @contextmanager
    def of(self, file: LocalFile) -> Iterator["Remembered"]:
        """What is known of a file, for as long as it is being uploaded."""
        path = self._folder / f"{self._name(file)}.json"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = open(path.with_suffix(".lock"), "a")
        except OSError:
            # Without a place to write, an upload can go on after a break of the connection, but not of the process.
            yield Remembered(None, file)
            return
        with lock:
            yield Remembered(path if _locked(lock) else None, file)

    def forget(self, file: LocalFile) -> None:
        """The upload became part of a model: nothing is left to go on with."""
        for suffix in (".json", ".lock"):
            _unlink(self._folder / f"{self._name(file)}{suffix}")
        self._sweep()

    def _name(self, file: LocalFile) -> str:
        return hashlib.sha256(f"{self._whose}\n{file.path.resolve()}".encode()).hexdigest()[:32]

    def _sweep(self) -> None:
        """Drops what nobody came back for."""
        oldest = time.time() - _FORGET_AFTER_SECONDS
        for path in self._folder.glob("*.json") if self._folder.is_dir() else ():
            try:
                if path.stat().st_mtime < oldest:
                    _unlink(path)
                    _unlink(path.with_suffix(".lock"))
            except OSError:
                continue


class Remembered:
    """What is known of one file."""

    def __init__(self, path: Optional[Path], file: LocalFile) -> None:
        self._path = path
        self._now = {"bytes": file.bytes, "mtime_ns": file.mtime_ns}

    def upload(self) -> Optional[str]:
        """The upload that was begun, if the file is still what it was."""
        if self._path is None:
            return None
        try:
            known: Dict[str, Any] = json.loads(self._path.read_text("utf-8"))
            same = all(known[key] == value for key, value in self._now.items())
            return str(known["upload"]) if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, upload: str) -> None:
        if self._path is None:
            return
        beside = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            beside.write_text(json.dumps({"upload": upload, **self._now}), "utf-8")
            os.replace(beside, self._path)
        except OSError:
            _unlink(beside)


def _locked(lock: Any) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        pass
