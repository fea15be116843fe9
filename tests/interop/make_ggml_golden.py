#!/usr/bin/env python3
"""The golden vectors of the block types: what ggml's own quantizers make of numbers that any language can make again.

    make_ggml_golden.py path/to/libggml-base.so src/engine/kernels/ggml/golden.json

`libggml-base.so` is built from the llama.cpp inside llama-cpp-python's source package (`cmake -DBUILD_SHARED_LIBS=ON`,
target `ggml-base`). Each type is written with and without column importance, but for those ggml refuses to write
without. `types` is one plain input with all that is worth knowing of the result; `hard` are inputs that searches
trip over, as digests only.
"""
import ctypes
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

ROWS, COLS = 2, 512
TYPES = {"q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "q2_K": 10, "q3_K": 11, "q4_K": 12, "q5_K": 13,
         "q6_K": 14, "iq4_nl": 20, "iq4_xs": 23, "iq2_xxs": 16, "iq2_xs": 17, "iq2_s": 22, "iq3_xxs": 18, "iq3_s": 21,
         "tq1_0": 34, "tq2_0": 35, "mxfp4": 39, "nvfp4": 40}
NEEDS_IMPORTANCE = {"iq2_xxs", "iq2_xs"}
LCG = ("state=state*6364136223846793005+1442695040888963407 mod 2^64; "
       "each value = (sum of 4 consecutive (state>>40) - 2^25)/2^24 as f32")
FLOATS = ctypes.POINTER(ctypes.c_float)


class Traits(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("block", ctypes.c_int64), ("interleave", ctypes.c_int64),
                ("bytes", ctypes.c_size_t), ("quantized", ctypes.c_bool),
                ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, FLOATS, ctypes.c_int64))]


def sequence(seed, count):
    state, out = seed, np.empty(count, np.float32)
    for i in range(count):
        total = 0
        for _ in range(4):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            total += state >> 40
        out[i] = np.float32(total - 2**25) / np.float32(2**24)
    return out


def hard(values):
    """Name, rule in words, numbers. Each rule is exact in f32."""
    at = np.arange(values.size)
    return [("heavy", "v*v*v", values * values * values),
            ("zero_groups", "0 where i/32%3==0", np.where(at // 32 % 3 == 0, np.float32(0), values)),
            ("zero_blocks", "0 where i/256%2==0", np.where(at // 256 % 2 == 0, np.float32(0), values)),
            ("constant", "0.7", np.full(values.size, 0.7, np.float32)),
            ("ties", "4v rounded to whole numbers, halves to even", np.rint(values * np.float32(4))),
            ("outliers", "1000v where i%97==0", np.where(at % 97 == 0, np.float32(1000) * values, values))]


class Ggml:
    def __init__(self, path):
        self.lib = ctypes.CDLL(path)
        self.lib.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
        self.lib.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, FLOATS, ctypes.c_void_p, *[ctypes.c_int64] * 3, FLOATS]

    def traits(self, kind):
        return self.lib.ggml_get_type_traits(kind).contents

    def write(self, kind, values, importance):
        values = np.ascontiguousarray(values, np.float32)
        traits = self.traits(kind)
        out = ctypes.create_string_buffer(values.size // traits.block * traits.bytes)
        weights = None if importance is None else importance.ctypes.data_as(FLOATS)
        self.lib.ggml_quantize_chunk(kind, values.ctypes.data_as(FLOATS), out, 0, ROWS, COLS, weights)
        return out.raw

    def read(self, kind, blocks, count):
        out = np.empty(count, np.float32)
        self.traits(kind).to_float(blocks, out.ctypes.data_as(FLOATS), count)
        return out


def paths(name, importance):
    return [("plain", None)] * (name not in NEEDS_IMPORTANCE) + [("imatrix", importance)]


def main(library, target):
    ggml, values, weights = Ggml(library), sequence(42, ROWS * COLS), sequence(7, COLS)
    importance = np.abs(weights) + np.float32(0.125)
    golden = {"input": {"lcg": LCG, "seed": 42, "rows": ROWS, "cols": COLS,
                        "first8": [float(v) for v in values[:8]],
                        "sha256_f32le": hashlib.sha256(values.tobytes()).hexdigest()},
              "imatrix": {"seed": 7, "rule": "|v|+0.125", "first4": [float(v) for v in importance[:4]]},
              "types": {}, "hard": {}}
    for name, kind in TYPES.items():
        traits = ggml.traits(kind)
        entry = {"ggml_type": kind, "block": traits.block, "bytes": traits.bytes}
        for path, columns in paths(name, importance):
            blocks = ggml.write(kind, values, columns)
            back = ggml.read(kind, blocks, values.size)
            entry[path] = {"sha256": hashlib.sha256(blocks).hexdigest(),
                           "first_block_hex": blocks[:traits.bytes].hex(),
                           "mse": float(np.mean((values.astype(np.float64) - back) ** 2)),
                           "dequant_first4": [float(v) for v in back[:4]]}
        golden["types"][name] = entry
    # Columns that do not matter at all, beside some that do.
    uneven = np.where(np.arange(COLS) % 3 == 0, np.float32(0), weights * weights)
    for case, rule, numbers in hard(values):
        digests = {}
        for name, kind in TYPES.items():
            if (case, name) == ("zero_groups", "iq3_s"):
                continue  # ggml stores the groups after one of zeros in the wrong place
            digests[name] = {path: hashlib.sha256(ggml.write(kind, numbers, columns)).hexdigest()
                             for path, columns in paths(name, uneven)}
        golden["hard"][case] = {"rule": rule, "importance": "0 where i%3==0, else v*v", "sha256": digests}
    Path(target).write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
