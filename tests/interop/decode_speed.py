#!/usr/bin/env python3
"""Times how fast llama.cpp decodes: a program for the setting decode_command.

    decode_speed.py FORMAT FOLDER

Prints {"decode_tokens_per_second": …, "runtime": …}: the median of three runs of 64 tokens behind a prompt of 16, one
sequence at a time. Exits with 3 for formats other than gguf. Needs llama-cpp-python (requirements-light.txt): make its
first line name the Python that has it, or set decode_command to a script that calls it with one.
"""
import json
import os
import statistics
import sys
import time
from pathlib import Path

PROMPT, TOKENS, RUNS = 16, 64, 3
NO_ENGINE = 3


def speed(llm):
    """Tokens a second, greedy."""
    llm.reset()
    llm.eval(list(range(1, PROMPT + 1)))
    began = time.monotonic()
    for _ in range(TOKENS):
        llm.eval([llm.sample(temp=0.0)])
    return TOKENS / (time.monotonic() - began)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    files = sorted(Path(sys.argv[2]).glob("*.gguf"))
    if sys.argv[1] != "gguf" or not files:
        sys.exit(NO_ENGINE)
    import llama_cpp

    threads = len(os.sched_getaffinity(0))
    llm = llama_cpp.Llama(model_path=str(files[0]), n_ctx=PROMPT + TOKENS + 8, n_threads=threads, verbose=False)
    median = statistics.median(speed(llm) for _ in range(RUNS))
    runtime = f"llama.cpp (llama-cpp-python {llama_cpp.__version__}), {threads} threads"
    print(json.dumps({"decode_tokens_per_second": round(median, 2), "runtime": runtime}))


if __name__ == "__main__":
    main()
