"""Independent numpy readers of the layouts the engines load. Written from the formats' descriptions,
not from modelpress: a mistake would have to be made twice to go unseen.

`Checkpoint(folder)` opens plain or sharded safetensors; `dequantize(folder)` yields
(tensor name, float32 array) of every tensor of a compressed or dense checkpoint.
"""
import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
          "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "I64": np.int64, "I32": np.int32,
          "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_, "U16": np.uint16, "U32": np.uint32,
          "U64": np.uint64}
NF4 = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
                -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
                0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
                0.7229568362236023, 1.0], np.float32)


class LayoutError(Exception):
    """The folder does not have the layout it claims."""


def need(condition, message):
    if not condition:
        raise LayoutError(message)


class Checkpoint:
    """All safetensors files of a folder, memory-mapped; checks that headers, sizes and index agree."""

    def __init__(self, folder):
        self.folder, self.entries = Path(folder), {}
        files = sorted(self.folder.glob("*.safetensors"))
        need(files, f"{folder}: no safetensors file")
        for file in files:
            self._open(file)
        index = self.folder / "model.safetensors.index.json"
        need(len(files) == 1 or index.exists(), f"{folder}: {len(files)} shards and no index")
        if index.exists():
            listed = json.loads(index.read_text())["weight_map"]
            held = {n: e[0].name for n, e in self.entries.items()}
            need(listed == held, f"{folder}: index and shards disagree on {sorted(set(listed.items()) ^ set(held.items()))[:4]}")
        config = self.folder / "config.json"
        self.config = json.loads(config.read_text()) if config.exists() else {}

    def _open(self, file):
        size = file.stat().st_size
        with open(file, "rb") as f:
            (n,) = struct.unpack("<Q", f.read(8))
            need(n <= size - 8, f"{file}: header length {n} past the end")
            header = json.loads(f.read(n))
        header.pop("__metadata__", None)
        end = 0
        for name, e in sorted(header.items(), key=lambda kv: kv[1]["data_offsets"]):
            start, stop = e["data_offsets"]
            need(start == end, f"{file}: {name} starts at {start}, expected {end}: safetensors allows no holes")
            dtype = np.dtype(DTYPES[e["dtype"]])
            need(stop - start == int(np.prod(e["shape"], dtype=np.int64)) * dtype.itemsize, f"{file}: {name} has a wrong size")
            need(name not in self.entries, f"{name} is in two shards")
            self.entries[name] = (file, 8 + n + start, dtype, tuple(e["shape"]))
            end = stop
        need(8 + n + end == size, f"{file}: {size - 8 - n - end} bytes after the last tensor")

    def __iter__(self):
        return iter(sorted(self.entries))

    def __contains__(self, name):
        return name in self.entries

    def __getitem__(self, name):
        need(name in self.entries, f"tensor {name} is missing")
        file, offset, dtype, shape = self.entries[name]
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.memmap(file, np.uint8, "r", offset, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize).view(dtype).reshape(shape)

    def typed(self, name, dtype, shape):
        x = self[name]
        allowed = dtype if isinstance(dtype, tuple) else (dtype,)
        need(x.dtype in [np.dtype(d) for d in allowed], f"{name}: dtype {x.dtype}, expected {allowed}")
        need(x.shape == tuple(shape), f"{name}: shape {x.shape}, expected {tuple(shape)}")
        return x


def unpack_bits(words, bits, count):
    """[rows, w] int32 -> [rows, count] unsigned codes; a dense LSB-first bit string along each row."""
    rows = words.shape[0]
    need(words.shape[1] == -(-count * bits // 32), f"{words.shape[1]} words a row for {count} codes of {bits} bits")
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8).reshape(rows, -1), axis=1, bitorder="little")
    codes = stream[:, :count * bits].reshape(rows, count, bits)
    return (codes.astype(np.int32) << np.arange(bits, dtype=np.int32)).sum(axis=2, dtype=np.int32)


