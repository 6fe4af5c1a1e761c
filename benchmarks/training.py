"""Training against the loop that most people write, and slim against original. One row a call, as JSON.

    --row epoch     seconds an epoch and peak memory: fine-tuning the slim form against training the original
    --row images    pictures a second from the second epoch on, the slim form at 112 pixels
    --row resnet18  the same, ResNet-18 at 224 pixels
    --row decoding  3,000 JPEGs of 256x256 into the cache, and read again, against DataLoader and Pillow
    --row resident  how much more memory stays resident with 50,000 pictures than with 3,000
    --row accuracy  top-1 on val/ after the same wall time, teacher included, three seeds

Contenders run in processes of their own, alternating. Slimcv's have the tuned allocator and passive OpenMP
threads that its command line gives them; the plain loop (benchmarks/plain_loop.py) has the defaults. In
`images` and `resnet18` the network is its own teacher, which costs nothing from the second epoch on.
`epoch` needs the folder that `benchmarks/latency.py --network NAME` left; there both have the tuned allocator
and the plain loop is fed from memory, so that only the network differs.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plain_loop
import torch
from reference import (
    RESULTS,
    Network,
    arguments,
    make_torchvision_importable,
    networks,
    print_row,
)
from torch.nn import functional

from slimcv import data, models, runtimes
from slimcv.data import Split
from slimcv.data.batches import batches, epoch_order, gather, normalise
from slimcv.measure import accuracy, allocator, memory
from slimcv.measure.threads import available
from slimcv.models import capture, checkpoint
from slimcv.step import Context, InputSpec, Variant
from slimcv.train import finetune
from slimcv.train.settings import FinetuneSettings

BATCH = 32
STEPS = 4
EPOCHS = 2
SEEDS = (0, 1, 2)
JPEGS, MANY = 3_000, 50_000
DECODED = InputSpec(3, 224, 224)
FORMS = RESULTS / "training"
RESNET18 = "torchvision:resnet18?num_classes=12"

Found = dict[str, Any]


# --row epoch


def original_in_memory(network: Network) -> Found:
    """A few steps of a loop around the original, scaled to an epoch."""
    variant = checkpoint.read(RESULTS / "latency" / network.name / "original.pt2")
    split = data.load(str(network.data)).train
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


def slim_from_cache(network: Network) -> Found:
    """Two epochs of the product's own fine-tuning, from the slim form on.

    What the teacher says is kept between calls: the first one pays for it.
    """
    folder = RESULTS / "latency" / network.name
    variant = checkpoint.read(folder / "slim" / "checkpoints" / trained(folder))
    dataset = data.load(str(network.data))
    dataset.train.pixels(variant.input.height, variant.input.width, variant.input.channels)
    before = memory.resident()
    memory.reset_peak()
    answers = FORMS / f"{network.name}-teacher"
    answers.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        Path(work, "teacher").symlink_to(answers)
        original = checkpoint.read(folder / "original.pt2")
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


def epoch_row(network: Network) -> Found:
    """Both with the tuned allocator, twice, and once more with the default one for the memory."""
    found = alternated("epoch", network, ("original", "slim"))
    seconds = {name: median(runs, "seconds_per_epoch") for name, runs in found.items()}
    peak = {
        name: called("epoch", network, name, "--allocator", "default")["peak_bytes"]
        for name in ("original", "slim")
    }
    return {
        "benchmark": f"training {network.name}",
        "seconds_per_epoch": seconds,
        "times_faster": seconds["original"] / seconds["slim"],
        "teacher_seconds": [run["teacher_seconds"] for run in found["slim"]],
        "peak_bytes_training": peak,
        "memory_removed_percent": 100 * (1 - peak["slim"] / peak["original"]),
        "runs": found,
    }


# --row images, --row resnet18


def slim_form(network: Network) -> Variant:
    """The network as `cpu_fast` gives it to its first training, made once."""
    from slimcv.steps.depthwise_separable import DepthwiseSeparable
    from slimcv.steps.global_average_pool import GlobalAveragePool
    from slimcv.steps.reduce_resolution import ReduceResolution

    path = FORMS / f"{network.name}.pt2"
    if not path.exists():
        original = models.load(str(network.weights), arch=network.arch, input=network.input)
        variant = models.load(str(network.weights), arch=network.arch, input=network.input)
        dataset = data.load(str(network.data), input=original.input)
        with tempfile.TemporaryDirectory() as work:
            context = Context(original, dataset, Path(work), threads=available(), train_threads=available())
            for step in (GlobalAveragePool(head="collapse"), DepthwiseSeparable(), ReduceResolution()):
                variant = step.apply(variant, context)
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save(variant, path)
    return checkpoint.read(path)


def resnet18(network: Network) -> Variant:  # noqa: ARG001
    """ResNet-18 with its initial weights."""
    make_torchvision_importable()
    return models.load(RESNET18, input="3x224x224")


def images_by_plain_loop(variant: Variant, network: Network) -> Found:
    """Two epochs of the plain loop."""
    split = data.load(str(network.data)).train
    capture.set_training(variant.model, True)
    done = plain_loop.train(variant.model, split, variant.input, batch=BATCH, epochs=EPOCHS)
    return {"images_per_second": done.images_per_second, "epoch_seconds": done.epoch_seconds}


def images_by_slimcv(variant: Variant, network: Network) -> Found:
    """Two epochs of the product's fine-tuning."""
    dataset = data.load(str(network.data))
    with tempfile.TemporaryDirectory() as work:
        context = Context(variant, dataset, Path(work), threads=available(), train_threads=available())
        result = finetune(variant, context, FinetuneSettings(epochs=EPOCHS, batch=BATCH))
    seconds = [epoch.seconds for epoch in result.history if epoch.number]
    return {"images_per_second": result.images_per_second, "epoch_seconds": seconds}


