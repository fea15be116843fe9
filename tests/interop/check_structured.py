#!/usr/bin/env python3
"""Full tier, by hand: a structurally pruned model (fewer channels, heads or layers; no zeros kept) in the engines.

    check_structured.py FOLDER [--gguf FILE.gguf] --text TEXT (--report report.json | --perplexity X)
                        [--tolerance 0.005] [--windows 40] [--source MODEL_DIR]

1. config.json needs no code of the model's own (`auto_map`), and transformers loads the folder without trust_remote_code: no
   key missing, none left over, none of another shape; it has as many weights as the files; it generates.
2. Perplexity by hf_eval.py on the second half of TEXT is the report's to the tolerance (relative).
3. llama.cpp loads the GGUF, and the same windows, token for token, have the report's perplexity in it too. Its default
   attention and sums are of less than f32: about 0.1 %.
4. With --source: the model has fewer weights than that.

The report must have been measured on the same windows: `evaluation: {dataset: second half, num_samples: 40,
max_seq_length: 1024}`. llama-cpp-python is taken from --light, which may be the same environment.
"""
import argparse
import json
import math
import os
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM

from compare import in_llama
from hf_eval import generate, perplexity, token_ids
from layouts import Checkpoint, Tally

KEYS = ("missing_keys", "unexpected_keys", "mismatched_keys")
SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")


def weights_of(folder):
    checkpoint = Checkpoint(folder)
    return sum(math.prod(checkpoint.entries[name][3]) for name in checkpoint)


def loaded(tally, folder):
    """The model as a user gets it, in f32."""
    config = json.loads((Path(folder) / "config.json").read_text())
    tally.check("config.json has an auto_map: loading it would run code" if "auto_map" in config else None, "config")
    try:
        model, info = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", trust_remote_code=False, output_loading_info=True)
    except (RuntimeError, ValueError, KeyError, OSError) as error:  # shapes that disagree with config.json, a type it lacks
        tally.check(f"{type(error).__name__}: {error}", "loading")
        return None, config
    for what in KEYS:
        tally.check(f"{what}: {sorted(map(str, info[what]))[:5]}" if info[what] else None, "loading")
    return model.eval(), config


def expected(a):
    if a.report is None:
        return a.perplexity
    quality = json.loads(a.report.read_text())["quality"]
    if quality["max_seq_length"] != 1024 or quality["sequences"] != a.windows:
        sys.exit(f"the report measured {quality['sequences']} sequences of {quality['max_seq_length']}, not {a.windows} of 1024")
    return next(m["after"] for m in quality["measures"] if m["metric"] == "perplexity")


def agrees(tally, got, want, tolerance, label):
    if not isinstance(got, float):
        return tally.check(got, label)
    apart = abs(got / want - 1)
    tally.check(None if apart <= tolerance else f"perplexity {got:.4f}, report {want:.4f}: {100 * apart:.3f} % apart", label)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("--gguf")
    p.add_argument("--text", required=True)
    figure = p.add_mutually_exclusive_group(required=True)
    figure.add_argument("--report", type=Path)
    figure.add_argument("--perplexity", type=float)
    p.add_argument("--tolerance", type=float, default=0.005)
    p.add_argument("--windows", type=int, default=40)
    p.add_argument("--source")
    p.add_argument("--light", default=os.environ.get("INTEROP_PYTHON_LIGHT", sys.executable))
    a = p.parse_args()
    tally, want = Tally(), expected(a)
    model, config = loaded(tally, a.folder)
    if model is None:
        return tally.finish()
    stored = weights_of(a.folder)
    held = sum(x.numel() for x in model.parameters())
    tally.check(None if held == stored else f"{held} weights in transformers, {stored} in the files", "weights")
    text = generate(model, a.folder)
    tally.check(None if text.strip() else "generates nothing", "transformers")
    found = {"folder": a.folder, "weights": stored, **{k: config[k] for k in SHAPE if k in config}, "text": text, "report": want}
    if a.source:
        tally.check(None if stored < weights_of(a.source) else f"{stored} weights, as many as the source", "weights")
    found["transformers"] = round(perplexity(model, token_ids(a.folder, a.text), a.windows), 4)
    agrees(tally, found["transformers"], want, a.tolerance, "transformers")
    del model
    if a.gguf:
        a.model = a.folder  # whose tokenizer cuts the windows
        found["llama.cpp"] = in_llama(a, a.gguf, a.light)
        agrees(tally, found["llama.cpp"], want, a.tolerance, "llama.cpp")
    print(json.dumps(found))
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