def expand(per_group, columns):
    groups = per_group.shape[1]
    need(columns % groups == 0, f"{columns} columns do not divide into {groups} groups")
    return np.repeat(per_group, columns // groups, axis=1)


# ---------------------------------------------------------------- compressed-tensors

FLOATS = (np.float32, np.float16, ml_dtypes.bfloat16)


def ct_scheme(config, module):
    """The config group of a Linear module, or None where it is ignored. Exact names and `re:` patterns."""
    import re

    def matches(pattern):
        return bool(re.match(pattern[3:], module)) if pattern.startswith("re:") else pattern in (module, "Linear")
    if any(matches(p) for p in config["ignore"]):
        return None
    for group in config["config_groups"].values():
        if any(matches(t) for t in group["targets"]):
            return group
    return None


def ct_tensor(ckpt, prefix, args, fmt):
    bits, kind, strategy = args["num_bits"], args["type"], args["strategy"]
    if fmt == "pack-quantized":
        shape = ckpt.typed(f"{prefix}.weight_shape", (np.int64, np.int32), (2,))
        rows, cols = map(int, shape)
        groups = cols // args["group_size"] if strategy == "group" else 1
        packed = ckpt.typed(f"{prefix}.weight_packed", np.int32, (rows, -(-cols * bits // 32)))
        q = unpack_bits(packed, bits, cols) - (1 << (bits - 1))
        scale = ckpt.typed(f"{prefix}.weight_scale", FLOATS, (rows, groups))
        zero = np.zeros((rows, groups), np.int32)
        if args["symmetric"]:
            need(f"{prefix}.weight_zero_point" not in ckpt, f"{prefix}: zero points on a symmetric scheme")
        else:
            z = ckpt.typed(f"{prefix}.weight_zero_point", np.int32, (-(-rows * bits // 32), groups))
            zero = unpack_bits(np.ascontiguousarray(z.T), bits, rows).T - (1 << (bits - 1))
        need(f"{prefix}.weight" not in ckpt, f"{prefix}: dense weight left beside the packed one")
        if f"{prefix}.weight_g_idx" in ckpt:
            g = ckpt.typed(f"{prefix}.weight_g_idx", np.int32, (cols,))
            return (q - zero[:, g]).astype(np.float32) * scale.astype(np.float32)[:, g]
        return (q - expand(zero, cols)).astype(np.float32) * expand(scale.astype(np.float32), cols)
    if fmt in ("int-quantized", "float-quantized", "naive-quantized"):
        q = ckpt[f"{prefix}.weight"]
        need(q.dtype == (np.int8 if kind == "int" else ml_dtypes.float8_e4m3fn), f"{prefix}.weight: dtype {q.dtype}")
        rows, cols = q.shape
        scale = ckpt[f"{prefix}.weight_scale"].astype(np.float32)
        if strategy == "tensor":
            need(scale.size == 1, f"{prefix}.weight_scale: shape {scale.shape}, expected one value")
            return q.astype(np.float32) * scale.reshape(1, 1)
        if strategy == "block":
            bh, bw = args["block_structure"]
            need(scale.shape == (-(-rows // bh), -(-cols // bw)), f"{prefix}.weight_scale: shape {scale.shape} for blocks {bh}x{bw}")
            return q.astype(np.float32) * np.repeat(np.repeat(scale, bh, 0)[:rows], bw, 1)[:, :cols]
        groups = cols // args["group_size"] if strategy == "group" else 1
        need(scale.shape == (rows, groups), f"{prefix}.weight_scale: shape {scale.shape}, expected {(rows, groups)}")
        return q.astype(np.float32) * expand(scale, cols)
    raise LayoutError(f"{prefix}: this reader does not know format {fmt}")


def compressed_tensors(ckpt):
    config = ckpt.config["quantization_config"]
    done = set()
    for name in ckpt:
        prefix, _, leaf = name.rpartition(".")
        if not leaf.startswith("weight") or prefix in done:
            continue
        done.add(prefix)
        if f"{prefix}.weight_scale" in ckpt:
            group = ct_scheme(config, prefix)
            need(group is not None, f"{prefix} is quantized but the config ignores it")
            yield f"{prefix}.weight", ct_tensor(ckpt, prefix, group["weights"], group.get("format") or config["format"])
        else:
            yield f"{prefix}.weight", ckpt[f"{prefix}.weight"].astype(np.float32)
    yield from dense_rest(ckpt, done)


def dense_rest(ckpt, done):
    for name in ckpt:
        prefix, _, leaf = name.rpartition(".")
        if prefix not in done or leaf == "bias":
            yield name, ckpt[name].astype(np.float32)


# ---------------------------------------------------------------- GPTQ and AWQ

def gptq(ckpt):
    config = ckpt.config["quantization_config"]
    sides = [f for f in (ckpt.folder / "quantize_config.json", ckpt.folder / "quantization_config.json") if f.exists()]
    need(sides, "quantize_config.json is missing")
    other = json.loads(sides[0].read_text())
    for key in ("bits", "group_size", "sym", "desc_act"):
        need(key in config and other.get(key) == config[key], f"{sides[0].name} and config.json differ on {key}")
    bits, v1 = config["bits"], config.get("checkpoint_format", "gptq") == "gptq"
    done = set()
    for name in ckpt:
        if not name.endswith(".qweight"):
            continue
        p = name[:-len(".qweight")]
        done.add(p)
        need(p + ".weight" not in ckpt, f"{p}: dense weight left beside the packed one")
        qweight = ckpt[name]
        cols, rows = qweight.shape[0] * 32 // bits, qweight.shape[1]
        groups = -(-cols // config["group_size"]) if config["group_size"] > 0 else 1
        need(qweight.dtype == np.int32 and cols % 32 == 0 and rows % 32 == 0, f"{name}: {qweight.dtype} {qweight.shape}")
        u = unpack_bits(np.ascontiguousarray(qweight.T), bits, cols)
        z = unpack_bits(ckpt.typed(f"{p}.qzeros", np.int32, (groups, rows * bits // 32)), bits, rows)
        z = z + 1 if v1 else z
        if config["sym"]:
            need((z == 1 << (bits - 1)).all(), f"{p}.qzeros: symmetric, yet zero points {np.unique(z)[:5]}")
        scales = ckpt.typed(f"{p}.scales", np.float16, (groups, rows)).astype(np.float32)
        g = ckpt.typed(f"{p}.g_idx", np.int32, (cols,))
        if not config["desc_act"]:
            need((g == np.arange(cols) // (cols // groups)).all(), f"{p}.g_idx is not plain although desc_act is false")
        yield f"{p}.weight", (u - z.T[:, g]).astype(np.float32) * scales.T[:, g]
    need(done, "no qweight tensor")
    yield from dense_rest(ckpt, done)


def awq(ckpt):
    config = ckpt.config["quantization_config"]
    need(config["bits"] == 4 and config["version"].lower() == "gemm" and config["zero_point"], f"not AWQ GEMM: {config}")
    place = np.array([0, 4, 1, 5, 2, 6, 3, 7])
    done = set()

    def nibbles(words):
        fields = (words[:, :, None].view(np.uint32) >> (4 * place[None, None, :]).astype(np.uint32)) & 15
        return fields.reshape(words.shape[0], -1).astype(np.int32)
    for name in ckpt:
        if not name.endswith(".qweight"):
            continue
        p = name[:-len(".qweight")]
        done.add(p)
        cols, rows = ckpt[name].shape[0], ckpt[name].shape[1] * 8
        groups = cols // config["group_size"] if config["group_size"] > 0 else 1
        u = nibbles(np.ascontiguousarray(ckpt.typed(name, np.int32, (cols, rows // 8))))
        z = nibbles(np.ascontiguousarray(ckpt.typed(f"{p}.qzeros", np.int32, (groups, rows // 8))))
        scales = ckpt.typed(f"{p}.scales", np.float16, (groups, rows)).astype(np.float32)
        need(f"{p}.g_idx" not in ckpt, f"{p}: AWQ has no g_idx")
        yield f"{p}.weight", (u.T - expand(z.T, cols)).astype(np.float32) * expand(scales.T, cols)
    need(done, "no qweight tensor")
    yield from dense_rest(ckpt, done)


# ---------------------------------------------------------------- bitsandbytes NF4

def nf4(ckpt):
    done = set()
    for name in ckpt:
        if not name.endswith(".weight.quant_state.bitsandbytes__nf4"):
            continue
        w = name[:-len(".quant_state.bitsandbytes__nf4")]
        p = w[:-len(".weight")]
        done.add(p)
        state = json.loads(bytes(ckpt[name]).decode())
        count, block = int(np.prod(state["shape"])), state["blocksize"]
        packed = ckpt.typed(w, np.uint8, (-(-count // 2), 1)).reshape(-1)
        table = ckpt.typed(f"{w}.quant_map", np.float32, (16,))
        need((table == NF4).all(), f"{w}.quant_map is not the NF4 table")
        blocks = -(-count // block)
        if "nested_blocksize" in state:
            q = ckpt.typed(f"{w}.absmax", np.uint8, (blocks,))
            nested = ckpt.typed(f"{w}.nested_absmax", np.float32, (-(-blocks // state["nested_blocksize"]),))
            levels = ckpt.typed(f"{w}.nested_quant_map", np.float32, (256,))
            absmax = levels[q] * np.repeat(nested, state["nested_blocksize"])[:blocks] + np.float32(state["nested_offset"])
        else:
            absmax = ckpt.typed(f"{w}.absmax", np.float32, (blocks,))
        codes = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)[:count]
        yield w, (NF4[codes] * np.repeat(absmax, block)[:count]).reshape(state["shape"])
    need(done, "no NF4 tensor")
    for name in ckpt:
        if not any(name.startswith(p + ".weight") for p in done):
            yield name, ckpt[name].astype(np.float32)


READERS = {"compressed-tensors": compressed_tensors, "gptq": gptq, "awq": awq, "bitsandbytes": nf4}


def dequantize(folder):
    ckpt = Checkpoint(folder)
    method = ckpt.config.get("quantization_config", {}).get("quant_method")
    if method is None:
        return ((n, ckpt[n].astype(np.float32)) for n in ckpt)
    need(method in READERS, f"{folder}: unknown quant_method {method}")
    return READERS[method](ckpt)


# ---------------------------------------------------------------- comparing

def raw(x):
    return np.ascontiguousarray(x).view({1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[x.dtype.itemsize])


def compare(name, got, reference):
    """None where `got`, rounded to the reference's own dtype, has the reference's bits; else a line saying where not."""
    if got.shape != reference.shape:
        return f"{name}: shape {got.shape}, expected {reference.shape}"
    if not np.isfinite(got).all():
        return f"{name}: {np.count_nonzero(~np.isfinite(got))} values are not finite"
    rounded = got.astype(reference.dtype)
    off = (raw(rounded) != raw(reference)) & ~((rounded == 0) & (reference == 0))
    if not off.any():
        return None
    at = tuple(int(i) for i in np.argwhere(off)[0])
    gap = np.abs(rounded.astype(np.float32) - reference.astype(np.float32))
    return (f"{name}: {np.count_nonzero(off)} of {off.size} values differ, first at {list(at)}: got {float(rounded[at])!r}, "
            f"expected {float(reference[at])!r}; largest gap {gap.max():.3e} of {np.abs(reference.astype(np.float32)).max():.3e}")


class Tally:
    """Counts checks, prints each failure, ends with one line a test runner's reader knows."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, problem, label=None):
        if problem:
            self.failed += 1
            print(f"FAIL {label + ': ' if label else ''}{problem}", flush=True)
        else:
            self.passed += 1

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed or not self.passed else 0