def images_row(network: Network) -> Found:
    """The slim form at half the input."""
    return compared_images("images", network, f"images/s, slim {network.name}")


def resnet18_row(network: Network) -> Found:
    """ResNet-18 at 224 pixels on the same pictures."""
    return compared_images("resnet18", network, "images/s, ResNet-18 at 224")


def compared_images(row: str, network: Network, title: str) -> Found:
    """Pictures a second of both, and their ratio."""
    found = alternated(row, network, ("plain", "slimcv"))
    speed = {name: median(runs, "images_per_second") for name, runs in found.items()}
    return {
        "benchmark": title,
        "batch": BATCH,
        "images_per_second": speed,
        "times_faster": speed["slimcv"] / speed["plain"],
        "runs": found,
    }


# --row decoding


def decoding_by_loader(network: Network) -> Found:
    """Two rounds of DataLoader and Pillow, which has nothing to read again."""
    with tempfile.TemporaryDirectory() as folder:
        split = data.load(str(linked(network, Path(folder), JPEGS)), keep=False).train
        batches_of_pictures = plain_loop.loader(split, DECODED, BATCH)
        seconds = []
        for _ in range(2):
            begun = time.perf_counter()
            count = sum(len(labels) for _, labels in batches_of_pictures)
            seconds.append(time.perf_counter() - begun)
    return {"images_per_second": count / seconds[0], "again": count / seconds[1]}


def decoding_by_slimcv(network: Network) -> Found:
    """Every picture of the source into an empty cache, then the training pictures from it as batches."""
    with tempfile.TemporaryDirectory() as folder:
        source, cache = linked(network, Path(folder), JPEGS), Path(folder) / "cache"
        begun = time.perf_counter()
        dataset = data.load(str(source), input=DECODED, cache=cache)
        seconds = time.perf_counter() - begun
        count = sum(len(split) for split in (dataset.train, dataset.tuning, dataset.val))
        begun = time.perf_counter()
        again = data.load(str(source), input=DECODED, cache=cache).train
        read = read_epoch(again)
        seconds_again = time.perf_counter() - begun
    return {"images_per_second": count / seconds, "again": read / seconds_again}


