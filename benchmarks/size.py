"""How small a model gets, in bytes of files that load and run, and what that costs. One row a call.

    --row leafnet, --row scenenet   the recipe `cpu_tiny`
    --row resnet56                  the CIFAR-10 ResNet-56, architecture unchanged: pruned, clustered, INT8
    --row resnet56-weights          the same by weights alone in 8 bits: no training, no pictures
    --row resnet18-channels         ResNet-18 on scenes: `prune_channels` and INT8 against INT8 unpruned
    --row sensitivity               the wall time of `slimcv sensitivity` for a ResNet-50 at 224 pixels

Each is optimised by the command that a user gives, packed, and evaluated on val/ through the packed file. The
ratio is the bytes of the file it began with over those of the packed one; the zipped bytes of both stand
beside it. A folder is kept: the same call goes on where it stopped. Prints JSON.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from reference import REFERENCE, RESULTS, Network, arguments, called, networks, print_row

import slimcv
from slimcv import bundle, data, packed
from slimcv.measure import latency
from slimcv.step import InputSpec

RESNET56 = """\
description: The architecture as it is, its weights pruned, clustered and in 8 bits.
objective: size
gate: {max_drop: 1.0}
steps:
  - prune_weights: {sparsity: 0.7, epochs: 16, lr: 0.001}
    gate: {max_drop: 8}
  - fuse_conv_bn
  - cluster_weights: {clusters: 32, epochs: 6, lr: 0.0003}
    gate: {max_drop: 8}
  - quantize_int8: {preserve: [sparsity, clusters], scale_bits: 7}
    recover: {epochs: 3, lr: 0.0003}
    gate: {max_step_drop: 1.0}
  - export_onnx
