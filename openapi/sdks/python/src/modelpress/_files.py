"""Files on this machine: which of them are a model or dataset, and their bytes on the way out and in.

Owns: the choice, hashing, partial files.
Must not know: HTTP.
Invariant: a digest is of the bytes that went through here, each of them hashed once.
"""
from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from threading import Event as Flag
from typing import Callable, Iterable, Iterator, List, Optional, Sequence, Union

from .errors import DigestMismatch, UploadInvalid

PathLike = Union[str, "os.PathLike[str]"]
BLOCK = 1 << 20
# What the server takes of a repository when it brings a model itself: weights, and what lies beside them.
_BESIDE = {".jinja", ".json", ".model", ".tiktoken"}
_TEXTS = {"merges.txt", "vocab.txt"}
_DATASETS = {".txt", ".jsonl", ".npy", ".safetensors", ".gguf", ".dat"}


class Stopped(Exception):
    """Another file of the set failed; this one is given up."""


@dataclass(frozen=True)
class LocalFile:
    """A file to upload."""

    name: str
    """Its path in the model, with `/`."""
    path: Path
    bytes: int
    mtime_ns: int


def model_files(path: PathLike, include: Optional[Sequence[str]] = None) -> List[LocalFile]:
    """The files of a model: a GGUF or safetensors file, or a folder's.

    Of a folder those that `include` names (`*` stands for anything), or else its safetensors with configuration and
    tokenizer, or its one GGUF file.
    """
    root = Path(path)
    if root.is_file():
        return [_local(root.name, root)]
    if not root.is_dir():
        raise UploadInvalid(f"{root} is neither a file nor a folder")
    files = sorted(_below(root), key=lambda file: file.name)
    chosen = [file for file in files if _is_among(file.name, include)] if include else _usual(root, files)
    if not chosen:
        raise UploadInvalid(f"{root} has no file that include names ({', '.join(include or [])})")
    return chosen


def dataset_files(paths: Union[PathLike, Iterable[PathLike]]) -> List[LocalFile]:
    """The files of a dataset: those named, or those of a folder that a dataset can have."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    files: List[LocalFile] = []
    for path in map(Path, given):
        if path.is_dir():
            files += [file for file in _below(path) if file.path.suffix.lower() in _DATASETS]
        elif path.is_file():
            files.append(_local(path.name, path))
        else:
            raise UploadInvalid(f"{path} is neither a file nor a folder")
    if not files:
        raise UploadInvalid(f"no files of a dataset ({', '.join(sorted(_DATASETS))}) in {', '.join(map(str, given))}")
    names = [file.name for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UploadInvalid(f"several files of a dataset have one name: {', '.join(twice)}")
    return sorted(files, key=lambda file: file.name)


def _usual(root: Path, files: List[LocalFile]) -> List[LocalFile]:
    weights = [file for file in files if file.path.suffix == ".safetensors"]
    if weights:
        # Some folders hold the same weights again in the layout that their makers use.
        main = [file for file in weights if "/" not in file.name and file.name.startswith("model")]
        kept = [file for file in weights if file in main or "/" in file.name] if main else weights
        return kept + [file for file in files if file.path.suffix in _BESIDE or file.name in _TEXTS]
    gguf = [file for file in files if file.path.suffix == ".gguf"]
    if len(gguf) == 1:
        return gguf
    if gguf:
        names = ", ".join(file.name for file in gguf[:6])
        raise UploadInvalid(f"{root} has {len(gguf)} GGUF files, each of them a model; name one with include: {names}")
    raise UploadInvalid(f"{root} has neither safetensors nor a GGUF file; name other files with include")


def _is_among(name: str, include: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in include)


def _below(root: Path) -> Iterator[LocalFile]:
    """Files of a folder and its folders, but nothing hidden (`.git`, `.cache`)."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file():
                yield _local(path.relative_to(root).as_posix(), path)


def _local(name: str, path: Path) -> LocalFile:
    at = path.stat()
    return LocalFile(name, path, at.st_size, at.st_mtime_ns)


