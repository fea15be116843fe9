"""The index of a packed file: what it says of each tensor, and whether that can be.

Owns: types and their widths, the checks of names, shapes, codings and places that need no record to be read.
Must not know: files, how a record is decoded.
Invariant: an index that was read has records that lie within the file and do not overlap, shapes that fit their types
and codings, and no more bytes of tensors than `_MOST_GROWTH` allows; all else raises `Damaged`.
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import Any, Dict, List, Mapping, Optional, Tuple

WIDTHS: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of an element by the name of its type."""
_PLANES = {"BF16", "F16", "F32"}
# numpy 1 has no arrays of more dimensions.
_MOST_SIDES = 32
_MOST_CENTROIDS = 1 << 16
# A run of one symbol takes 17 bytes, however long: without a bound a small file could fill any disk. Real weights stay
# far below; what is added lets a small file have tensors of zeros.
_MOST_GROWTH = 4096
_ALWAYS_ALLOWED = 64 << 20


class Damaged(ValueError):
    """What is wrong, not yet with the file's name."""


@dataclass(frozen=True)
class Codebook:
    """How a record holds codes and their tables."""

    centroids: int
    """Centroids of each table."""
    vector_size: int
    """Consecutive weights that one code stands for."""
    tables: int
    """One for the whole tensor, or one for each of as many equally long runs of its weights."""
    streams: Tuple[int, ...]
    """Bytes of the streams of codes: one, or with more than 256 centroids low and high bytes."""


@dataclass(frozen=True)
class Sparse:
    """How a record holds weights without their zeros: a stream of a mask, then planes."""

    mask: int
    """Bytes of the stream."""
    values: int
    """Weights that have a bit in the mask."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor and its record, as the index has them."""

    name: str
    dtype: str
    """As safetensors spells it, `BF16`; or ggml's name of a type of blocks, `Q4_K`."""
    shape: Tuple[int, ...]
    coding: str
    """`planes`, `sparse`, `bytes` or `codebook`."""
    offset: int
    """Where its record begins in the file."""
    bytes: int
    """Bytes of its record."""
    sha256: str
    """Digest of the decoded bytes, in hexadecimal digits."""
    codebook: Optional[Codebook] = None
    """For `codebook`."""
    sparse: Optional[Sparse] = None
    """For `sparse`."""

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def decoded_bytes(self) -> Optional[int]:
        """Bytes of the tensor; None for types of blocks, which are not decoded here."""
        width = WIDTHS.get(self.dtype)
        return None if width is None else width * self.elements


def parse(data: bytes, first: int, end: int) -> Dict[str, TensorInfo]:
    """The tensors by name, in the order of their records.

    - data: the index.
    - first, end: where the records begin and end in the file.
    """
    found: Dict[str, TensorInfo] = {}
    at, decoded = first, 0
    for entry in _entries(data):
        info = _tensor(entry)
        if info.name in found:
            raise Damaged(f"{info.name!r} is in it twice")
        if info.offset < at or info.bytes > end - info.offset:
            raise Damaged(f"the record of {info.name!r} lies outside of its place")
        at = info.offset + info.bytes
        decoded += info.decoded_bytes or 0
        found[info.name] = info
    if decoded > _MOST_GROWTH * end + _ALWAYS_ALLOWED:
        raise Damaged(f"its tensors claim {decoded} bytes, too much for a file of this length")
    return found


def _entries(data: bytes) -> List[Any]:
    try:
        index = json.loads(data.decode("utf-8"), parse_int=_integer)
    except RecursionError:
        raise Damaged("its index is nested too deeply") from None
    except ValueError as error:
        raise Damaged(f"its index is no JSON: {error}") from None
    tensors = index.get("tensors") if isinstance(index, dict) else None
    if not isinstance(tensors, list):
        raise Damaged("its index has no list of tensors")
    return tensors


def _integer(digits: str) -> int:
    # Python takes quadratic time for long ones, or refuses them in its own words.
    if len(digits) > 20:
        raise Damaged("a number is too long")
    return int(digits)


def _tensor(entry: Any) -> TensorInfo:
    name = _text(entry, "name")
    try:
        name.encode("utf-8")
        return _described(name, entry)
    except UnicodeEncodeError:
        raise Damaged(f"{name!r} is no text") from None
    except Damaged as error:
        raise Damaged(f"{name!r}: {error}") from None


def _described(name: str, entry: Mapping[str, Any]) -> TensorInfo:
    shape = _numbers(entry, "shape")
    coding, codebook, sparse = _coding(entry.get("coding"))
    info = TensorInfo(
        name=name,
        dtype=_text(entry, "dtype"),
        shape=shape,
        coding=coding,
        offset=_number(entry, "offset"),
        bytes=_number(entry, "bytes"),
        sha256=_text(entry, "sha256"),
        codebook=codebook,
        sparse=sparse,
    )
    # numpy refuses sides whose product overflows even where another side is 0.
    widest = WIDTHS.get(info.dtype, 8)
    if len(shape) > _MOST_SIDES or prod(max(side, 1) for side in shape) * widest >= 1 << 63:
        raise Damaged("its shape is too large")
    if coding in ("planes", "sparse") and info.dtype not in _PLANES:
        raise Damaged(f"{info.dtype} has no planes")
    if codebook is not None:
        _check_codebook(info, codebook)
    if sparse is not None and (sparse.values > info.elements or sparse.mask > info.bytes):
        raise Damaged("its mask or values do not fit its shape or record")
    return info


def _coding(value: Any) -> Tuple[str, Optional[Codebook], Optional[Sparse]]:
    if value in ("planes", "bytes"):
        return str(value), None, None
    [(name, fields)] = value.items() if isinstance(value, dict) and len(value) == 1 else [("", None)]
    if name == "sparse" and isinstance(fields, dict):
        return name, None, Sparse(_number(fields, "mask"), _number(fields, "values"))
    if name != "codebook" or not isinstance(fields, dict):
        raise Damaged("its coding is unknown")
    centroids, vector_size, tables = (_number(fields, field) for field in ("centroids", "vector_size", "tables"))
    return "codebook", Codebook(centroids, vector_size, tables, _numbers(fields, "streams")), None


def _check_codebook(info: TensorInfo, book: Codebook) -> None:
    width = WIDTHS.get(info.dtype)
    if width is None:
        raise Damaged(f"{info.dtype} has no centroids")
    if not 1 <= book.centroids <= _MOST_CENTROIDS or book.vector_size == 0 or info.elements % book.vector_size != 0:
        raise Damaged("its centroids do not fit its shape")
    if book.tables == 0 or info.elements // book.vector_size % book.tables != 0:
        raise Damaged("its tables do not fit its shape")
    if len(book.streams) != (1 if book.centroids <= 256 else 2):
        raise Damaged("its streams are not as many as its centroids need")
    if book.tables * book.centroids * book.vector_size * width + sum(book.streams) != info.bytes:
        raise Damaged("its tables and streams are not as long as its record")


def _text(entry: Any, field: str) -> str:
    value = entry.get(field) if isinstance(entry, dict) else None
    if not isinstance(value, str):
        raise Damaged(f"{field} is no text")
    return value


def _number(entry: Mapping[str, Any], field: str) -> int:
    return _natural(entry.get(field), field)


def _numbers(entry: Mapping[str, Any], field: str) -> Tuple[int, ...]:
    value = entry.get(field)
    if not isinstance(value, list):
        raise Damaged(f"{field} is no list")
    return tuple(_natural(number, field) for number in value)


def _natural(value: Any, field: str) -> int:
    # `True` is an int, too.
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise Damaged(f"{field} is no number of 64 bits")
    return value
