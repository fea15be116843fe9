"""Entropy coded streams of symbols and weights, read with nothing but numpy.

    from modelpress import packed_streams   # pip install modelpress[packed]

    symbols = packed_streams.decode(data)           # an array of bytes
    weights = packed_streams.decode_weights(data)   # float16, float32, or the bits of bfloat16 as uint16

Owns: the reader of both layouts, which `src/engine/kernels/entropy/mod.rs` of the server describes.
Must not know: which files have such streams in them.
Invariant: what is damaged raises `PackedStreamInvalid`; of a stream's own word only the number of its symbols decides how
much memory is taken, and `expected` bounds that.
"""
from __future__ import annotations

import struct
from typing import Any, Callable, List, Optional, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from .errors import PackedStreamInvalid

Symbols = NDArray[np.uint8]
# From states: the symbols (or groups of them) on top of them, and the states without these.
Take = Callable[[NDArray[np.uint32]], Tuple[NDArray[Any], NDArray[np.uint32]]]
Bytes = Union[bytes, bytearray, memoryview]

# Of streams, and of planes.
_VERSIONS = (1, 2)
_PLANES_VERSION = 1
_HEADER = struct.Struct("<BBBBIQ")
_PLANES_HEADER = struct.Struct("<BBB5sQ")
_STORED, _REPEATED, _HUFFMAN, _RANS, _GROUPS = range(5)
_LANES = 64
_STATE_BYTES = 4 * _LANES
_LOWER = 1 << 16
_RANS_BITS = 14
_HUFFMAN_BITS = 12
# Of a code of groups: the longest code, how many groups at most, and how many symbols a group may have.
_GROUPS_BITS = 15
_MOST_GROUPS = 4096
_GROUP_SIZES = (2, 3, 4, 6, 8, 12)
_PLAIN = 1 << 31
# Chunks that are decoded side by side: as many as keep the arrays of a step in a cache.
_TOGETHER = 128
# Bytes of a weight by the type's number: bf16, f16, f32.
_WIDTHS = (2, 2, 4)


