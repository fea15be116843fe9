"""Packed files as the server's documentation describes them, with the forms of streams that need no code."""
from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from typing import Any, Dict, List, Sequence, Tuple, Union

MAGIC = b"MPPACKED"
PLANES = {"BF16": (0, 2), "F16": (1, 2), "F32": (2, 4)}


@dataclass
class Packed:
    """A tensor and how it is packed."""

    name: str
    dtype: str
    shape: Tuple[int, ...]
    coding: Union[str, Dict[str, Any]]
    record: bytes
    values: bytes
    """What it decodes to."""


def stream(symbols: bytes) -> bytes:
    """Repeated where that is possible, otherwise stored."""
    if symbols and len(set(symbols)) == 1:
        return struct.pack("<BBBBIQ", 1, 1, 18, 0, 1, len(symbols)) + symbols[:1]
    return struct.pack("<BBBBIQ", 1, 0, 18, 0, 0, len(symbols)) + symbols


def planes(name: str, dtype: str, shape: Tuple[int, ...], values: bytes) -> Packed:
    kind, width = PLANES[dtype]
    numbers = [int.from_bytes(values[at : at + width], "little") for at in range(0, len(values), width)]
    if dtype != "F16":
        # The sign changes places with the exponent's eight bits.
        top = 8 * width - 1
        sign, exponent = 1 << top, 0xFF << top - 8
        numbers = [(n & exponent) << 1 | (n & sign) >> 8 | n & ~(sign | exponent) for n in numbers]
    parts = [stream(bytes(n >> 8 * place & 255 for n in numbers)) for place in reversed(range(width))]
    head = struct.pack("<BBB5xQ", 1, kind, width, len(numbers))
    lengths = struct.pack(f"<{width}Q", *map(len, parts))
    return Packed(name, dtype, shape, "planes", head + lengths + b"".join(parts), values)


def sparse(name: str, dtype: str, shape: Tuple[int, ...], values: bytes) -> Packed:
    """Without its zeros."""
    width = PLANES[dtype][1]
    weights = [values[at : at + width] for at in range(0, len(values), width)]
    mask = bytearray((len(weights) + 7) // 8)
    for at, weight in enumerate(weights):
        mask[at // 8] |= any(weight) << at % 8
    kept = [weight for weight in weights if any(weight)]
    head = stream(bytes(mask))
    rest = planes(name, dtype, (len(kept),), b"".join(kept)).record
    return Packed(name, dtype, shape, {"sparse": {"mask": len(head), "values": len(kept)}}, head + rest, values)


def plain(name: str, dtype: str, shape: Tuple[int, ...], values: bytes) -> Packed:
    return Packed(name, dtype, shape, "bytes", stream(values), values)


def codebook(
    name: str, dtype: str, shape: Tuple[int, ...], tables: Sequence[Sequence[bytes]], codes: Sequence[int]
) -> Packed:
    """Of tables of centroids, each of them the bytes of `vector_size` elements."""
    streams = [stream(bytes(code & 255 for code in codes))]
    if len(tables[0]) > 256:
        streams.append(stream(bytes(code >> 8 for code in codes)))
    return coded_codebook(name, dtype, shape, tables, codes, streams)


def coded_codebook(
    name: str,
    dtype: str,
    shape: Tuple[int, ...],
    tables: Sequence[Sequence[bytes]],
    codes: Sequence[int],
    streams: Sequence[bytes],
) -> Packed:
    """The same with streams that somebody else coded."""
    centroids, width = len(tables[0]), {"BF16": 2, "F16": 2, "F32": 4}[dtype]
    coding = {
        "centroids": centroids, "vector_size": len(tables[0][0]) // width, "tables": len(tables),
        "streams": [len(part) for part in streams],
    }  # fmt: skip
    record = b"".join(centroid for table in tables for centroid in table) + b"".join(streams)
    run = len(codes) // len(tables)
    values = b"".join(tables[at // run][code] for at, code in enumerate(codes))
    return Packed(name, dtype, shape, {"codebook": coding}, record, values)


def index(tensors: Sequence[Packed]) -> Dict[str, List[Dict[str, Any]]]:
    entries, at = [], 16
    for tensor in tensors:
        entries.append(
            {
                "name": tensor.name, "dtype": tensor.dtype, "shape": tensor.shape, "offset": at,
                "bytes": len(tensor.record), "sha256": hashlib.sha256(tensor.values).hexdigest(),
                "coding": tensor.coding,
            }  # fmt: skip
        )
        at += len(tensor.record)
    return {"tensors": entries}


def file(records: bytes, index: Union[bytes, Dict[str, Any]], version: int = 2) -> bytes:
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    return MAGIC + struct.pack("<Q", version) + records + text + struct.pack("<Q", len(text)) + MAGIC


def packed_file(tensors: Sequence[Packed]) -> bytes:
    return file(b"".join(tensor.record for tensor in tensors), index(tensors))