def read_epoch(split: Split) -> int:
    """Every picture once, normalised, in a mixed order; how many there were."""
    pixels = split.pixels(DECODED.height, DECODED.width, DECODED.channels)
    order = epoch_order(len(split), seed=0, epoch=0)
    return sum(
        len(labels) for _, labels, _ in batches(pixels, split.labels, DECODED, batch_size=BATCH, order=order)
    )


def linked(network: Network, folder: Path, count: int) -> Path:
    """A folder of `count` pictures in classes: the network's own under as many names as it takes."""
    pictures = sorted(network.data.rglob("*.jpg"))
    for number in range(count):
        picture = pictures[number % len(pictures)]
        place = folder / "pictures" / picture.parent.name / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(picture.resolve())
    return folder / "pictures"


def decoding_row(network: Network) -> Found:
    """Pictures a second into the cache and out of it, against decoding in every epoch."""
    found = alternated("decoding", network, ("loader", "slimcv"))
    first = {name: median(runs, "images_per_second") for name, runs in found.items()}
    again = {name: median(runs, "again") for name, runs in found.items()}
    return {
        "benchmark": f"decoding {JPEGS} JPEGs of 256x256 to {DECODED}",
        "images_per_second": first,
        "images_per_second_again": again,
        "times_faster": first["slimcv"] / first["loader"],
        "times_faster_again": again["slimcv"] / again["loader"],
        "runs": found,
    }


# --row resident


def resident_with(network: Network, count: int) -> Found:
    """Largest resident set while so many pictures are decoded and read once at 112 pixels."""
    size = InputSpec(3, 112, 112)
    with tempfile.TemporaryDirectory() as folder:
        source = linked(network, Path(folder), count)
        memory.reset_peak()
        dataset = data.load(str(source), input=size, cache=Path(folder) / "cache")
        split = dataset.train
        pixels = split.pixels(size.height, size.width, size.channels)
        order = epoch_order(len(split), seed=0, epoch=0)
        read = sum(
            len(labels) for _, labels, _ in batches(pixels, split.labels, size, batch_size=BATCH, order=order)
        )
        return {"pictures": count, "read": read, "peak_bytes": memory.peak()}


def resident_row(network: Network) -> Found:
    """The peak of both, each in a process of its own."""
    found = {name: called("resident", network, name) for name in ("few", "many")}
    grown = found["many"]["peak_bytes"] - found["few"]["peak_bytes"]
    return {
        "benchmark": f"resident memory, {MANY} pictures against {JPEGS}",
        "grown_bytes": grown,
        "runs": found,
    }


# --row accuracy


def accuracy_by_plain_loop(network: Network, *, seed: int, budget: float) -> Found:
    """Cross-entropy alone for as long."""
    torch.manual_seed(seed)
    variant = slim_form(network)
    begun = time.perf_counter()
    dataset = data.load(str(network.data), keep=False)
    capture.set_training(variant.model, True)
    left = budget - (time.perf_counter() - begun)
    done = plain_loop.train(variant.model, dataset.train, variant.input, batch=BATCH, budget=left)
    seconds = time.perf_counter() - begun
    capture.set_training(variant.model, False)
    return {"top1": top1(variant, dataset.val), "epochs": len(done.epoch_seconds), "seconds": seconds}


def accuracy_by_slimcv(network: Network, *, seed: int, budget: float) -> Found:
    """Taught by the original, which is asked within the same time, as is the decoding of the pictures."""
    variant = slim_form(network)
    original = models.load(str(network.weights), arch=network.arch, input=network.input)
    with tempfile.TemporaryDirectory() as work:
        begun = time.perf_counter()
        dataset = data.load(str(network.data), input=variant.input, cache=Path(work) / "cache")
        context = Context(original, dataset, Path(work), threads=available(), train_threads=available())
        left = budget - (time.perf_counter() - begun)
        result = finetune(variant, context, FinetuneSettings(epochs=10_000, budget=left, seed=seed))
        seconds = time.perf_counter() - begun
        found = top1(result.variant, dataset.val)
    return {
        "top1": found,
        "epochs": result.epochs,
        "teacher_seconds": result.teacher_seconds,
        "seconds": seconds,
    }


