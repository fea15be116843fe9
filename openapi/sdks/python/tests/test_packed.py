"""Packed files: every coding is read to the bit, and what is damaged is found out."""
from __future__ import annotations

import copy
import json
import pickle
import random
import struct
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import packing
import pytest
from packing import Packed, codebook, coded_codebook, plain, planes, sparse
from safetensors import deserialize
from test_packed_streams import GOLDEN, drawn, weights

from modelpress import PackedFileInvalid, packed

PLAIN_TYPES = {
    "F64": "<f8", "F8_E4M3": "u1", "F8_E5M2": "u1", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def drawn_bytes(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


def thinned(seed: int, length: int, width: int) -> bytes:
    """Elements of which about half are zeros."""
    zeros, values = random.Random(seed + 1), drawn_bytes(seed, length)
    elements = [values[at : at + width] for at in range(0, length, width)]
    return b"".join(bytes(width) if zeros.random() < 0.5 else element for element in elements)


def centroids(seed: int, tables: int, count: int, width: int) -> List[List[bytes]]:
    return [[drawn_bytes(1000 * seed + 100 * t + c, width) for c in range(count)] for t in range(tables)]


def drawn_codes(seed: int, count: int, below: int) -> List[int]:
    source = random.Random(seed)
    return [source.randrange(below) for _ in range(count)]


def golden(kind: str, name: str) -> bytes:
    return bytes.fromhex(GOLDEN[kind][name]["stream"])


CODEBOOKS = [
    codebook("one table", "F16", (6, 8), centroids(1, 1, 16, 2), drawn_codes(1, 48, 16)),
    codebook("256 centroids", "BF16", (6, 50), centroids(2, 1, 256, 2), [*range(256), *range(44)]),
    codebook("two streams", "F32", (6, 50), centroids(3, 1, 300, 4), range(300)),
    codebook("a table a row", "F16", (6, 8), centroids(4, 6, 4, 2), drawn_codes(4, 48, 4)),
    codebook("tables of groups", "BF16", (6, 8), centroids(5, 12, 4, 2), drawn_codes(5, 48, 4)),
    codebook("vectors", "F32", (6, 8), centroids(6, 1, 16, 16), drawn_codes(6, 12, 16)),
    codebook("vectors, a table a row", "F16", (6, 8), centroids(7, 6, 3, 8), drawn_codes(7, 12, 3)),
    codebook("vectors, two streams", "BF16", (60, 8), centroids(8, 2, 257, 8), drawn_codes(8, 120, 257)),
    codebook("one code", "F16", (2, 3, 2, 2), centroids(9, 1, 2, 2), [1] * 24),
    codebook("one centroid", "F16", (4,), centroids(10, 1, 1, 2), [0] * 4),
    codebook("no weights", "F16", (0, 8), centroids(11, 1, 4, 2), []),
]


def coded() -> List[Packed]:
    """With streams that the engine coded."""
    symbols = {name: drawn(case["parts"]) for name, case in GOLDEN["streams"].items()}
    found = [
        Packed(f"bytes, {name}", "I8", (len(values),), "bytes", golden("streams", name), values)
        for name, values in symbols.items()
    ]
    for name, case in GOLDEN["weights"].items():
        shape = (case["length"] // 100, 100)
        found.append(Packed(name, name.upper(), shape, "planes", golden("weights", name), weights(case)))
    low, high = symbols["rans"], symbols["huffman"]
    found.append(
        coded_codebook("rans codes", "F16", (50, 50), centroids(20, 1, 256, 2), low, [golden("streams", "rans")])
    )
    pairs = "huffman, pairs"
    table = centroids(21, 1, 256, 2)
    found.append(coded_codebook("pairs of codes", "F16", (45, 91), table, symbols[pairs], [golden("streams", pairs)]))
    streams = [golden("streams", "rans"), golden("streams", "huffman")]
    codes = [a | b << 8 for a, b in zip(low, high)]
    wide = [[struct.pack("<f", code) for code in range(1 << 16)]]
    return [*found, coded_codebook("rans and huffman codes", "F32", (50, 50), wide, codes, streams)]


def stored() -> List[Packed]:
    found = []
    for dtype, (_, width) in packing.PLANES.items():
        found.append(planes(f"planes {dtype}", dtype, (5, 7), drawn_bytes(width, 35 * width)))
        found.append(planes(f"zeros {dtype}", dtype, (3, 4), bytes(12 * width)))
        found.append(sparse(f"sparse {dtype}", dtype, (5, 7), thinned(width, 35 * width, width)))
        found.append(sparse(f"all zeros {dtype}", dtype, (4, 4), bytes(16 * width)))
    for dtype, spelled in PLAIN_TYPES.items():
        values = bytes([0, 1, 1, 0, 1, 0]) if dtype == "BOOL" else drawn_bytes(9, 6 * np.dtype(spelled).itemsize)
        found.append(plain(f"bytes {dtype}", dtype, (2, 3), values))
    return [*found, plain("a scalar", "I64", (), drawn_bytes(1, 8)), planes("nothing", "BF16", (0, 3), b"")]


ALL = [*stored(), *CODEBOOKS, *coded()]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def written(data: bytes) -> Path:
        path = tmp_path / "model.packed"
        path.write_bytes(data)
        return path

    return written


@pytest.fixture
def whole(write: Callable[[bytes], Path]) -> Path:
    return write(packing.packed_file(ALL))


def small() -> List[Packed]:
    two = codebook("two", "F16", (3, 4), centroids(30, 1, 257, 2), [256, 1, *drawn_codes(30, 10, 257)])
    return [planes("a", "BF16", (2, 3), drawn_bytes(1, 12)), CODEBOOKS[0], two, plain("b", "U8", (3,), b"abc")]


def numpy_name(dtype: str) -> str:
    return {"BF16": "<u2", "F16": "<f2", "F32": "<f4", **PLAIN_TYPES}[dtype]


@pytest.mark.parametrize("tensor", ALL, ids=lambda tensor: tensor.name)
def test_what_was_packed_is_read_to_the_bit(tensor: Packed, whole: Path) -> None:
    with packed.open(whole) as file:
        found = file.tensor(tensor.name)
    assert found.tobytes() == tensor.values
    assert found.shape == tensor.shape and found.dtype == numpy_name(tensor.dtype)
    assert found.flags.writeable


def test_all_are_loaded_in_the_order_of_the_file(whole: Path) -> None:
    found = packed.load(whole)
    assert [(name, array.tobytes()) for name, array in found.items()] == [(t.name, t.values) for t in ALL]


def test_a_file_may_have_no_tensors(write: Callable[[bytes], Path]) -> None:
    assert packed.load(write(packing.packed_file([]))) == {}


def test_codes_are_looked_up_across_blocks(write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_BLOCK", 7)
    found = packed.load(write(packing.packed_file(CODEBOOKS)))
    assert [array.tobytes() for array in found.values()] == [tensor.values for tensor in CODEBOOKS]


def test_the_index_tells_of_tensors_without_decoding_them(write: Callable[[bytes], Path]) -> None:
    tensors = small()
    data = bytearray(packing.packed_file(tensors))
    data[16] ^= 255
    with packed.open(write(bytes(data))) as file:
        assert file.names() == [tensor.name for tensor in tensors]
        info = file.info("two")
        assert (info.dtype, info.shape, info.coding, info.decoded_bytes) == ("F16", (3, 4), "codebook", 24)
        assert info.codebook == packed.Codebook(257, 1, 1, (28, 28))
        assert file.info("a").codebook is None
        # The damage is to one record, and only that cannot be read.
        assert file.tensor("b").tobytes() == b"abc"
        with pytest.raises(PackedFileInvalid, match="'a': the planes are of version"):
            file.tensor("a")
        for ask in (file.info, file.tensor):
            with pytest.raises(KeyError):
                ask("c")


def test_threads_share_a_file(whole: Path) -> None:
    wrong: List[str] = []
    with packed.open(whole) as file:

        def read(tensors: List[Packed]) -> None:
            wrong.extend(t.name for t in tensors if file.tensor(t.name).tobytes() != t.values)

        threads = [threading.Thread(target=read, args=(ALL[at:] + ALL[:at],)) for at in range(0, len(ALL), 8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_types_of_blocks_are_listed_but_not_read(write: Callable[[bytes], Path], tmp_path: Path) -> None:
    blocks = plain("blk", "Q8_0", (1, 32), drawn_bytes(1, 34))
    path = write(packing.packed_file([blocks, plain("b", "U8", (3,), b"abc")]))
    with packed.open(path) as file:
        assert file.info("blk").decoded_bytes is None
        assert file.tensor("b").tobytes() == b"abc"
        with pytest.raises(PackedFileInvalid, match="Q8_0"):
            file.tensor("blk")
    with pytest.raises(PackedFileInvalid, match="Q8_0"):
        packed.to_safetensors(path, tmp_path / "out")


# ---- safetensors


def test_safetensors_hold_the_same_tensors(whole: Path, tmp_path: Path) -> None:
    out = packed.to_safetensors(whole, tmp_path / "new" / "model.safetensors")
    # The reference reader also refuses headers that are not as they should be.
    found = {name: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for name, t in deserialize(out.read_bytes())}
    assert found == {t.name: (t.dtype, t.shape, t.values) for t in ALL}
    assert [path.name for path in out.parent.iterdir()] == ["model.safetensors"]


def test_safetensors_are_aligned(whole: Path, tmp_path: Path) -> None:
    data = packed.to_safetensors(whole, tmp_path / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert header.pop("__metadata__") == {"format": "pt"} and size % 8 == 0
    for entry in header.values():
        assert entry["data_offsets"][0] % np.dtype(numpy_name(entry["dtype"])).itemsize == 0


def test_a_damaged_file_leaves_no_safetensors(write: Callable[[bytes], Path], tmp_path: Path) -> None:
    tensors = small()
    entries = packing.index(tensors)
    entries["tensors"][-1]["sha256"] = "0" * 64
    path = write(packing.file(b"".join(t.record for t in tensors), entries))
    out = tmp_path / "out" / "model.safetensors"
    with pytest.raises(PackedFileInvalid, match="'b': it does not decode to what was packed"):
        packed.to_safetensors(path, out)
    assert list(out.parent.iterdir()) == []


def test_safetensors_keeps_a_name_for_itself(write: Callable[[bytes], Path], tmp_path: Path) -> None:
    path = write(packing.packed_file([plain("__metadata__", "U8", (1,), b"a")]))
    with pytest.raises(PackedFileInvalid, match="no tensor of that name"):
        packed.to_safetensors(path, tmp_path / "out")


def test_one_tensor_is_in_memory_at_a_time(write: Callable[[bytes], Path], tmp_path: Path) -> None:
    size, count = 1 << 20, 16
    values = b"ab" * (size // 2)
    path = write(packing.packed_file([plain(f"t{at}", "U8", (size,), values) for at in range(count)]))
    tracemalloc.start()
    packed.to_safetensors(path, tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "out").stat().st_size > count * size
    assert peak < 6 * size


def test_the_command_writes_safetensors_or_says_why_not(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"

    def run(source: Path) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "modelpress.packed", str(source), str(out)]
        return subprocess.run(command, capture_output=True, text=True)

    result = run(whole)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert len(deserialize(out.read_bytes())) == len(ALL)
    result = run(out)
    assert result.returncode == 1 and "it is no packed file" in result.stderr and "Traceback" not in result.stderr
    result = run(tmp_path / "missing")
    assert result.returncode == 1 and "missing" in result.stderr and "Traceback" not in result.stderr


# ---- damage

EDITS: Dict[str, Callable[[Dict[str, Any]], Any]] = {
    "a name is missing": lambda t: t.pop("name"),
    "a name is no text": lambda t: t.update(name=7),
    "a name is half a character": lambda t: t.update(name="\ud800"),
    "a name comes twice": lambda t: t.update(name="b"),
    "a type has no centroids": lambda t: t.update(dtype="Q4_K"),
    "a type is wider": lambda t: t.update(dtype="F32"),
    "a side is negative": lambda t: t.update(shape=[-6, -8]),
    "a side is a fraction": lambda t: t.update(shape=[6.0, 8]),
    "a side is a truth": lambda t: t.update(shape=[True, 48]),
    "a side is longer": lambda t: t.update(shape=[6, 9]),
    "sides are too many": lambda t: t.update(shape=[48] + [1] * 32),
    "sides overflow": lambda t: t.update(shape=[1 << 62, 1 << 62]),
    "sides beside 0 overflow": lambda t: t.update(shape=[0, 1 << 63]),
    "a shape is no list": lambda t: t.update(shape=48),
    "a record begins in the header": lambda t: t.update(offset=8),
    "a record begins in another": lambda t: t.update(offset=t["offset"] - 1),
    "a record begins behind the file": lambda t: t.update(offset=(1 << 64) - 1),
    "a record ends behind the others": lambda t: t.update(bytes=(1 << 64) - 1),
    "a record is shorter": lambda t: t.update(bytes=t["bytes"] - 1),
    "a digest is another": lambda t: t.update(sha256="0" * 64),
    "a digest is missing": lambda t: t.pop("sha256"),
    "a coding is another": lambda t: t.update(coding="bytes"),
    "a coding is of other types": lambda t: t.update(coding="planes"),
    "a coding is unknown": lambda t: t.update(coding={"codebook": t["coding"]["codebook"], "more": {}}),
    "a coding is no object": lambda t: t.update(coding=["codebook"]),
    "a codebook is empty": lambda t: t["coding"].update(codebook={}),
    "centroids are none": lambda t: t["coding"]["codebook"].update(centroids=0),
    "centroids are fewer": lambda t: t["coding"]["codebook"].update(centroids=8),
    "centroids are too many": lambda t: t["coding"]["codebook"].update(centroids=(1 << 64) - 1),
    "vectors are empty": lambda t: t["coding"]["codebook"].update(vector_size=0),
    "vectors do not fit the shape": lambda t: t["coding"]["codebook"].update(vector_size=5),
    "vectors are longer than the tensor": lambda t: t["coding"]["codebook"].update(vector_size=1 << 63),
    "tables are none": lambda t: t["coding"]["codebook"].update(tables=0),
    "tables do not fit the shape": lambda t: t["coding"]["codebook"].update(tables=5),
    "tables are longer than the record": lambda t: t["coding"]["codebook"].update(tables=48),
    "streams are none": lambda t: t["coding"]["codebook"].update(streams=[]),
    "streams are too many": lambda t: t["coding"]["codebook"].update(streams=[32, 32]),
    "a stream is longer": lambda t: t["coding"]["codebook"].update(streams=[1 << 40]),
    "a stream is shorter": lambda t: t["coding"]["codebook"].update(streams=[63]),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_index_that_cannot_be_is_refused(edit: str, write: Callable[[bytes], Path]) -> None:
    tensors = small()
    entries = copy.deepcopy(packing.index(tensors))
    EDITS[edit](entries["tensors"][1])
    path = write(packing.file(b"".join(t.record for t in tensors), entries))
    with pytest.raises(PackedFileInvalid) as caught:
        packed.load(path)
    assert str(path) in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("mask", 0), ("mask", 20), ("mask", 1 << 40), ("values", 0), ("values", 36), ("values", None)]
)
def test_a_mask_that_does_not_fit_is_refused(field: str, value: Any, write: Callable[[bytes], Path]) -> None:
    tensor = sparse("w", "BF16", (5, 7), thinned(2, 70, 2))
    tensor.coding["sparse"][field] = value  # type: ignore[index]
    with pytest.raises(PackedFileInvalid):
        packed.load(write(packing.packed_file([tensor])))


def test_a_mask_of_other_weights_is_refused(write: Callable[[bytes], Path]) -> None:
    tensor = sparse("w", "BF16", (3,), struct.pack("<3H", 1, 0, 2))
    assert tensor.record[16] == 0b101
    for mask in (0b111, 0b1001, 0b1):
        wrong = copy.deepcopy(tensor)
        wrong.record = tensor.record[:16] + bytes([mask]) + tensor.record[17:]
        with pytest.raises(PackedFileInvalid, match="its mask is of other weights"):
            packed.load(write(packing.packed_file([wrong])))


def test_files_of_version_1_are_read(write: Callable[[bytes], Path]) -> None:
    tensors = small()
    path = write(packing.file(b"".join(t.record for t in tensors), packing.index(tensors), version=1))
    assert [array.tobytes() for array in packed.load(path).values()] == [t.values for t in tensors]


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"null", b'{"tensors": {}}', b'{"tensors": [7]}', b'{"tensors": [{}]}', b"\xff\xfe{\0}\0",
        b"[" * 200_000, b'{"tensors": [' + b"9" * 100_000 + b"]}",
    ],
    ids=lambda text: repr(text[:16]),
)  # fmt: skip
def test_an_index_that_is_none_is_refused(text: bytes, write: Callable[[bytes], Path]) -> None:
    with pytest.raises(PackedFileInvalid):
        packed.open(write(packing.file(b"", text)))


def test_fields_of_later_versions_are_left_alone(write: Callable[[bytes], Path]) -> None:
    tensors = small()
    entries: Dict[str, Any] = packing.index(tensors)
    entries["made_by"] = "a later one"
    entries["tensors"][0]["more"] = 1.5
    path = write(packing.file(b"".join(t.record for t in tensors), entries))
    assert [array.tobytes() for array in packed.load(path).values()] == [t.values for t in tensors]


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (0, b"X", "no packed file"), (8, b"\3", "of version 3"), (-1, b"X", "its end is missing"),
        (-16, b"\xff" * 8, "its index claims"), (-16, struct.pack("<Q", 1 << 20), "its index claims"),
    ],
)  # fmt: skip
def test_ends_say_what_is_wrong(at: int, value: bytes, says: str, write: Callable[[bytes], Path]) -> None:
    data = bytearray(packing.packed_file(small()))
    at %= len(data)
    data[at : at + len(value)] = value
    with pytest.raises(PackedFileInvalid, match=says):
        packed.open(write(bytes(data)))


def test_what_is_cut_off_is_refused(write: Callable[[bytes], Path]) -> None:
    data = packing.packed_file(small())
    for length in [*range(0, len(data) - 40, 7), *range(len(data) - 40, len(data))]:
        with pytest.raises(PackedFileInvalid):
            packed.open(write(data[:length]))


def test_no_other_tensor_comes_of_a_damaged_record(write: Callable[[bytes], Path]) -> None:
    zeros = sparse("zeros", "F16", (5, 7), thinned(2, 70, 2))
    tensors = [*small(), CODEBOOKS[6], planes("f32", "F32", (4,), drawn_bytes(1, 16)), zeros]
    data, source = packing.packed_file(tensors), random.Random(5)
    for at in range(16, 16 + sum(len(t.record) for t in tensors)):
        damaged = bytearray(data)
        damaged[at] ^= source.randrange(1, 256)
        with packed.open(write(bytes(damaged))) as file:
            refused = 0
            for tensor in tensors:
                try:
                    assert file.tensor(tensor.name).tobytes() == tensor.values
                except PackedFileInvalid:
                    refused += 1
            assert refused <= 1


def test_a_damaged_index_is_refused_or_read(write: Callable[[bytes], Path]) -> None:
    tensors = small()
    data, source = packing.packed_file(tensors), random.Random(6)
    for at in range(16 + sum(len(t.record) for t in tensors), len(data)):
        damaged = bytearray(data)
        damaged[at] ^= source.randrange(1, 256)
        try:
            found = packed.load(write(bytes(damaged)))
        except PackedFileInvalid:
            continue
        # Names and spellings of equal width have no digest; values do.
        assert [array.tobytes() for array in found.values()] == [t.values for t in tensors]


def test_a_code_beyond_its_table_is_refused(write: Callable[[bytes], Path]) -> None:
    for tensor, codes in (("one table", [16] * 48), ("a table a row", [4] * 48)):
        book = next(t for t in CODEBOOKS if t.name == tensor)
        first = len(book.record) - book.coding["codebook"]["streams"][0]  # type: ignore[index]
        record = book.record[:first] + packing.stream(bytes(codes))
        coding = copy.deepcopy(book.coding)
        coding["codebook"]["streams"] = [len(record) - first]  # type: ignore[index]
        wrong = Packed("w", book.dtype, book.shape, coding, record, book.values)
        with pytest.raises(PackedFileInvalid, match="a code is beyond its table"):
            packed.load(write(packing.packed_file([wrong])))


@pytest.mark.parametrize(("dtype", "other"), [("BF16", "F16"), ("F16", "BF16"), ("F32", "F16")])
def test_planes_of_another_type_are_refused(dtype: str, other: str, write: Callable[[bytes], Path]) -> None:
    tensor = planes("w", dtype, (3,), drawn_bytes(1, 3 * packing.PLANES[dtype][1]))
    tensor.dtype = other
    with pytest.raises(PackedFileInvalid, match="another type"):
        packed.load(write(packing.packed_file([tensor])))


def repeated(name: str, count: int) -> Packed:
    record = struct.pack("<BBBBIQ", 1, 1, 18, 0, 1, count) + b"\0"
    return Packed(name, "U8", (count,), "bytes", record, b"")


def test_a_small_file_takes_no_large_memory(write: Callable[[bytes], Path]) -> None:
    bombs = [[repeated("w", 1 << 40)], [repeated(f"w{at}", 1 << 20) for at in range(500)]]
    for tensors in bombs:
        path = write(packing.packed_file(tensors))
        tracemalloc.start()
        with pytest.raises(PackedFileInvalid, match="too much for a file of this length"):
            packed.load(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20


def test_large_tensors_of_zeros_are_no_damage(write: Callable[[bytes], Path]) -> None:
    side = 1 << 20
    zeros = Packed("zeros", "BF16", (16, side), "planes", b"", bytes(32 * side))
    stream = struct.pack("<BBBBIQ", 1, 1, 18, 0, 1, 16 * side) + b"\0"
    zeros.record = struct.pack("<BBB5xQQQ", 1, 0, 2, 16 * side, len(stream), len(stream)) + 2 * stream
    found = packed.load(write(packing.packed_file([zeros])))["zeros"]
    assert found.shape == (16, side) and not found.any()


def test_a_file_that_becomes_shorter_is_refused(write: Callable[[bytes], Path]) -> None:
    path = write(packing.packed_file(small()))
    with packed.open(path) as file:
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(PackedFileInvalid, match="became shorter"):
            file.tensor("b")
