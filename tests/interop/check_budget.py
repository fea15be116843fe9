#!/usr/bin/env python3
"""Full tier, by hand: what a budget chooses against llama.cpp's own mixes, measured by llama.cpp.

    check_budget.py --binary modelpress --model MODEL_DIR --text TEXT [--keep DIR] [--chunks 20]

Calibration is the first half of TEXT, everything is measured on its second half. `Q4_K_M` with an importance matrix is the
file that llama-quantize writes with the same matrix, byte for byte (check_imatrix.py). Of the reference model the types with
a minimum of 32 weights (Q4_1, Q5_1) prove nothing: its weights were Q4_1. They are left out unless --all is given.

 1. At that file's exact size our choice has a lower mean KL divergence to F16 in llama.cpp.
 2. For a perplexity at most 1 % higher our choice is smaller than the smallest of llama.cpp's mixes with importance that
    keeps it, and it keeps it by our report, with the upper end of its interval.
 3. Predicted divergences of sizes that were not tried: how many lie in their intervals.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

from check_llama import evaluate
from layouts import Tally
from make_peer_gguf import write_f16

HONEST = ["IQ3_S", "IQ3_XXS", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K", "Q4_0", "Q4_K", "Q5_0", "Q5_K", "Q6_K", "Q8_0"]
# llama.cpp's mixes from the smallest on; those that fall back to Q4_1 and Q5_1 (Q5_K at 576 columns) among them.
MIXES = ["Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0"]


class Runs:
    def __init__(self, a):
        self.a = a
        text = Path(a.text).read_text()
        self.halves = [a.keep / "calibration.txt", a.keep / "evaluation.txt"]
        for path, half in zip(self.halves, (text[:len(text) // 2], text[len(text) // 2:])):
            path.write_text(half)

    def recipe(self, preset, options=None, budget=None):
        recipe = {"preset": preset, "calibration": {"dataset": str(self.halves[0]), "num_samples": 64},
                  "evaluation": {"dataset": str(self.halves[1]), "metrics": ["kl", "perplexity"], "num_samples": 32}}
        recipe.update({"options": options} if options else {})
        recipe.update({"budget": budget} if budget else {})
        return recipe

    def run(self, name, recipe):
        folder = self.a.keep / name
        if not (folder / "report.json").exists():
            command = [self.a.binary, "compress", self.a.model, "--recipe", json.dumps(recipe), "--out", folder,
                       "--cache", self.a.keep / "cache"]
            done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
            if not (folder / "report.json").exists():
                sys.exit(done.stderr[-2000:])
        report = json.loads((folder / "report.json").read_text())
        measures = {m["metric"]: m for m in report["quality"]["measures"]}
        seconds = sum(stage["seconds"] for stage in report["stages"])
        print(f"{name}: {report['formats'][0]['bytes']} bytes, KL {measures['kl']['after']:.5f}, perplexity "
              f"{100 * measures['perplexity']['change']:+.2f} % ({seconds:.0f} s)", flush=True)
        return report, measures, next(folder.glob("*/*.gguf"), None)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--text", required=True)
    p.add_argument("--keep", type=Path, default=Path("budget-check"))
    p.add_argument("--chunks", type=int, default=20)
    p.add_argument("--all", action="store_true")
    p.add_argument("--only", default="123", help="which of the three to check")
    a = p.parse_args()
    a.keep.mkdir(parents=True, exist_ok=True)
    runs, tally = Runs(a), Tally()
    candidates = {} if a.all else {"candidates": HONEST}
    peer, _, peer_file = runs.run("Q4_K_M-imatrix", runs.recipe("Q4_K_M", {"imatrix": "calibration"}))
    size = peer["formats"][0]["bytes"]
    if "1" in a.only or "3" in a.only:
        ours, _, file = runs.run("at-its-size", runs.recipe("Q4_K_M", budget={"target_bytes": size, **candidates}))
    if "1" in a.only:
        base = a.keep / "F16.gguf"
        if not base.exists():
            write_f16(a.model, base)
        results = evaluate([file, peer_file], runs.halves[1].read_text(), a.chunks, 2, base)
        for result in results:
            print(json.dumps(result))
        tally.check(None if ours["formats"][0]["bytes"] <= size else "larger than Q4_K_M", "size")
        lower = results[0]["mean_kl"] < results[1]["mean_kl"]
        tally.check(None if lower else f"{results[0]['mean_kl']}, Q4_K_M {results[1]['mean_kl']}", "KL at Q4_K_M's size")
    if "2" in a.only:
        limit = {"max_perplexity_increase": 0.01, **candidates}
        least, measures, _ = runs.run("one-percent", runs.recipe("Q4_K_M", budget=limit))
        upper = measures["perplexity"]["change_interval"][1]
        tally.check(None if upper <= 0.01 else f"perplexity may be {100 * upper:.2f} % higher", "one percent")
        for mix in MIXES:
            report, theirs, _ = runs.run(f"{mix}-imatrix", runs.recipe(mix, {"imatrix": "calibration"}))
            if theirs["perplexity"]["change_interval"][1] <= 0.01:
                smaller = least["formats"][0]["bytes"] < report["formats"][0]["bytes"]
                tally.check(None if smaller else f"{mix} keeps it with {report['formats'][0]['bytes']}", f"smaller than {mix}")
                break
    if "3" in a.only:
        within = 0
        points = ours["allocation"]["curve"][1:-1]
        for point in points:
            name = f"held-{point['bytes']}"
            budget = {"target_bytes": point["bytes"], "max_rounds": 1, **candidates}
            _, measures, _ = runs.run(name, runs.recipe("Q4_K_M", budget=budget))
            low, high = point["predicted_kl_interval"]
            inside = low <= measures["kl"]["after"] <= high
            within += inside
            print(f"{name}: predicted {point['predicted_kl']:.5f}, {low:.5f} to {high:.5f}: {'within' if inside else 'outside'}")
        enough = within * 10 >= 9 * len(points)
        tally.check(None if enough else f"{within} of {len(points)}", "predictions within their intervals")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
