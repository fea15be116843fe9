#!/usr/bin/env python3
"""Light tier: llama.cpp itself loads the GGUF artifact, generates and scores text.

    check_llama.py ARTIFACT.gguf TEXT [--peer PEER.gguf] [--base F16.gguf] [--chunks 20]

Perplexity is the one llama.cpp's own perplexity tool prints: the second half of TEXT (split at the middle
character), windows of 512 tokens, consecutive, the second half of each window scored. With --peer, a file
llama.cpp quantized from the same weights to the same type, ours may be at most 1 % above it. With --base,
the mean KL divergence from the unquantized file over the same tokens is printed for both.
"""
import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

from layouts import Tally

CTX = 512


def log_softmax(x):
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


class Engine:
    def __init__(self, path, threads):
        from llama_cpp import Llama
        self.llm = Llama(model_path=str(path), n_ctx=CTX, n_batch=CTX, logits_all=True, n_threads=threads,
                         n_threads_batch=threads, verbose=False)

    def tokens(self, text):
        return self.llm.tokenize(text.encode(), add_bos=True, special=False)

    def generate(self, prompt, count=16):
        return self.llm(prompt, max_tokens=count, temperature=0.0)["choices"][0]["text"]

    def scores(self, tokens):
        """log p over the vocabulary at each position of the second half but the last, as the engine computes it."""
        self.llm.reset()
        self.llm.eval(tokens)
        return log_softmax(np.asarray(self.llm.scores[CTX // 2:CTX - 1], np.float32))


def evaluate(paths, text, chunks, threads, base):
    """One result a file; each window goes through the base file once."""
    engines = [Engine(p, threads) for p in paths]
    base = base and Engine(base, threads)
    ids = engines[0].tokens(text)
    chunks = min(chunks, len(ids) // CTX)
    nll, kl = [0.0] * len(engines), [0.0] * len(engines)
    for i in range(chunks):
        window = ids[i * CTX:(i + 1) * CTX]
        ref = base.scores(window) if base else None
        for n, engine in enumerate(engines):
            logp = engine.scores(window)
            nll[n] -= float(logp[np.arange(len(logp)), window[CTX // 2 + 1:]].sum(dtype=np.float64))
            if base:
                kl[n] += float((np.exp(ref) * (ref - logp)).sum(dtype=np.float64))
    count = chunks * (CTX - 1 - CTX // 2)
    return [{"file": str(p), "chunks": chunks, "perplexity": round(math.exp(nll[n] / count), 4),
             **({"mean_kl": round(kl[n] / count, 6)} if base else {}),
             "text": e.generate("The capital of France is")} for n, (p, e) in enumerate(zip(paths, engines))]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("artifact")
    p.add_argument("text")
    p.add_argument("--peer")
    p.add_argument("--base")
    p.add_argument("--chunks", type=int, default=20)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    text = Path(a.text).read_text()
    text = text[len(text) // 2:]
    tally = Tally()
    results = evaluate([f for f in (a.artifact, a.peer) if f], text, a.chunks, a.threads, a.base)
    for r in results:
        print(json.dumps(r), flush=True)
    ours = results[0]
    tally.check(None if ours["text"].strip() else "generates nothing", a.artifact)
    tally.check(None if math.isfinite(ours["perplexity"]) else "perplexity is not finite", a.artifact)
    if a.peer:
        ratio = ours["perplexity"] / results[1]["perplexity"]
        print(f"perplexity is {ratio:.5f} of the peer's")
        tally.check(None if ratio <= 1.01 else f"perplexity {ours['perplexity']}, peer {results[1]['perplexity']}", a.artifact)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
