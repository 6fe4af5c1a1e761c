"""Latency and accuracy of `cpu_fast` against eager PyTorch and the best peer by hand (OpenVINO + NNCF INT8).

All contenders are timed interleaved in one run, one thread, batch 1; accuracies are those of val/. Prints
JSON.
"""

import json
from pathlib import Path

import numpy as np
from reference import RESULTS, Network, arguments, networks, optimize, print_row

from slimcv import data, models, runtimes
from slimcv.data.normalisation import normalised
from slimcv.measure import accuracy, latency
from slimcv.measure.latency import Contender
from slimcv.models import checkpoint
from slimcv.runtimes import openvino as openvino_runtime

CALIBRATION_IMAGES = 300


def write_peer(network: Network, folder: Path) -> Path:
    """The original as OpenVINO IR, quantised by NNCF's own call and defaults on 300 training pictures."""
    import nncf

    openvino = openvino_runtime.import_library()
    variant = models.load(str(network.weights), arch=network.arch, input=network.input)
    source = runtimes.write(variant, "openvino", folder / "float")
    split = data.load(str(network.data)).train
    pixels = split.pixels(variant.input.height, variant.input.width, variant.input.channels)
    chosen = np.random.default_rng(0).permutation(len(split))[:CALIBRATION_IMAGES]
    pictures = [np.ascontiguousarray(normalised(pixels[i : i + 1], variant.input)) for i in sorted(chosen)]
    quantized = nncf.quantize(
        openvino.Core().read_model(source), nncf.Dataset(pictures), subset_size=CALIBRATION_IMAGES
    )
    path = folder / "nncf.xml"
    openvino.save_model(quantized, path, compress_to_fp16=False)
    checkpoint.save(variant, folder / "original.pt2")
    return path


def main() -> None:
    """Run the recipe, quantise the peer, time all together."""
    chosen = arguments(
        __doc__,
        max_drop={"type": float, "default": 0.0},
        threads={"type": int, "default": 1},
        reuse={"action": "store_true", "help": "time what an earlier call left, without its wall time"},
    )
    network = networks()[chosen.network]
    folder = RESULTS / "latency" / network.name
    out = folder / "slim"
    limits = ("--max-drop", str(chosen.max_drop), "--threads", str(chosen.threads))
    if chosen.reuse:
        report, seconds = json.loads((out / "report.json").read_text("utf-8")), None
    else:
        # benchmarks/training.py goes on from the checkpoint of the last training.
        kept = ("--keep", "onnx,openvino,pt2,checkpoints")
        report, seconds = optimize(network, out, "--recipe", "cpu_fast", *limits, *kept)
    folder.mkdir(parents=True, exist_ok=True)
    peer = write_peer(network, folder)
    threads = chosen.threads
    original = checkpoint.read(folder / "original.pt2")
    slim = checkpoint.read(out / "model.pt2")
    runtime = report["optimized"]["runtime"]
    served = next(a["path"] for a in report["artifacts"] if a["runtime"] == runtime)
    timings = latency.interleaved(
        {
            "eager": Contender(folder / "original.pt2", "eager", threads, original.input),
            "eager, default allocator": Contender(
                folder / "original.pt2", "eager", threads, original.input, allocator="default"
            ),
            "openvino": Contender(folder / "float" / "model.xml", "openvino", threads, original.input),
            "peer": Contender(peer, "openvino", threads, original.input),
            "slimcv": Contender(out / served, runtime, threads, slim.input),
        },
        samples=100,
    )
    split = data.load(str(network.data)).val
    scores = {
        "original": report["original"]["top1"],
        "slimcv": report["optimized"]["top1"],
        "peer": accuracy.evaluate(runtimes.prepare(peer, "openvino", threads=2), split, original.input).top1,
    }
    print_row(
        {
            "benchmark": f"latency {network.name}",
            "threads": threads,
            "latency_ms": {name: timing.latency.p50 for name, timing in timings.items()},
            "spread": {name: timing.latency.spread for name, timing in timings.items()},
            "times_eager": latency.ratio(timings["eager"], timings["slimcv"]).__dict__,
            "times_peer": latency.ratio(timings["peer"], timings["slimcv"]).__dict__,
            "top1": scores,
            "parameters": [report["original"]["parameters"], report["optimized"]["parameters"]],
            "parameters_removed_percent": 100
            * (1 - report["optimized"]["parameters"] / report["original"]["parameters"]),
            "input": str(slim.input),
            "runtime": runtime,
            "precision": report["optimized"]["precision"],
            "gate_met": report["gate"]["met"],
            "wall_seconds": seconds,
        }
    )


if __name__ == "__main__":
    main()
