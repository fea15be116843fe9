"""Packed files (`model.packed`), read with nothing but numpy.

    from modelpress import packed   # pip install modelpress[packed]

    weights = packed.load("model.packed")            # names to arrays
    with packed.open("model.packed") as file:        # or one at a time
        weight = file.tensor(file.names()[0])
    packed.to_safetensors("model.packed", "model.safetensors")

The last is a command, too: `python -m modelpress.packed model.packed model.safetensors`.

Arrays are little-endian. numpy has no floats of 8 bits and no bfloat16: their bits come as uint8 and uint16, which
`.view(ml_dtypes.bfloat16)` or torch's `.view(torch.bfloat16)` reads, and `file.info(name).dtype` tells which they are.

Owns: the reader of the container, which `src/engine/formats/packed.rs` of the server describes; the safetensors file.
Must not know: how streams are coded.
Invariant: a tensor that is handed out has the digest that the index says, and a packed file that cannot be read to its
end leaves no safetensors file; what is damaged raises `PackedFileInvalid`, before more memory is taken than the index's
bound on tensors allows.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import os
import struct
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, List, Optional, Sequence, Type

import numpy as np
from numpy.typing import NDArray

from ._files import PathLike
from ._packed_index import WIDTHS, Codebook, Damaged, Sparse, TensorInfo, parse
from .errors import ModelpressError, PackedFileInvalid, PackedStreamInvalid
from .packed_streams import Bytes, decode, decode_weights

__all__ = ["Codebook", "PackedFile", "Sparse", "TensorInfo", "load", "open", "to_safetensors"]

_MAGIC = b"MPPACKED"
# Version 1 has no tensors without zeros.
_VERSIONS = (1, 2)
_HEADER = struct.Struct("<8sQ")
_FOOTER = struct.Struct("<Q8s")
# No index is longer: a hundred thousand tensors have less.
_MOST_INDEX = 256 << 20
# Codes that are looked up at once.
_BLOCK = 1 << 18
_ODD_DTYPES = {"BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1", "BOOL": "?"}


class PackedFile:
    """A packed file whose index was read; records are read as they are asked for, from any thread."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._file = self.path.open("rb")
        try:
            self._tensors = self._index()
        except Damaged as error:
            self._file.close()
            raise PackedFileInvalid(f"{self.path}: {error}") from None
        except BaseException:
            self._file.close()
            raise

    def names(self) -> List[str]:
        """Names of the tensors, in the file's order."""
        return list(self._tensors)

    def info(self, name: str) -> TensorInfo:
        """What the index says of a tensor; `KeyError` where there is none of that name."""
        return self._tensors[name]

    def tensor(self, name: str) -> NDArray[Any]:
        """Reads and decodes a tensor, and compares its digest; `KeyError` where there is none of that name."""
        info = self.info(name)
        return self._decoded(info).reshape(info.shape)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> PackedFile:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _index(self) -> Dict[str, TensorInfo]:
        length = os.fstat(self._file.fileno()).st_size
        if length < _HEADER.size + _FOOTER.size:
            raise Damaged("it is too short")
        magic, version = _HEADER.unpack(self._bytes(0, _HEADER.size))
        size, last_magic = _FOOTER.unpack(self._bytes(length - _FOOTER.size, _FOOTER.size))
        if magic != _MAGIC:
            raise Damaged("it is no packed file")
        if version not in _VERSIONS:
            raise Damaged(f"it is of version {version}; this reads up to {_VERSIONS[-1]}")
        if last_magic != _MAGIC:
            raise Damaged("its end is missing")
        end = length - _FOOTER.size - size
        if size > _MOST_INDEX or end < _HEADER.size:
            raise Damaged(f"its index claims {size} bytes")
        return parse(self._bytes(end, size), _HEADER.size, end)

    def _bytes(self, offset: int, length: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(length)
        if len(data) != length:
            raise Damaged("it became shorter while it was read")
        return data

    def _dtype(self, info: TensorInfo) -> np.dtype[Any]:
        if info.dtype not in WIDTHS:
            raise self._invalid(info, f"numpy has nothing like {info.dtype}; read it with modelpress")
        # Of most of them numpy's name is a letter and the bytes of an element: `<f4` is F32.
        return np.dtype(_ODD_DTYPES.get(info.dtype) or f"<{info.dtype[0].lower()}{WIDTHS[info.dtype]}")

    def _decoded(self, info: TensorInfo) -> NDArray[Any]:
        """The elements in one row."""
        dtype = self._dtype(info)
        try:
            values = _decode(info, dtype, self._bytes(info.offset, info.bytes))
        except (Damaged, PackedStreamInvalid) as error:
            raise self._invalid(info, error) from error
        if hashlib.sha256(values.data).hexdigest() != info.sha256:
            raise self._invalid(info, "it does not decode to what was packed")
        return values

    def _invalid(self, info: TensorInfo, what: object) -> PackedFileInvalid:
        return PackedFileInvalid(f"{self.path}: {info.name!r}: {what}")


def open(path: PathLike) -> PackedFile:
    """Opens a packed file, to be closed or used in a `with`, and reads its index."""
    return PackedFile(path)


def load(path: PathLike) -> Dict[str, NDArray[Any]]:
    """All tensors of a packed file by their names, in the file's order."""
    with PackedFile(path) as file:
        return {name: file.tensor(name) for name in file.names()}


def to_safetensors(path: PathLike, out: PathLike) -> Path:
    """Writes the tensors of a packed file as a plain safetensors file, one at a time, and gives back where that is.

    It has its name only when every tensor was written.
    """
    target = Path(out)
    with PackedFile(path) as file:
        # Widest elements first: each tensor is aligned, as readers that map the file want it.
        infos = sorted(map(file.info, file.names()), key=lambda info: -file._dtype(info).itemsize)
        header = _safetensors_header(file, infos)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        try:
            with part.open("wb") as written:
                written.write(header)
                for info in infos:
                    written.write(file._decoded(info).data)
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    return target


def _safetensors_header(file: PackedFile, infos: Sequence[TensorInfo]) -> bytes:
    header: Dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for info in infos:
        if info.name in header:
            raise file._invalid(info, "safetensors has no tensor of that name")
        end = at + (info.decoded_bytes or 0)
        header[info.name] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _decode(info: TensorInfo, dtype: np.dtype[Any], record: bytes) -> NDArray[Any]:
    if info.codebook is not None:
        return _decode_codebook(info.elements, info.codebook, dtype, memoryview(record))
    if info.coding == "bytes":
        return decode(record, info.decoded_bytes).view(dtype)
    if info.sparse is not None:
        return _decode_sparse(info.elements, info.sparse, dtype, memoryview(record))
    return _planes(record, info.elements, dtype)


def _planes(record: Bytes, elements: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    weights = decode_weights(record, elements)
    if weights.dtype.newbyteorder("<") != dtype:
        raise Damaged("its planes are of another type")
    return weights.astype(dtype, copy=False)


def _decode_sparse(elements: int, parts: Sparse, dtype: np.dtype[Any], record: memoryview) -> NDArray[Any]:
    """The index has seen to it that there are no more values than weights."""
    mask = np.unpackbits(decode(record[: parts.mask], (elements + 7) // 8), bitorder="little").view(bool)
    if mask[elements:].any() or np.count_nonzero(mask) != parts.values:
        raise Damaged("its mask is of other weights")
    values = np.zeros(elements, dtype)
    values[mask[:elements]] = _planes(record[parts.mask :], parts.values, dtype)
    return values


def _decode_codebook(elements: int, book: Codebook, dtype: np.dtype[Any], record: memoryview) -> NDArray[Any]:
    """The index has seen to it that tables and streams are as long as the record."""
    at = book.tables * book.centroids * book.vector_size * dtype.itemsize
    centroids = np.frombuffer(record[:at], dtype).reshape(-1, book.vector_size)
    count = elements // book.vector_size
    planes = []
    for length in book.streams:
        planes.append(decode(record[at : at + length], count))
        at += length
    values = np.empty((count, book.vector_size), dtype)
    for first in range(0, count, _BLOCK):
        codes = planes[0][first : first + _BLOCK].astype(np.int64)
        if len(planes) > 1:
            codes |= planes[1][first : first + _BLOCK].astype(np.int64) << 8
        if codes.max() >= book.centroids:
            raise Damaged("a code is beyond its table")
        tables = np.arange(first, first + len(codes)) // (count // book.tables)
        values[first : first + _BLOCK] = centroids[codes + tables * book.centroids]
    return values.reshape(-1)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """`python -m modelpress.packed IN OUT`."""
    parser = argparse.ArgumentParser(
        prog="python -m modelpress.packed", description="Writes a packed file's tensors as a plain safetensors file."
    )
    parser.add_argument("packed", metavar="IN", help="model.packed")
    parser.add_argument("out", metavar="OUT", help="the safetensors file to write")
    given = parser.parse_args(arguments)
    try:
        to_safetensors(given.packed, given.out)
    except (ModelpressError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
