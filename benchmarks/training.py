"""Seconds an epoch and peak memory: fine-tuning the slim form against training the original in a plain loop.

Both on the same pictures with the same (tuned) allocator and all threads; the plain loop is eager, fp32,
AdamW and cross-entropy, fed from memory, timed over a few steps and scaled to an epoch. The slim form pays
its teacher in the first epoch. Peak memory is that of a process of its own over what it held before training.
Prints JSON.

Needs the folder that `benchmarks/latency.py --network NAME` left.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from reference import RESULTS, arguments, networks, print_row
from torch.nn import functional

from slimcv import data
from slimcv.data.batches import gather, normalise
from slimcv.measure import allocator, memory
from slimcv.measure.threads import available
from slimcv.models import capture, checkpoint
from slimcv.step import Context
from slimcv.train import finetune
from slimcv.train.settings import FinetuneSettings

BATCH = 32
STEPS = 4
EPOCHS = 4


def plain(folder: Path, source: str) -> dict[str, float]:
    """A few steps of the loop a user would write."""
    variant = checkpoint.read(folder / "original.pt2")
    split = data.load(source).train
    model = variant.model
    capture.set_training(model, True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    pixels = split.pixels(variant.input.height, variant.input.width, variant.input.channels)
    before = memory.resident()
    memory.reset_peak()
    seconds = []
    for step in range(1 + STEPS):
        begun = time.perf_counter()
        index = torch.arange(step * BATCH, (step + 1) * BATCH).numpy()
        pictures = normalise(gather(pixels, index), variant.input).contiguous()
        optimizer.zero_grad()
        functional.cross_entropy(model(pictures), torch.from_numpy(split.labels[index])).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - begun)
    each = statistics.median(seconds[1:])
    return {
        "seconds_per_epoch": each * math.ceil(len(split) / BATCH),
        "images_per_second": BATCH / each,
        "peak_bytes": memory.peak() - before,
    }


def slim(folder: Path, source: str) -> dict[str, float]:
    """Four epochs of the product's own fine-tuning, from the slim form on."""
    original = checkpoint.read(folder / "original.pt2")
    variant = checkpoint.read(folder / "slim" / "checkpoints" / trained(folder))
    dataset = data.load(source)
    dataset.train.pixels(variant.input.height, variant.input.width, variant.input.channels)
    before = memory.resident()
    memory.reset_peak()
    with tempfile.TemporaryDirectory() as work:
        context = Context(original, dataset, Path(work), threads=available(), train_threads=available())
        result = finetune(variant, context, FinetuneSettings(epochs=EPOCHS))
    return {
        "seconds_per_epoch": result.seconds_per_epoch or math.nan,
        "teacher_seconds": result.teacher_seconds,
        "images_per_second": result.images_per_second or math.nan,
        "peak_bytes": memory.peak() - before,
        "training_peak_bytes": (result.peak_rss_bytes or 0) - before,
    }


def trained(folder: Path) -> str:
    """The checkpoint of the last step that trained."""
    journal = (folder / "slim" / "journal.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line).get("record") for line in journal]
    done = [r for r in records if r and r["outcome"] == "accepted" and r["checkpoint"]]
    last = [r for r in done if (r["measurement"] or {}).get("train_seconds_per_epoch") is not None]
    trainings = [r for r in last if r["step"] not in ("fuse_conv_bn", "quantize_int8")]
    return Path(trainings[-1]["checkpoint"]).name


def main() -> None:
    """Run each contender twice, alternating, in a process of its own."""
    role = {"choices": ["all", "plain", "slim"], "default": "all"}
    tuned = {"choices": ["tuned", "default"], "default": "tuned"}
    chosen = arguments(__doc__, role=role, allocator=tuned)
    network = networks()[chosen.network]
    folder = RESULTS / "latency" / network.name
    if chosen.role != "all":
        torch.set_num_threads(available())
        if chosen.allocator == "tuned":
            allocator.tune()
        print(json.dumps({"plain": plain, "slim": slim}[chosen.role](folder, str(network.data))))
        return
    command = [sys.executable, __file__, "--network", network.name]
    found: dict[str, list[dict[str, float]]] = {"plain": [], "slim": []}
    for name in ("plain", "slim", "slim", "plain"):
        done = subprocess.run([*command, "--role", name], stdout=subprocess.PIPE, text=True, check=True)
        found[name].append(json.loads(done.stdout.splitlines()[-1]))
    peak = {
        name: json.loads(
            subprocess.run(
                [*command, "--role", name, "--allocator", "default"],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout.splitlines()[-1]
        )["peak_bytes"]
        for name in found
    }
    seconds = {
        name: statistics.median(run["seconds_per_epoch"] for run in runs) for name, runs in found.items()
    }
    print_row(
        {
            "benchmark": f"training {network.name}",
            "threads": available(),
            "seconds_per_epoch": seconds,
            "times_faster": seconds["plain"] / seconds["slim"],
            "teacher_seconds": [run["teacher_seconds"] for run in found["slim"]],
            "peak_bytes_training": peak,
            "memory_removed_percent": 100 * (1 - peak["slim"] / peak["plain"]),
            "runs": found,
        }
    )


if __name__ == "__main__":
    main()
