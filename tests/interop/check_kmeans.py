#!/usr/bin/env python3
"""By hand: codebooks against scikit-learn's KMeans (n_init=10, k-means++, Lloyd).

    check_kmeans.py FITS.json TENSOR.npy [FITS.json TENSOR.npy ...] [--n-init 10] [--tol 1e-4]
                    [--tolerance 1e-6] [--all-values]

FITS.json is {"fits": [{"k", "centroids", "inertia", "seconds"}, ...]}: what modelpress made of the tensor's values, each
of weight 1, with centroids of f32. For every k the inertia it states must be what its centroids give when every value
goes to the nearest (tolerance 1e-6, relative), and at most scikit-learn's. Both see the distinct values with their
counts, which is the same problem and a kindness to scikit-learn's time; --all-values gives it every value instead.
Prints a row a k: inertia of both, their ratio, seconds of both. Needs numpy and scikit-learn.
"""
import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans

from layouts import Tally


def inertia_of(values, counts, centroids):
    """In f64, every value to its nearest centroid."""
    centroids = np.asarray(centroids, dtype=np.float64)
    codes = np.searchsorted(0.5 * (centroids[1:] + centroids[:-1]), values)
    return float((counts * (values - centroids[codes]) ** 2).sum())


def peer(values, counts, k, a):
    """scikit-learn's inertia and seconds; in f64, for it subtracts the mean and sums in the type it is given."""
    kmeans = KMeans(n_clusters=k, init="k-means++", n_init=a.n_init, algorithm="lloyd", tol=a.tol,
                    max_iter=1000, random_state=0)
    began = time.perf_counter()
    kmeans.fit(values[:, None], sample_weight=counts)
    seconds = time.perf_counter() - began
    return np.sort(kmeans.cluster_centers_[:, 0]), seconds


def check(tally, fits, tensor, a):
    every = np.load(tensor).ravel().astype(np.float64)
    values, counts = np.unique(every, return_counts=True)
    print(f"\n{tensor.stem}: {every.size} values, {values.size} distinct\n\n"
          "| k | inertia | scikit-learn | ratio | s | scikit-learn s |\n|---|---|---|---|---|---|")
    for fit in json.loads(fits.read_text())["fits"]:
        label, k = f"{tensor.stem} k={fit['k']}", fit["k"]
        ours = inertia_of(values, counts, fit["centroids"])
        stated = abs(fit["inertia"] - ours) <= 1e-6 * ours
        tally.check(None if stated else f"states {fit['inertia']}, its centroids give {ours}", label)
        tally.check(None if len(fit["centroids"]) <= k else f"{len(fit['centroids'])} centroids", label)
        given = (every, np.ones(every.size)) if a.all_values else (values, counts)
        centres, seconds = peer(*given, k, a)
        theirs = inertia_of(values, counts, centres)
        print(f"| {k} | {ours:.8g} | {theirs:.8g} | {ours / theirs:.6f} | {fit['seconds']:.3f} | {seconds:.2f} |",
              flush=True)
        tally.check(None if ours <= theirs * (1 + a.tolerance) else f"{ours}, scikit-learn {theirs}", label)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pairs", nargs="+", type=Path, metavar="FITS.json TENSOR.npy")
    p.add_argument("--n-init", type=int, default=10)
    p.add_argument("--tol", type=float, default=1e-4, help="where scikit-learn stops; 1e-4 is its default")
    p.add_argument("--tolerance", type=float, default=1e-6, help="f32 centroids against f64")
    p.add_argument("--all-values", action="store_true")
    a = p.parse_args()
    if len(a.pairs) % 2:
        p.error("give pairs")
    tally = Tally()
    for fits, tensor in zip(a.pairs[::2], a.pairs[1::2]):
        check(tally, fits, tensor, a)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
