#!/usr/bin/env python3
"""Golden vectors of sparse layouts: what compressed-tensors makes of matrices that any language can make again.

    make_sparse_golden.py src/engine/kernels/sparse/golden.json

Needs compressed-tensors 0.14.0.1, the newest with sparse compressors. `indices` are the metadata of 2:4 that CUTLASS
takes, before its reordering, which is undone here; it has them for 16-bit values and rows that fit its tiles.
"""
import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from compressed_tensors.compressors.sparse_compressors.sparse_24_bitmask import Sparse24BitMaskTensor
from compressed_tensors.compressors.sparse_compressors.sparse_bitmask import BitmaskTensor
from compressed_tensors.utils import semi_structured_conversions as cutlass

PAIRS = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
FORMULA = ("of the group g of four columns in row r the columns 4g + p have a value, p in the pair number (5r + 3g + (rg mod "
           "7)) mod 6 of 01 02 03 12 13 23; its upper 16 bits are 0x3f80 + (31r + 17c) mod 128, with the sign (r + p) mod 2")
TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def dense(rows: int, cols: int, dtype: torch.dtype) -> torch.Tensor:
    wide = dtype.itemsize == 4
    bits = torch.zeros((rows, cols), dtype=torch.int64)
    for r in range(rows):
        for g in range(cols // 4):
            for p in PAIRS[(5 * r + 3 * g + r * g % 7) % 6]:
                c = 4 * g + p
                value = 0x3F80 + (31 * r + 17 * c) % 128 | (r + p) % 2 << 15
                bits[r, c] = value << 16 if wide else value
    signed = bits - (bits >> (31 if wide else 15) << (32 if wide else 16))
    return signed.to(torch.int32 if wide else torch.int16).view(dtype)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(raw(tensor)).hexdigest()


def indices(matrix: torch.Tensor) -> torch.Tensor:
    _, reordered = cutlass.sparse_semi_structured_from_dense_cutlass(matrix)
    rows, cols = reordered.shape
    offsets = cutlass._calculate_meta_reordering_scatter_offsets(rows, cols, reordered.dtype, "cpu")
    return reordered.reshape(-1).gather(0, offsets).view(rows, cols)


def case(name: str, rows: int, cols: int) -> dict:
    matrix = dense(rows, cols, TYPES[name])
    two_four, any_place = Sparse24BitMaskTensor.from_dense(matrix), BitmaskTensor.from_dense(matrix)
    # Two of four are left everywhere: both have the same mask and values.
    assert torch.equal(two_four.bitmask, any_place.bitmask)
    assert raw(two_four.compressed) == raw(any_place.compressed)
    assert raw(two_four.decompress()) == raw(any_place.decompress()) == raw(matrix)
    found = {"dtype": name, "rows": rows, "cols": cols, "width": matrix.element_size(), "dense_sha256": digest(matrix),
             "bitmask_sha256": digest(two_four.bitmask), "bitmask_row0": raw(two_four.bitmask[0]).hex(),
             "compressed_sha256": digest(two_four.compressed), "row_offsets_sha256": digest(any_place.row_offsets)}
    if matrix.element_size() == 2 and rows % 64 == 0 and cols % 64 == 0:
        meta = indices(matrix)
        found |= {"indices_sha256": digest(meta), "indices_row0": raw(meta[0])[:8].hex()}
    return found


def main(out: str) -> None:
    cases = [case("BF16", 64, 128), case("F16", 64, 64), case("F32", 16, 32), case("BF16", 5, 12)]
    golden = {"made_by": f"tests/interop/make_sparse_golden.py, compressed-tensors {version('compressed-tensors')}",
              "formula": FORMULA, "matrices": cases}
    Path(out).write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
