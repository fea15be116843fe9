#!/usr/bin/env python3
"""By hand: pruned weights as sparse files, read by what reads them, against the dense output.

    check_sparse.py --binary modelpress [--model DIR] [--work DIR] [--keep]

Needs compressed-tensors 0.14.0.1, the newest with sparse compressors, and transformers 4 (`pip install
'compressed-tensors==0.14.0.1' 'transformers<5' accelerate`), and numpy for the Python package's reader.

MODEL is pruned by magnitude, without data. Of every row of the table:

 1. `sparse-24-bitmask`: AutoModelForCausalLM.from_pretrained loads the folder, no key missing or left over; its weights are
    the dense output's, bit for bit. ModelCompressor.decompress gives the same.
 2. `sparse-bitmask`: ModelCompressor.decompress alone; transformers 4 cannot make room for values whose number it does not
    know.
 3. `packed`: `modelpress unpack` and the Python package give the dense output, bit for bit.
 4. The sizes of all, and those that the report says each layout takes, which are counted here again in numpy.
"""
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "openapi/sdks/python/src"))

HALF, TWO_OF_FOUR = {"sparsity": 0.5}, {"pattern": "2:4"}
# label, options of magnitude, values of the option sparsity that hold it
ROWS = [
    ("2:4", TWO_OF_FOUR, ["sparse-24-bitmask", "sparse-bitmask"]),
    ("50 %", HALF, ["sparse-bitmask"]),
    ("90 %", {"sparsity": 0.9}, ["sparse-bitmask"]),
]


class Failed(Exception):
    """What does not agree."""


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: {done.stderr[-2000:]}")
    return done.stdout


def compress(binary, model, options, formats, out):
    recipe = out.with_suffix(".json")
    recipe.write_text(json.dumps({"stages": [{"technique": "magnitude", "options": options}], "formats": formats}))
    run(binary, "compress", model, "--recipe", recipe, "--out", out)
    return out


def same(what, found, dense):
    """Every tensor of the dense output, to the bit; -0 is no +0."""
    for name, right in dense.items():
        if name not in found:
            raise Failed(f"{what}: {name} is missing")
        left = found[name].detach().to("cpu").contiguous()
        if left.dtype != right.dtype or left.shape != right.shape:
            raise Failed(f"{what}: {name} is {left.dtype} {tuple(left.shape)}")
        if not torch.equal(left.view(torch.uint8), right.contiguous().view(torch.uint8)):
            raise Failed(f"{what}: {name} has other bits")
    print(f"  {what}: {len(dense)} tensors, equal bits")


def by_transformers(folder, dense):
    from transformers import AutoModelForCausalLM
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    odd = {kind: names for kind, names in info.items() if names}
    if odd:
        raise Failed(f"transformers: {odd}")
    same("transformers", model.state_dict(), dense)
    logits = model(torch.arange(1, 33)[None]).logits
    if not torch.isfinite(logits).all():
        raise Failed("transformers: logits are no numbers")


def by_library(folder, dense):
    """compressed-tensors alone, as it reads a folder from disk."""
    from compressed_tensors import ModelCompressor
    from transformers import AutoConfig, AutoModelForCausalLM
    config = AutoConfig.from_pretrained(folder)
    compressor = ModelCompressor.from_compression_config(config.quantization_config)
    model = AutoModelForCausalLM.from_config(config, dtype=config.dtype)
    compressor.decompress(str(folder), model)
    state = model.state_dict()
    same("ModelCompressor", state, dense)


def counted(dense, pruned, pattern):
    """What each layout takes, from its definition."""
    def width(largest):
        return next(bytes_ for bytes_ in (1, 2, 4, 8) if largest < 1 << 8 * bytes_)

    sizes = dict.fromkeys(("dense_bytes", "bitmask_bytes", "csr_bytes", "pattern_bytes"), 0)
    for name in pruned:
        values = dense[name]
        rows, cols = values.shape
        item, nonzero = values.element_size(), int(torch.count_nonzero(values))
        sizes["dense_bytes"] += rows * cols * item
        sizes["bitmask_bytes"] += rows * (-(-cols // 8) + 8) + nonzero * item
        sizes["csr_bytes"] += nonzero * (item + width(cols - 1)) + (rows + 1) * width(nonzero)
        sizes["pattern_bytes"] += rows * (cols // 2 * item + -(-cols // 2) // 4)
    if pattern is None:
        del sizes["pattern_bytes"]
    return sizes


def check(label, options, forms, arguments, work):
    print(label)
    first = compress(arguments.binary, arguments.model, options, ["safetensors", "packed"], work / "first")
    dense = load_file(first / "safetensors/model.safetensors")
    report = json.loads((first / "report.json").read_text())
    run(arguments.binary, "unpack", first / "packed", "--out", work / "unpacked")
    same("modelpress unpack", load_file(work / "unpacked/model.safetensors"), dense)
    from modelpress import packed
    packed.to_safetensors(first / "packed/model.packed", work / "python.safetensors")
    same("modelpress.packed", load_file(work / "python.safetensors"), dense)
    sizes = {format["format"]: format["weight_bytes"] for format in report["formats"]}
    memory = {format["format"]: format["memory_bytes"] for format in report["formats"]}
    for form in forms:
        formats = [{"format": "compressed-tensors", "options": {"sparsity": form}}]
        out = compress(arguments.binary, arguments.model, options, formats, work / form)
        folder = out / "compressed-tensors"
        if form == "sparse-24-bitmask":
            by_transformers(folder, dense)
        by_library(folder, dense)
        found = json.loads((out / "report.json").read_text())["formats"][0]
        sizes[form], memory[form] = found["weight_bytes"], found["memory_bytes"]
    if set(memory.values()) != {sum(t.numel() * t.element_size() for t in dense.values())}:
        raise Failed(f"in memory: {memory}")
    pruned = [t["name"] for t in report["tensors"] if t["compressed"]]
    said, right = report["sparse"], counted(dense, pruned, report["sparse"].get("pattern"))
    if {name: said[name] for name in right} != right:
        raise Failed(f"the report says {said}, counted are {right}")
    print(f"  weights on disk: {sizes}; in memory: {memory['packed']}")
    print(f"  pruned tensors: {right}, the smallest {said['smallest_bytes']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", default="/tmp/smol")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--keep", action="store_true", help="leave the work folder")
    arguments = parser.parse_args()
    work, failed = arguments.work or Path(tempfile.mkdtemp(prefix="check-sparse-")), 0
    for label, options, forms in ROWS:
        folder = work / label.replace(" ", "").replace("%", "").replace(":", "of")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            check(label, options, forms, arguments, folder)
        except Failed as error:
            failed += 1
            print(f"  FAILED: {error}")
    if not arguments.keep:
        shutil.rmtree(work)
    print(f"{len(ROWS) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