"""


def resnet56() -> Network:
    """The CIFAR-10 ResNet-56 of the reference folder."""
    models, pictures = REFERENCE / "models", REFERENCE / "data" / "cifar10-small"
    code = f"{models / 'networks.py'}:resnet56"
    return Network("resnet56", models / "cifar-resnet56.safetensors", code, pictures, "3x32x32")


def optimized(network: Network, out: Path, *options: str, pictures: bool = True) -> dict[str, Any]:
    """The report of `slimcv optimize`, gone on with where `out` holds an interrupted run."""
    command = called("optimize", network, out, *options)
    if not pictures:
        at = command.index("--data")
        del command[at : at + 2]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(f"slimcv optimize ended with {done.returncode}")
    return dict(json.loads(done.stdout))


def top1(path: Path, network: Network) -> float:
    """Percent right on val/ through the packed file."""
    predictor = slimcv.load(path)
    spec = predictor.input
    split = data.load(str(network.data), classes=predictor.classes, input=spec).val
    pixels = split.pixels(spec.height, spec.width, spec.channels)
    starts = range(0, len(split), 32)
    answers = [predictor.outputs(np.asarray(pixels[at : at + 32])).argmax(axis=1) for at in starts]
    return 100.0 * float(np.mean(np.concatenate(answers) == split.labels))


def small(network: Network, name: str, *options: str, pictures: bool = True) -> dict[str, Any]:
    """A network optimised, packed and evaluated; what the original answers is asked in float beforehand."""
    out = RESULTS / "size" / name
    report = optimized(network, out, *options, pictures=pictures)
    path = out.with_suffix(".slim")
    found = packed.pack(out, out=path, original=network.weights, strip=True).as_json()
    before, after = report["original"]["top1"], top1(path, network)
    if before is None:
        before = float_top1(network)
    return {
        "original_bytes": found["original"]["bytes"],
        "original_zipped_bytes": found["original"]["zipped_bytes"],
        "onnx_bytes": found["model"]["bytes"],
        "onnx_zipped_bytes": found["model"]["zipped_bytes"],
        "packed_bytes": found["bytes"],
        "times_smaller": found["original"]["bytes"] / found["bytes"],
        "top1": {"original": before, "packed": after},
        "points_lost": before - after,
        "gate_met": report["gate"]["met"],
        "pictures": report["data"] and report["data"].get("val"),
        "steps": [[step["name"], step["outcome"], step["reason"]] for step in report["steps"]],
        "seconds": report["seconds"],
    }


def float_top1(network: Network) -> float:
    """Percent right of the original where the optimisation was given no pictures."""
    command = [str(Path(sys.executable).parent / "slimcv"), "bench", str(network.weights), "--quick"]
    command += ["--arch", network.arch, "--input", network.input, "--data", str(network.data)]
    done = subprocess.run([*command, "--format", "json"], stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout)["rows"][0]["top1"])


def resnet18_channels() -> dict[str, Any]:
    """Both in INT8 as their bundles serve them, one thread, interleaved; first the network is trained.

    Ends with a sentence where one of them serves anything else: that would be no comparison of INT8.
    """
    network = trained_resnet18()
    place = RESULTS / "size"
    narrow = optimized(network, place / "resnet18-narrow", "--recipe", "cpu_narrow", "--threads", "1")
    whole = optimized(network, place / "resnet18-int8", "--recipe", "cpu_int8", "--threads", "1")
    contenders, served = {}, {}
    for name in ("narrow", "int8"):
        folder = RESULTS / "size" / f"resnet18-{name}"
        manifest = bundle.read(folder)
        served[name] = {"runtime": manifest.serve.runtime, "precision": manifest.serve.precision}
        if manifest.serve.precision != "int8":
            sys.exit(f"{folder} serves {manifest.serve.precision} in {manifest.serve.runtime}, not INT8")
        spec = manifest.input
        input = InputSpec(spec.channels, spec.height, spec.width, spec.mean, spec.std)
        contenders[name] = latency.Contender(folder / manifest.serve.path, manifest.serve.runtime, 1, input)
    timings = latency.interleaved(contenders, samples=100)
    ratio = latency.ratio(timings["int8"], timings["narrow"])
    return {
        "served": served,
        "latency_ms": {name: timing.latency.p50 for name, timing in timings.items()},
        "times_lower_latency": [ratio.value, ratio.low, ratio.high],
        "top1": {
            "original": narrow["original"]["top1"],
            "narrow": narrow["optimized"]["top1"],
            "int8": whole["optimized"]["top1"],
        },
        "points_lost": narrow["original"]["top1"] - narrow["optimized"]["top1"],
    }


def sensitivity() -> dict[str, Any]:
    """The whole command, from a `.pt2` and a folder of pictures to its report, begun anew."""
    import torch
    from reference import make_torchvision_importable

    from slimcv import models
    from slimcv.measure.threads import available
    from slimcv.models import checkpoint

    path = RESULTS / "size" / "resnet50.pt2"
    if not path.exists():
        make_torchvision_importable()
        torch.manual_seed(0)
        path.parent.mkdir(parents=True, exist_ok=True)
        variant = models.load("torchvision:resnet50?num_classes=6", input="3x224x224")
        checkpoint.save(variant, path)
    network = Network("resnet50", path, "", REFERENCE / "data" / "scenes")
    out = RESULTS / "size" / "resnet50-sensitivity"
    begun = time.perf_counter()
    done = subprocess.run(
        called("sensitivity", network, out, "--overwrite"), stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = time.perf_counter() - begun
    found = json.loads(done.stdout)
    cells = [cell for row in found["layers"] for cell in row["treatments"].values()]
    return {
        "seconds": seconds,
        "seconds_in_layers": found["seconds"],
        "layers": len(found["layers"]),
        "measured_cells": sum(cell["bytes"] is not None for cell in cells),
        "threads": available(),
        "most_sensitive": {key: names[:3] for key, names in found["most_sensitive"].items()},
    }


def trained_resnet18() -> Network:
    """ResNet-18 from its initial weights, trained on the scenes at 112 pixels for as long as it needs."""
    import torch
    from reference import make_torchvision_importable

    from slimcv import models
    from slimcv.measure.threads import available
    from slimcv.models import checkpoint
    from slimcv.step import Context
    from slimcv.train import finetune
    from slimcv.train.settings import FinetuneSettings

    path = RESULTS / "size" / "resnet18.pt2"
    scenes = REFERENCE / "data" / "scenes"
    if not path.exists():
        make_torchvision_importable()
        torch.manual_seed(0)
        variant = models.load("torchvision:resnet18?num_classes=6", input="3x112x112")
        path.parent.mkdir(parents=True, exist_ok=True)
        context = Context(
            variant, data.load(str(scenes)), path.parent, threads=available(), train_threads=available()
        )
        settings = FinetuneSettings(epochs=30, lr=1e-3, distill=0.0, crop=0.3)
        checkpoint.save(finetune(variant, context, settings).variant, path)
    return Network("resnet18", path, "", scenes, "3x112x112")


def main() -> None:
    """Measure the row that was asked for."""
    tiny = RESULTS / "size" / "resnet56.yaml"
    rows = {
        "leafnet": lambda: small(networks()["leafnet"], "leafnet", "--recipe", "cpu_tiny"),
        "scenenet": lambda: small(networks()["scenenet"], "scenenet", "--recipe", "cpu_tiny"),
        "resnet56": lambda: small(resnet56(), "resnet56", "--recipe", str(tiny)),
        "resnet56-weights": lambda: small(
            resnet56(), "resnet56-weights", "--recipe", "cpu_storage", pictures=False
        ),
        "resnet18-channels": resnet18_channels,
        "sensitivity": sensitivity,
    }
    chosen = arguments(__doc__, row={"choices": list(rows), "required": True})
    tiny.parent.mkdir(parents=True, exist_ok=True)
    tiny.write_text(RESNET56, "utf-8")
    print_row({"benchmark": f"size, {chosen.row}", **rows[chosen.row]()})


if __name__ == "__main__":
    main()
