"""What serving costs beside the bare runtime: one call, a thousand pictures, a cold start. INT8 accuracy.

`--row call`: `load(bundle).predict` on one uint8 array against the bare OpenVINO or ONNX Runtime call.
`--row pictures`: `slimcv predict` on 1,000 JPEGs against a loop written by hand (OpenVINO, Pillow).
`--row start`: the whole command `slimcv predict` with one picture, cold, and the same with torch imported.
`--row int8`: top-1 of `cpu_int8` against the float network, on networks trained by others.

The first three need the folder that `benchmarks/latency.py --network NAME` left. Prints JSON.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from reference import REFERENCE, RESULTS, Network, arguments, networks, optimize, print_row

import slimcv
from slimcv import bundle
from slimcv.runtimes import openvino as openvino_runtime

CALLS, ROUNDS = 200, 20
PICTURES, RUNS = 1000, 3

BY_HAND = """\
import sys
import numpy as np
import openvino
from pathlib import Path
from PIL import Image

model = openvino.Core().compile_model(sys.argv[1], "CPU")
_, height, width, _ = (side.get_length() if side.is_static else 1 for side in model.inputs[0].partial_shape)
for path in sorted(Path(sys.argv[2]).glob("*.jpg")):
    picture = Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    outputs = model(np.asarray(picture)[np.newaxis])[0]
    print(path, int(outputs.argmax()), sep=",")
"""


def bare_call(folder: Path, threads: int) -> Callable[[np.ndarray], Any]:
    """What a user of the served file's runtime would write: no checks, no probabilities."""
    manifest = bundle.read(folder)
    path = folder / manifest.serve.path
    if manifest.serve.runtime == "openvino":
        openvino = openvino_runtime.import_library()
        model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": threads})
        return lambda pixels: model(pixels)[0]
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def call(folder: Path) -> dict[str, Any]:
    """Both in turns, one thread, one picture: the median over rounds of each round's median."""
    predictor, bare = slimcv.load(folder, threads=1), bare_call(folder, 1)
    spec = predictor.input
    shape = (spec.height, spec.width, spec.channels)
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    contenders = {"bare": lambda: bare(picture[np.newaxis]), "predict": lambda: predictor.predict(picture)}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(ROUNDS):
        for name in list(contenders)[:: 1 if number % 2 else -1]:
            taken = []
            for _ in range(CALLS):
                begun = time.perf_counter()
                contenders[name]()
                taken.append(1e6 * (time.perf_counter() - begun))
            times[name].append(statistics.median(taken))
    micro = {name: statistics.median(taken) for name, taken in times.items()}
    more = micro["predict"] - micro["bare"]
    return {"microseconds": micro, "more_microseconds": more, "more_percent": 100 * more / micro["bare"]}


def pictures(folder: Path, network: Network) -> dict[str, Any]:
    """Whole commands in turns; the pictures are those of train/, in one folder."""
    with tempfile.TemporaryDirectory() as work:
        chosen = sorted((network.data / "train").rglob("*.jp*g"))[:PICTURES]
        for number, path in enumerate(chosen):
            (Path(work) / f"{number:04d}.jpg").symlink_to(path.resolve())
        (Path(work) / "by_hand.py").write_text(BY_HAND)
        command = str(Path(sys.executable).parent / "slimcv")
        contenders = {
            "slimcv predict": [command, "predict", str(folder), work, "--format", "csv"],
            "by hand": [
                sys.executable,
                f"{work}/by_hand.py",
                str(folder / bundle.PLACES["openvino"]),
                work,
            ],
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(RUNS):
            for name in list(contenders)[:: 1 if number % 2 else -1]:
                begun = time.perf_counter()
                done = subprocess.run(contenders[name], stdout=subprocess.PIPE, text=True, check=True)
                seconds[name].append(time.perf_counter() - begun)
                if len(done.stdout.splitlines()) < len(chosen):
                    sys.exit(f"{name} did not answer for all {len(chosen)} pictures")
    ips = {name: len(chosen) / statistics.median(taken) for name, taken in seconds.items()}
    return {
        "pictures": len(chosen),
        "seconds": seconds,
        "images_per_second": ips,
        "times_by_hand": ips["slimcv predict"] / ips["by hand"],
    }


def start(folder: Path, network: Network) -> dict[str, Any]:
    """Wall seconds of a process that answers for one picture and ends."""
    picture = str(next((network.data / "val").rglob("*.jp*g")))
    command = [str(Path(sys.executable).parent / "slimcv"), "predict", str(folder), picture]
    with_torch = [
        sys.executable,
        "-c",
        f"import torch, sys; sys.argv = {command!r}\nfrom slimcv import cli; cli.main()",
    ]
    contenders = {"slimcv predict": command, "with torch imported": with_torch}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(10):
        for name, words in contenders.items():
            begun = time.perf_counter()
            subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - begun)
    return {"seconds": {name: statistics.median(taken) for name, taken in seconds.items()}}


def int8() -> dict[str, Any]:
    """`cpu_int8` as a user calls it, on val/ of the small CIFAR-10."""
    rows = {}
    code = REFERENCE / "models" / "networks.py"
    for name in ("resnet20", "resnet56"):
        weights = REFERENCE / "models" / f"cifar-{name}.safetensors"
        data = REFERENCE / "data" / "cifar10-small"
        network = Network(name, weights, f"{code}:{name}", data, "3x32x32")
        report, _ = optimize(network, RESULTS / "int8" / name, "--recipe", "cpu_int8", "--threads", "1")
        quantized = next(step for step in report["steps"] if step["name"] == "quantize_int8")
        before, after = report["original"]["top1"], report["optimized"]["top1"]
        rows[name] = {
            "top1": {"float": before, "shipped": after},
            "drop": before - after,
            "shipped": report["optimized"]["precision"],
            "quantize_int8": [quantized["outcome"], quantized["reason"]],
            "int8_mac_share": quantized["measurement"] and quantized["measurement"]["int8_mac_share"],
            "times_original": report["ratios"]["latency_p50"],
        }
    return {"networks": rows}


def main() -> None:
    """Measure the row that was asked for."""
    chosen = arguments(__doc__, row={"choices": ("call", "pictures", "start", "int8"), "required": True})
    network = networks()[chosen.network]
    folder = RESULTS / "latency" / network.name / "slim"
    rows: dict[str, Callable[[], dict[str, Any]]] = {
        "call": lambda: call(folder),
        "pictures": lambda: pictures(folder, network),
        "start": lambda: start(folder, network),
        "int8": int8,
    }
    print_row({"benchmark": f"serving, {chosen.row}", "network": network.name, **rows[chosen.row]()})


if __name__ == "__main__":
    main()