def top1(variant: Variant, split: Split) -> float:
    """Percent right in eager PyTorch."""
    with tempfile.TemporaryDirectory() as work:
        prepared = runtimes.prepare(
            runtimes.write(variant, "eager", Path(work)), "eager", threads=available()
        )
        return float(accuracy.evaluate(prepared, split, variant.input).top1)


def accuracy_row(network: Network, budget: float) -> Found:
    """Three seeds of each, alternating."""
    slim_form(network)
    found: dict[str, list[Found]] = {"plain": [], "slimcv": []}
    for seed in SEEDS:
        for name, runs in found.items():
            options = ("--seed", str(seed), "--seconds", str(budget))
            runs.append(called("accuracy", network, name, *options))
    return {
        "benchmark": f"top-1 of the slim {network.name} after {budget:.0f} s",
        "top1": {name: [run["top1"] for run in runs] for name, runs in found.items()},
        "every_seed_higher": all(
            ours["top1"] > theirs["top1"]
            for ours, theirs in zip(found["slimcv"], found["plain"], strict=True)
        ),
        "runs": found,
    }


# processes


def called(row: str, network: Network, role: str, *options: str) -> Found:
    """One contender in a process of its own."""
    command = [sys.executable, __file__, "--network", network.name, "--row", row, "--role", role, *options]
    passive = {} if role in ("plain", "loader") else {"GOMP_SPINCOUNT": "0"}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **passive}
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def alternated(row: str, network: Network, roles: tuple[str, str]) -> dict[str, list[Found]]:
    """Each of two contenders twice, the order turned round the second time."""
    found: dict[str, list[Found]] = {role: [] for role in roles}
    for role in (*roles, *reversed(roles)):
        found[role].append(called(row, network, role))
    return found


def median(runs: list[Found], key: str) -> float:
    """Of one figure over the runs of a contender."""
    return float(statistics.median(run[key] for run in runs))


def main() -> None:
    """Print a row, or be one contender of it."""
    rows: dict[str, Callable[[Network], Found]] = {
        "epoch": epoch_row,
        "images": images_row,
        "resnet18": resnet18_row,
        "decoding": decoding_row,
        "resident": resident_row,
        "accuracy": lambda network: accuracy_row(network, chosen.seconds),
    }
    roles: dict[tuple[str, str], Callable[[Network], Found]] = {
        ("epoch", "original"): original_in_memory,
        ("epoch", "slim"): slim_from_cache,
        ("images", "plain"): lambda network: images_by_plain_loop(slim_form(network), network),
        ("images", "slimcv"): lambda network: images_by_slimcv(slim_form(network), network),
        ("resnet18", "plain"): lambda network: images_by_plain_loop(resnet18(network), network),
        ("resnet18", "slimcv"): lambda network: images_by_slimcv(resnet18(network), network),
        ("decoding", "loader"): decoding_by_loader,
        ("decoding", "slimcv"): decoding_by_slimcv,
        ("resident", "few"): lambda network: resident_with(network, JPEGS),
        ("resident", "many"): lambda network: resident_with(network, MANY),
        ("accuracy", "plain"): lambda network: accuracy_by_plain_loop(
            network, seed=chosen.seed, budget=chosen.seconds
        ),
        ("accuracy", "slimcv"): lambda network: accuracy_by_slimcv(
            network, seed=chosen.seed, budget=chosen.seconds
        ),
    }
    chosen = arguments(
        __doc__,
        row={"choices": list(rows), "default": "epoch"},
        role={"choices": sorted({role for _, role in roles}), "help": "one contender alone"},
        allocator={"choices": ["tuned", "default"], "default": "tuned"},
        seed={"type": int, "default": 0},
        seconds={"type": float, "default": 300.0, "help": "wall time of each training (--row accuracy)"},
    )
    network = networks()[chosen.network]
    if chosen.role is None:
        print_row({**rows[chosen.row](network), "threads": available()})
        return
    torch.set_num_threads(available())
    if chosen.allocator == "tuned" and chosen.role not in ("plain", "loader"):
        allocator.tune()
    print(json.dumps(roles[chosen.row, chosen.role](network)))


if __name__ == "__main__":
    main()