def decode(data: Bytes, expected: Optional[int] = None) -> Symbols:
    """The symbols of a stream.

    - data: the stream, no byte more.
    - expected: how many symbols there must be; without it the stream is believed.
    """
    view = memoryview(data).cast("B")
    if len(view) < _HEADER.size:
        raise PackedStreamInvalid("the stream is shorter than its header")
    version, form, k, group, table_bytes, count = _HEADER.unpack_from(view)
    if version not in _VERSIONS:
        raise PackedStreamInvalid(f"the stream is of version {version}; this reads {_VERSIONS[0]} to {_VERSIONS[-1]}")
    is_grouped = form == _GROUPS
    if version != (2 if is_grouped else 1) or (group != 0 and not is_grouped):
        raise PackedStreamInvalid("the header is none")
    if not 6 <= k <= 24 or (expected is not None and count != expected):
        raise PackedStreamInvalid("the header is none, or is of another number of symbols")
    table, rest = view[_HEADER.size :][:table_bytes], view[_HEADER.size :][table_bytes:]
    if form == _STORED and table_bytes == 0 and len(rest) == count:
        return np.frombuffer(rest, np.uint8).copy()
    if form == _REPEATED and table_bytes == len(table) == 1 and len(rest) == 0:
        return np.full(count, table[0], np.uint8)
    if form not in (_HUFFMAN, _RANS, _GROUPS) or len(table) != table_bytes:
        raise PackedStreamInvalid("the form does not go with the length")
    # Symbols of each group that a state gives; of single ones themselves.
    spelling: Optional[Symbols] = None
    if is_grouped:
        take, spelling = _groups(table, group)
    else:
        take = _rans(table) if form == _RANS else _huffman(table)
    chunks = _chunks(rest, count, k)
    symbols = np.empty(count, np.uint8)
    coded = []
    for index, (chunk, is_plain) in enumerate(chunks):
        if is_plain:
            symbols[index << k : (index + 1) << k] = np.frombuffer(chunk, np.uint8)
        else:
            coded.append(index)
    whole = [index for index in coded if (index + 1) << k <= count]
    batches = [whole[first : first + _TOGETHER] for first in range(0, len(whole), _TOGETHER)]
    batches += [[index] for index in coded[len(whole) :]]
    for together in batches:
        length = min(1 << k, count - (together[0] << k))
        steps = length if spelling is None else -(-length // spelling.shape[1])
        decoded = _decode_chunks([chunks[index][0] for index in together], steps, take)
        for index, row in zip(together, decoded):
            spelled = row if spelling is None else spelling[row].reshape(-1)
            symbols[index << k : (index << k) + length] = spelled[:length]
    return symbols


def decode_weights(data: Bytes, expected: Optional[int] = None) -> NDArray[Any]:
    """The weights that were taken apart into planes, to the bit.

    - data: the planes, no byte more.
    - expected: how many weights there must be; without it the planes are believed.

    numpy has no bfloat16: its bits come as uint16, which `.view(ml_dtypes.bfloat16)` or `torch`'s `.view(torch.bfloat16)`
    reads.
    """
    view = memoryview(data).cast("B")
    if len(view) < _PLANES_HEADER.size:
        raise PackedStreamInvalid("the planes are shorter than their header")
    version, kind, planes, zeros, count = _PLANES_HEADER.unpack_from(view)
    if version != _PLANES_VERSION:
        raise PackedStreamInvalid(f"the planes are of version {version}; this reads {_PLANES_VERSION}")
    if kind >= len(_WIDTHS) or planes != _WIDTHS[kind] or any(zeros) or (expected is not None and count != expected):
        raise PackedStreamInvalid("the planes' header is none, or is of another number of weights")
    at = _PLANES_HEADER.size + 8 * planes
    if len(view) < at:
        raise PackedStreamInvalid("the planes end within their lengths")
    parts: List[Symbols] = []
    for length in struct.unpack_from(f"<{planes}Q", view, _PLANES_HEADER.size):
        if length > len(view) - at:
            raise PackedStreamInvalid("the planes end within a stream")
        parts.append(decode(view[at : at + length], count))
        at += length
    if at != len(view):
        raise PackedStreamInvalid("the planes go on after their last stream")
    if kind == 1:
        return (parts[0].astype(np.uint16) << 8 | parts[1]).view(np.float16)
    wide = np.dtype(np.uint16 if kind == 0 else np.uint32)
    exponents, rest = (part.astype(wide) for part in parts[:2])
    bits = (rest & 0x80) << 8 | exponents << 7 | rest & 0x7F
    if kind == 0:
        return bits
    return (bits << 16 | parts[2].astype(wide) << 8 | parts[3]).view(np.float32)


def _chunks(rest: memoryview, count: int, k: int) -> List[Tuple[memoryview, bool]]:
    """The chunks by the lengths before them, and whether each is plain."""
    number = (count + (1 << k) - 1) >> k
    at = 4 * number
    if len(rest) < at:
        raise PackedStreamInvalid("the stream ends within its lengths")
    found = []
    for index, entry in enumerate(struct.unpack_from(f"<{number}I", rest)):
        length, is_plain = entry & (_PLAIN - 1), entry >= _PLAIN
        chunk = rest[at : at + length]
        symbols = min(1 << k, count - (index << k))
        if len(chunk) != length or (is_plain and length != symbols):
            raise PackedStreamInvalid("a chunk is cut off, or has another length")
        if not is_plain and (length < _STATE_BYTES or length % 2):
            raise PackedStreamInvalid("a chunk is no states and words")
        found.append((chunk, is_plain))
        at += length
    if at != len(rest):
        raise PackedStreamInvalid("the stream goes on after its last chunk")
    return found


def _decode_chunks(chunks: List[memoryview], length: int, take: Take) -> NDArray[Any]:
    """Rows of symbols (or groups) of chunks of one length, all lanes of all of them at once; the last row may be longer."""
    states = np.stack([np.frombuffer(chunk[:_STATE_BYTES], "<u4") for chunk in chunks]).astype(np.uint32)
    words = np.frombuffer(b"".join(chunk[_STATE_BYTES:] for chunk in chunks) + bytes(2 * _LANES), "<u2")
    words = words.astype(np.uint32)
    ends = np.cumsum([(len(chunk) - _STATE_BYTES) // 2 for chunk in chunks], dtype=np.int64)
    # Of each chunk the place before its next word.
    cursors = np.concatenate(([0], ends[:-1]))[:, None] - 1
    rows = (length + _LANES - 1) // _LANES
    symbols = np.zeros((len(chunks), rows, _LANES), take(states)[0].dtype)
    for row in range(rows):
        lanes = min(_LANES, length - row * _LANES)
        taken, following = take(states[:, :lanes])
        symbols[:, row, :lanes] = taken
        refills = following < _LOWER
        places = np.cumsum(refills, axis=1, dtype=np.int64)
        places += cursors
        # A damaged chunk may ask for more words than there are: it gets others, and is found out in the end.
        fresh = following << 16 | words.take(places, mode="clip")
        states[:, :lanes] = np.where(refills, fresh, following)
        cursors = places[:, -1:]
    if (cursors[:, 0] + 1 != ends).any() or (states != _LOWER).any():
        raise PackedStreamInvalid("a chunk is not what was written")
    return symbols.reshape(len(chunks), -1)


def _listed(table: memoryview) -> Tuple[Symbols, Symbols]:
    """The symbols that occur, ascending, and the bytes that follow the set of them."""
    if len(table) < 32:
        raise PackedStreamInvalid("the table is too short")
    present = np.unpackbits(np.frombuffer(table[:32], np.uint8), bitorder="little")
    return np.flatnonzero(present).astype(np.uint8), np.frombuffer(table[32:], np.uint8)


def _rans(table: memoryview) -> Take:
    symbols, listed = _listed(table)
    if len(listed) != 2 * len(symbols):
        raise PackedStreamInvalid("the table is not as long as its symbols say")
    frequencies = listed.copy().view("<u2").astype(np.int64)
    total = 1 << _RANS_BITS
    if (frequencies == 0).any() or (frequencies >= total).any() or frequencies.sum() != total:
        raise PackedStreamInvalid("the frequencies do not add up")
    by_slot = np.repeat(symbols, frequencies)
    factors = np.repeat(frequencies, frequencies).astype(np.uint32)
    below = np.cumsum(frequencies) - frequencies
    offsets = (np.arange(total) - np.repeat(below, frequencies)).astype(np.uint32)

    def take(states: NDArray[np.uint32]) -> Tuple[Symbols, NDArray[np.uint32]]:
        slots = states & np.uint32(total - 1)
        following = states >> np.uint32(_RANS_BITS)
        following *= factors.take(slots)
        following += offsets.take(slots)
        return by_slot.take(slots), following

    return take


def _huffman(table: memoryview) -> Take:
    symbols, listed = _listed(table)
    lengths = _lengths(listed, len(symbols), _HUFFMAN_BITS)
    if (lengths == 0).any():
        raise PackedStreamInvalid("a code has no bits")
    return _prefix(symbols, lengths, _HUFFMAN_BITS)


def _groups(table: memoryview, size: int) -> Tuple[Take, Symbols]:
    """How states give groups, and the symbols of each."""
    symbols, listed = _listed(table)
    count = len(symbols) ** size
    if size not in _GROUP_SIZES or count > _MOST_GROUPS:
        raise PackedStreamInvalid("the groups are too many, or of no size that there is")
    lengths = _lengths(listed, count, _GROUPS_BITS)
    numbers = np.arange(count)
    digits = [numbers // len(symbols) ** place % len(symbols) for place in range(size)]
    return _prefix(numbers.astype(np.uint16), lengths, _GROUPS_BITS), symbols[np.stack(digits, axis=1)]


def _lengths(listed: Symbols, count: int, limit: int) -> Symbols:
    """The lengths of so many codes, which are complete; 0 for what never occurs."""
    nibbles = np.stack((listed & 15, listed >> 4), axis=1).reshape(-1)
    lengths = nibbles[:count]
    if len(listed) != (count + 1) // 2 or nibbles[count:].any():
        raise PackedStreamInvalid("the table is not as long as its symbols say")
    used = lengths[lengths > 0].astype(np.int64)
    if (used > limit).any() or ((1 << limit) >> used).sum() != 1 << limit:
        raise PackedStreamInvalid("the codes are not complete")
    return lengths


def _prefix(symbols: NDArray[Any], lengths: Symbols, bits: int) -> Take:
    """What the lowest bits of states are the canonical codes of."""
    size = 1 << bits
    shares = np.where(lengths > 0, size >> lengths.astype(np.int64), 0)
    # Canonical codes fill the entries in order, first bit highest; states have it lowest.
    order = np.lexsort((symbols, lengths))
    entries = np.repeat(order, shares[order])
    reversed_bits = np.zeros(size, np.int64)
    for bit in range(bits):
        reversed_bits |= (np.arange(size) >> bit & 1) << (bits - 1 - bit)
    entries = entries[reversed_bits]
    by_entry, shifts = symbols[entries], lengths[entries].astype(np.uint32)

    def take(states: NDArray[np.uint32]) -> Tuple[NDArray[Any], NDArray[np.uint32]]:
        found = states & np.uint32(size - 1)
        return by_entry.take(found), states >> shifts.take(found)

    return take