class Outgoing:
    """A file's bytes on their way to the server, from wherever it wants them."""

    def __init__(self, file: LocalFile, stopped: Flag, sent: Callable[[int], None]) -> None:
        self.file = file
        self._stopped, self._sent = stopped, sent
        self._hash, self._hashed = hashlib.sha256(), 0
        self._counted = 0

    def take_counted(self) -> int:
        """Bytes that were called sent since this was last asked; not all of them need have arrived."""
        counted, self._counted = self._counted, 0
        return counted

    def pieces(self, offset: int, length: int) -> Iterator[bytes]:
        """Bytes from there on."""
        self._catch_up(offset)
        with self.file.path.open("rb") as f:
            f.seek(offset)
            end = offset + length
            while offset < end:
                self._check()
                piece = self._read(f.read(min(BLOCK, end - offset)))
                self._take(offset, piece)
                offset += len(piece)
                yield piece
                self._counted += len(piece)
                self._sent(len(piece))

    def digest(self) -> str:
        """SHA-256 of the whole file, as the server writes it."""
        self._catch_up(self.file.bytes)
        return f"sha256:{self._hash.hexdigest()}"

    def _catch_up(self, offset: int) -> None:
        """Hashes what the server has had from an earlier process."""
        with self.file.path.open("rb") as f:
            f.seek(self._hashed)
            while self._hashed < offset:
                self._check()
                self._take(self._hashed, self._read(f.read(min(BLOCK, offset - self._hashed))))

    def _take(self, offset: int, piece: bytes) -> None:
        # What is sent again after a break was hashed the first time.
        new = piece[max(0, self._hashed - offset) :]
        self._hash.update(new)
        self._hashed += len(new)

    def _read(self, piece: bytes) -> bytes:
        if not piece:
            raise UploadInvalid(f"{self.file.path} became shorter while it was uploaded")
        return piece

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Stopped


class Incoming:
    """A file on its way here: goes on with what an earlier try left, and has its name only when all is there."""

    def __init__(self, folder: Path, name: str, bytes: int, digest: str) -> None:
        self.target = safe_target(folder, name)
        self.bytes, self.digest = bytes, digest
        self.part = self.target.with_name(self.target.name + ".part")
        self._hash, self.offset = hashlib.sha256(), 0

    def is_there(self) -> bool:
        """True if the very file is there already."""
        if not self.target.is_file() or self.target.stat().st_size != self.bytes:
            return False
        return f"sha256:{_hashed(self.target).hexdigest()}" == self.digest

    def resume(self) -> None:
        """Takes up what is there of it."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        if self.part.is_file() and self.part.stat().st_size <= self.bytes:
            self._hash, self.offset = _hashed(self.part), self.part.stat().st_size
        else:
            self.restart()

    def restart(self) -> None:
        self.part.write_bytes(b"")
        self._hash, self.offset = hashlib.sha256(), 0

    def write(self, piece: bytes) -> None:
        with self.part.open("ab") as f:
            f.write(piece)
        self._hash.update(piece)
        self.offset += len(piece)

    def finish(self) -> Path:
        """Checks the digest and gives the file its name."""
        if f"sha256:{self._hash.hexdigest()}" != self.digest:
            self.part.unlink()
            raise DigestMismatch(f"{self.target.name} arrived with other bytes than the server has; it was deleted")
        os.replace(self.part, self.target)
        return self.target


def safe_target(folder: Path, name: str) -> Path:
    """Where a file of that name goes; never outside of the folder, whatever a server calls it."""
    parts = PurePosixPath(name).parts
    odd = not parts or name.startswith("/") or any(part == ".." or "\\" in part or ":" in part for part in parts)
    if odd:
        raise DigestMismatch(f"the server names a file {name!r}, which is no relative path")
    return folder.joinpath(*parts)


def _hashed(path: Path) -> "hashlib._Hash":
    found = hashlib.sha256()
    with path.open("rb") as f:
        while True:
            piece = f.read(BLOCK)
            if not piece:
                return found
            found.update(piece)
