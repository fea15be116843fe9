"""Full tier, shared by the checks that need torch: loading a folder as a user does, and perplexity.

Perplexity: the second half of the text (split at the middle character) as one string, tokenized without
special tokens, windows of 1,024 tokens, consecutive, no overlap, no BOS; exp of the mean negative log
likelihood of the 1,023 predicted tokens of each window; f32 arithmetic.
"""
import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from layouts import Tally, compare

WINDOW = 1024


def load(folder, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def tokenizer(folder):
    return PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / "tokenizer.json"))


def token_ids(folder, text):
    text = Path(text).read_text()
    return tokenizer(folder)(text[len(text) // 2:], add_special_tokens=False)["input_ids"]


def perplexity(model, ids, windows):
    windows, nll = min(windows, len(ids) // WINDOW), 0.0
    with torch.inference_mode():
        for w in range(windows):
            x = torch.tensor([ids[w * WINDOW:(w + 1) * WINDOW]])
            logits = model(x).logits[0, :-1].float()
            nll += torch.nn.functional.cross_entropy(logits, x[0, 1:], reduction="sum").item()
    return math.exp(nll / (windows * (WINDOW - 1)))


def generate(model, folder, prompt="The capital of France is"):
    t = tokenizer(folder)
    x = torch.tensor([t(prompt, add_special_tokens=False)["input_ids"]])
    with torch.inference_mode():
        y = model.generate(x, attention_mask=torch.ones_like(x), max_new_tokens=12, do_sample=False, pad_token_id=2)
    return t.decode(y[0, x.shape[1]:])


def to_numpy(t):
    """Bits as they are: numpy has no bf16 of its own."""
    import ml_dtypes
    t = t.detach().contiguous()
    return t.view(torch.uint16).numpy().view(ml_dtypes.bfloat16) if t.dtype == torch.bfloat16 else t.numpy()


def compare_weights(tally: Tally, got, reference, label):
    """Each 2-D weight of the dense reference against the tensor of the same name in `got`, bit for bit."""
    import numpy as np
    for name in reference:
        if reference[name].ndim < 2 or (name == "lm_head.weight" and name not in got):
            continue
        if name not in got:
            tally.check(f"{name} is missing", label)
            continue
        tally.check(compare(name, to_numpy(got[name]).astype(np.float32), reference[name]), label)
