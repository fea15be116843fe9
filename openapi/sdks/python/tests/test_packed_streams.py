"""Streams that the engine wrote, read here: the same symbols, and no surprise where they are damaged."""
from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Dict, Iterator, List

import numpy as np
import pytest

from modelpress.errors import PackedStreamInvalid
from modelpress.packed_streams import decode, decode_weights

GOLDEN: Dict[str, Any] = json.loads(
    (Path(__file__).parents[4] / "src/engine/kernels/entropy/golden.json").read_text(encoding="utf-8")
)


def draws() -> Iterator[int]:
    """The generator that the golden file describes."""
    state = 1
    while True:
        state = (state * 1103515245 + 12345) % 2**31
        yield state >> 16


def drawn(parts: List[List[Any]]) -> bytes:
    source = draws()
    return bytes(bytes.fromhex(letters)[next(source) % (len(letters) // 2)] for letters, n in parts for _ in range(n))


def weights(case: Dict[str, Any]) -> bytes:
    source, places = draws(), [bytes.fromhex(letters) for letters in case["bytes"]]
    return bytes(letters[next(source) % len(letters)] for _ in range(case["length"]) for letters in places)


@pytest.mark.parametrize("name", GOLDEN["streams"])
def test_symbols_are_those_that_the_engine_encoded(name: str) -> None:
    case = GOLDEN["streams"][name]
    expected = drawn(case["parts"])
    stream = bytes.fromhex(case["stream"])
    assert decode(stream, len(expected)).tobytes() == expected
    with pytest.raises(PackedStreamInvalid):
        decode(stream, len(expected) + 1)


@pytest.mark.parametrize("name", GOLDEN["weights"])
def test_weights_are_those_that_the_engine_encoded(name: str) -> None:
    case = GOLDEN["weights"][name]
    found = decode_weights(bytes.fromhex(case["stream"]), case["length"])
    assert found.dtype == {"bf16": np.uint16, "f16": np.float16, "f32": np.float32}[name]
    assert found.tobytes() == weights(case)


@pytest.mark.parametrize("name", GOLDEN["streams"])
def test_damage_is_refused_or_harmless(name: str) -> None:
    case = GOLDEN["streams"][name]
    stream, expected = bytes.fromhex(case["stream"]), len(drawn(case["parts"]))
    for length in range(0, len(stream), 97):
        with pytest.raises(PackedStreamInvalid):
            decode(stream[:length], expected)
    source = random.Random(3)
    for _ in range(60):
        damaged = bytearray(stream)
        damaged[source.randrange(len(damaged))] ^= source.randrange(1, 256)
        try:
            assert len(decode(damaged, expected)) == expected
        except PackedStreamInvalid:
            pass


GROUPED = {name: case for name, case in GOLDEN["streams"].items() if case["stream"].startswith("0204")}


def test_groups_of_several_sizes_are_read() -> None:
    assert sorted(bytes.fromhex(case["stream"])[3] for case in GROUPED.values()) == [2, 3, 6]
    # Some chunk ends within a group.
    assert any((1 << case["k"]) % bytes.fromhex(case["stream"])[3] for case in GROUPED.values())


@pytest.mark.parametrize("name", GROUPED)
def test_a_table_of_groups_that_cannot_be_is_refused(name: str) -> None:
    case = GROUPED[name]
    stream, expected = bytes.fromhex(case["stream"]), len(drawn(case["parts"]))
    table = 16 + 32

    def refused(at: int, *values: int) -> None:
        damaged = bytearray(stream)
        damaged[at : at + len(values)] = values
        with pytest.raises(PackedStreamInvalid):
            decode(damaged, expected)

    refused(0, 1)
    refused(0, 3)
    refused(1, 2)
    for size in (0, 1, 5, 12, 255):
        refused(3, size)
    refused(16, *[255] * 32)
    refused(16, *[0] * 32)
    refused(table, stream[table] ^ 1)
    # More codes of one bit than there can be, and none.
    refused(table, 0x11, 0x11)
    refused(table, *[0] * (stream[4] - 32))
