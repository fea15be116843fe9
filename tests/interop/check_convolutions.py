#!/usr/bin/env python3
"""Full tier, by hand: convolutions taken apart, in transformers.

    check_convolutions.py --binary modelpress [--work DIR] [--ratio 0.5] [--threads 2]

1. Trains a small ResNet of transformers on scikit-learn's digits (half a minute; kept in --work), so that accuracy is real.
2. tucker, cp, tensor_train, spatial_svd and depthwise_separable each take it apart through the binary, as `low-rank` and as
   `safetensors`. AutoModelForImageClassification loads the first with trust_remote_code, no key missing or left over, and
   answers the images as the second does, whose kernels are dense: 1e-4 in each logit. Both are computed in f64, so that it is
   the files' roundings that count (in f32 one and the same MobileNetV2 is 3e-4 away from itself in f64). Batch norm's integers
   come back.
3. The same for ConvNeXt (biases, strides as wide as kernels, depthwise kernels), MobileNetV2 (padding that is worked out from a
   layer's stride; inputs alone) and RegNet (kernels in groups), with random weights.
4. Squared errors of Tucker, CP and tensor-train kernels against tensorly's at the same ranks: at most 0.1 % above (CP: the best
   of four starts of tensorly's).

pip install torch transformers scikit-learn tensorly pillow safetensors
"""
import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tensorly
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tensorly.decomposition import parafac, partial_tucker, tensor_train
from transformers import (
    AutoModelForImageClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    RegNetConfig,
    RegNetForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
)

TECHNIQUES = ("tucker", "cp", "tensor_train", "spatial_svd", "depthwise_separable")
LOGITS = 1e-4
PEER = 1.001

failures = []

CACHE = Path(os.environ.get("INTEROP_CACHE", Path.home() / ".cache/modelpress-interop"))


def check(fault, where):
    if fault:
        failures.append(f"{where}: {fault}")
        print(f"  FAILED {where}: {fault}")


def digits():
    """Images of 32 × 32 in three channels, for training and for testing."""
    data = load_digits()
    images = torch.tensor(data.images / 8.0 - 1.0, dtype=torch.float32)[:, None]
    images = torch.nn.functional.interpolate(images, size=(32, 32), mode="bilinear").repeat(1, 3, 1, 1)
    return train_test_split(images, torch.tensor(data.target), test_size=0.4, random_state=0)


def trained(folder, train, labels):
    if (folder / "model.safetensors").exists():
        return
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=32, hidden_sizes=[32, 64, 128], depths=[1, 2, 1], layer_type="basic", num_labels=10)
    model = ResNetForImageClassification(config)
    rate, epochs, batch = 3e-3, 10, 64
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    steps = epochs * (len(train) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(train))
        for at in range(0, len(train) - batch + 1, batch):
            chosen = order[at : at + batch]
            loss = torch.nn.functional.cross_entropy(model(train[chosen]).logits, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.save_pretrained(folder)


def random_models(folder):
    """Models with what a ResNet has not, their weights random, statistics of batch norms of some images."""
    torch.manual_seed(1)
    cases = {
        "convnext": ConvNextForImageClassification(ConvNextConfig(hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], num_labels=10)),
        "mobilenet_v2": MobileNetV2ForImageClassification(MobileNetV2Config(depth_multiplier=0.25, num_labels=10)),
        "regnet": RegNetForImageClassification(
            RegNetConfig(embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], groups_width=8, num_labels=10)
        ),
    }
    for name, model in cases.items():
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 4:
                    torch.nn.init.kaiming_normal_(parameter)
        model.train()
        for _ in range(20):
            model(torch.randn(16, 3, 32, 32))
        model.save_pretrained(folder / name)
        yield name, folder / name


def compressed(binary, model, out, technique, options):
    if out.exists():
        subprocess.run(["rm", "-r", out], check=True)
    recipe = {
        "stages": [{"technique": technique, "options": options}],
        "formats": ["low-rank", {"format": "safetensors", "options": {"dtype": "F32"}}],
    }
    command = [binary, "compress", model, "--recipe", json.dumps(recipe), "--out", out]
    begun = time.perf_counter()
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        check(done.stderr.strip()[-400:], f"{model.name} {technique}")
        return None
    return time.perf_counter() - begun


@torch.no_grad()
def logits(model, images):
    return torch.cat([model(part).logits for part in images.split(256)])


def loaded(folder, where):
    model, info = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        check(f"{what}: {sorted(map(str, info[what]))[:5]}" if info[what] else None, where)
    return model.eval()


def compared(model, out, images, where):
    """Logits of the layers, held to those of the dense kernels that they stand for."""
    several, dense = loaded(out / "low-rank", where), loaded(out / "safetensors", where)
    answers, expected = (logits(model.double(), images.double()) for model in (several, dense))
    gap = (answers - expected).abs().max().item()
    check(f"logits differ by {gap:.2e}" if not gap <= LOGITS else None, where)
    source, kept = load_file(model / "model.safetensors"), load_file(out / "low-rank" / "model.safetensors")
    for name, value in source.items():
        if value.dtype == torch.int64:
            check(None if torch.equal(kept[name], value) else f"{name} changed", where)
    return answers, gap


def size(folder):
    return sum(value.numel() for value in load_file(folder / "model.safetensors").values() if value.is_floating_point())


def peer_error(technique, kernel, layers):
    """Relative error of tensorly's kernel at the ranks of these layers, and its seconds."""
    channels = [layer["channels"] for layer in layers]
    begun = time.perf_counter()
    if technique == "tucker":
        (core, factors), _ = partial_tucker(kernel, rank=[channels[1], channels[0]], modes=[0, 1], n_iter_max=100, tol=1e-8)
        back = tensorly.tenalg.multi_mode_dot(core, factors, modes=[0, 1])
    elif technique == "tensor_train":
        turned = kernel.transpose(1, 2, 3, 0)
        back = tensor_train(turned, rank=[1, *channels[:3], 1]).to_tensor().transpose(3, 0, 1, 2)
    else:
        starts = [("svd", 0), ("random", 1), ("random", 2), ("random", 3)]
        found = []
        for init, seed in starts:
            try:
                parts = parafac(kernel, channels[0], init=init, n_iter_max=400, tol=1e-9, random_state=seed)
                found.append(tensorly.cp_to_tensor(parts))
            except np.linalg.LinAlgError:
                continue
        back = min(found, key=lambda back: np.linalg.norm(back - kernel))
    return np.linalg.norm(back - kernel) / np.linalg.norm(kernel), time.perf_counter() - begun


def beside_tensorly(technique, model, out):
    source, dense = load_file(model / "model.safetensors"), load_file(out / "safetensors" / "model.safetensors")
    told = json.loads((out / "low-rank" / "config.json").read_text())["low_rank"]
    worst, ours, theirs, seconds = 0.0, [], [], 0.0
    for module, layers in told.items():
        kernel = source[f"{module}.weight"].double().numpy()
        own = np.linalg.norm(dense[f"{module}.weight"].double().numpy() - kernel) / np.linalg.norm(kernel)
        peer, took = peer_error(technique, kernel, layers)
        seconds += took
        ours.append(own)
        theirs.append(peer)
        worst = max(worst, own / peer)
        check(f"error {own:.6f}, tensorly {peer:.6f}" if own > peer * PEER else None, f"{technique} {module}")
    mean = lambda values: float(np.mean(values))
    print(f"  {technique}: mean relative error {mean(ours):.4f}, tensorly {mean(theirs):.4f}; largest quotient {worst:.4f}; tensorly {seconds:.1f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, type=Path)
    parser.add_argument("--work", type=Path, default=CACHE / "convolutions")
    parser.add_argument("--ratio", type=float, nargs="+", default=[0.5, 0.25])
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    a.work.mkdir(parents=True, exist_ok=True)
    train, test, labels, answers = digits()
    model = a.work / "resnet"
    trained(model, train, labels)
    dense = loaded(model, "resnet")
    accuracy = lambda found: (found.argmax(1) == answers).float().mean().item()
    before = logits(dense, test)
    print(f"resnet: {size(model)} weights, accuracy {accuracy(before):.4f} on {len(test)} images")
    for ratio in a.ratio:
        for technique in TECHNIQUES:
            where = f"{technique} {ratio}"
            out = a.work / f"{technique}-{ratio}"
            seconds = compressed(a.binary, model, out, technique, {"ratio": ratio})
            if seconds is None:
                continue
            after, gap = compared(model, out, test, where)
            same = (after.argmax(1) == before.argmax(1)).float().mean().item()
            share = size(out / "low-rank") / size(model)
            report = json.loads((out / "report.json").read_text())
            errors = [1 / 10 ** (t["snr_db"] / 20) for t in report["tensors"] if t["compressed"] and t["snr_db"]]
            print(
                f"  {where}: {100 * share:.1f} % of the weights, accuracy {accuracy(after):.4f}, agrees {same:.4f}, mean relative error "
                f"{np.mean(errors):.3f} of {len(errors)} kernels, logits within {gap:.1e}, {seconds:.1f} s"
            )
            if technique in ("tucker", "cp", "tensor_train") and ratio == 0.5:
                beside_tensorly(technique, model, out)
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    for name, model in random_models(a.work):
        for technique in TECHNIQUES:
            out = a.work / f"{name}-{technique}"
            if compressed(a.binary, model, out, technique, {}) is not None:
                _, gap = compared(model, out, images, f"{name} {technique}")
                told = json.loads((out / "low-rank" / "config.json").read_text())["low_rank"]
                print(f"  {name} {technique}: {len(told)} kernels, logits within {gap:.1e}")
    print(f"{len(failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
