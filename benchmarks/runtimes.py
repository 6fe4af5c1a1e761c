"""The winner of the bake-off against quantisers used by hand, and what serving costs beside a bare runtime.

`--row winner`: what `cpu_int8` ships against NNCF, ONNX Runtime QDQ and Neural Compressor with Inductor.
`--row bake-off`: the wall time of the final measurement, ResNet-18, all candidates and `--quick`, nothing
compiled beforehand; beside it the same with the steps that write and quantise the candidates.
`--row call`: `load(bundle).predict` on one uint8 array against the bare OpenVINO or ONNX Runtime call,
OpenVINO's both with the compiled model and with a request that is used again.
`--row pictures`: `slimcv predict` on 1,000 JPEGs against a loop written by hand (OpenVINO, Pillow),
which infers on all cores, as OpenVINO does unless told otherwise, or on one thread, as in the other rows.
`--row start`: the whole command `slimcv predict` with one picture, cold, and the same with torch imported.

`call`, `pictures` and `start` serve the folder that `benchmarks/latency.py --network NAME` left, or that of
`--bundle DIR`, with the pictures of that network. `winner`
takes one of six networks with `--model`. torchvision's ResNet-18 has initial weights but for norms and a last
layer fitted to the scenes; initial weights of its deeper and separable networks amplify every rounding, so
these three are trained on the scenes first. The gate of slimcv's run is what the row asks for: no more points
lost on val/ than the fastest by hand loses. The run's folder is kept, for `benchmarks/predictions.py`.
Prints JSON.
"""

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import plain_loop
import torch
from reference import (
    REFERENCE,
    RESULTS,
    Network,
    arguments,
    fit_linear,
    make_torchvision_importable,
    networks,
    print_row,
)

import slimcv
from slimcv import bundle, data, models, runtimes
from slimcv.data.normalisation import normalised
from slimcv.measure import accuracy, environment, latency
from slimcv.measure.threads import available
from slimcv.models import capture
from slimcv.runtimes import openvino as openvino_runtime
from slimcv.step import InputSpec, Variant

CALLS, ROUNDS = 200, 20
PICTURES, RUNS = 1000, 3

BY_HAND = """\
import sys
import numpy as np
import openvino
from pathlib import Path
from PIL import Image

options = {"INFERENCE_NUM_THREADS": int(sys.argv[3])} if len(sys.argv) > 3 else {}
model = openvino.Core().compile_model(sys.argv[1], "CPU", options)
_, height, width, _ = (side.get_length() if side.is_static else 1 for side in model.inputs[0].partial_shape)
for path in sorted(Path(sys.argv[2]).glob("*.jpg")):
    picture = Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    outputs = model(np.asarray(picture)[np.newaxis])[0]
    print(path, int(outputs.argmax()), sep=",")
"""


def bare_calls(folder: Path, threads: int) -> dict[str, Callable[[np.ndarray], Any]]:
    """What users of the served file's runtime would write: no checks, no probabilities."""
    manifest = bundle.read(folder)
    path = folder / manifest.serve.path
    if manifest.serve.runtime == "openvino":
        openvino = openvino_runtime.import_library()
        model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": threads})
        request = model.create_infer_request()
        return {
            "bare": lambda pixels: model(pixels)[0],
            "bare request": lambda pixels: request.infer({0: pixels})[0],
        }
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return {"bare": lambda pixels: session.run(None, {name: pixels})[0]}


def call(folder: Path) -> dict[str, Any]:
    """Both in turns, one thread, one picture: the median over rounds of each round's median."""
    predictor, bare = slimcv.load(folder, threads=1), bare_calls(folder, 1)
    spec = predictor.input
    shape = (spec.height, spec.width, spec.channels)
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    contenders: dict[str, Callable[[], Any]] = {"predict": lambda: predictor.predict(picture)}
    for name, asked in bare.items():
        contenders[name] = lambda asked=asked: asked(picture[np.newaxis])
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
    return {
        "runtime": predictor.runtime,
        "microseconds": micro,
        "more_microseconds": {name: micro["predict"] - micro[name] for name in bare},
        "more_percent": {name: 100 * (micro["predict"] / micro[name] - 1) for name in bare},
    }


def pictures(folder: Path, network: Network) -> dict[str, Any]:
    """Whole commands in turns; the pictures are those of train/, in one folder."""
    with tempfile.TemporaryDirectory() as work:
        chosen = sorted((network.data / "train").rglob("*.jp*g"))[:PICTURES]
        for number, path in enumerate(chosen):
            (Path(work) / f"{number:04d}.jpg").symlink_to(path.resolve())
        (Path(work) / "by_hand.py").write_text(BY_HAND)
        command = str(Path(sys.executable).parent / "slimcv")
        by_hand = [sys.executable, f"{work}/by_hand.py", str(folder / bundle.PLACES["openvino"]), work]
        contenders = {
            "slimcv predict": [command, "predict", str(folder), work, "--format", "csv"],
            "by hand": by_hand,
            "by hand, one thread": [*by_hand, "1"],
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
        "times_by_hand": {
            name: ips["slimcv predict"] / ips[name] for name in ips if name != "slimcv predict"
        },
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


MODELS = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "leafnet", "scenenet")
CALIBRATION_IMAGES, FITTING_IMAGES = 300, 300
SAMPLES = {1: 100, 32: 20}
"""Calls by batch."""
LEAST_SPEED = 0.97
"""Of the best by hand, at no more than what that loses."""
LEAST_DROP = 0.5
"""Points of slimcv's gate where the best by hand loses less: three of the 600 pictures decide nothing."""
TRAINED = {"resnet50": 6, "mobilenet_v2": 8, "efficientnet_b0": 8}
"""Epochs of the plain loop, in batches of 32 at 128 pixels."""


def loaded(name: str) -> tuple[Variant, Path]:
    """One of the six networks with the folder of its pictures."""
    if name in networks():
        network = networks()[name]
        return models.load(str(network.weights), arch=network.arch, input=network.input), network.data
    make_torchvision_importable()
    scenes = REFERENCE / "data" / "scenes"
    path = RESULTS / "winner" / f"{name}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(_fitted(name, data.load(str(scenes)).train), path)
    return models.load(str(path), arch=f"torchvision:{name}?num_classes=6", input="3x224x224"), scenes


def _fitted(name: str, train: data.Split) -> dict[str, torch.Tensor]:
    """Initial or trained weights, norms that have seen pictures, and a last layer fitted to the scenes.

    Without these two an untrained network gives every picture the same answer, which tells nothing of what
    quantisation costs.
    """
    import torchvision

    torch.manual_seed(0)
    torch.set_num_threads(available())
    network = getattr(torchvision.models, name)(num_classes=6)
    if name in TRAINED:
        plain_loop.train(network, train, InputSpec(3, 128, 128), batch=32, epochs=TRAINED[name])
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    head = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    features: list[torch.Tensor] = []
    chosen = np.random.default_rng(0).permutation(len(train))[:FITTING_IMAGES]
    pixels = train.pixels(224, 224, 3)
    batches = [
        torch.from_numpy(normalised(np.asarray(pixels[part]), InputSpec(3, 224, 224)))
        for part in np.array_split(np.sort(chosen), FITTING_IMAGES // 30)
    ]
    with torch.no_grad():
        for batch in batches:
            network.train()(batch)
        handle = head.register_forward_pre_hook(lambda _, given: features.append(given[0]))
        for batch in batches:
            network.eval()(batch)
        handle.remove()
    fit_linear(head, torch.cat(features), torch.from_numpy(train.labels[np.sort(chosen)]))
    return {key: value.detach() for key, value in network.state_dict().items()}


def by_hand(variant: Variant, pictures: list[np.ndarray], folder: Path) -> dict[str, tuple[Path, str]]:
    """What the three quantisers' own documentation leads to: file and runtime of each."""
    import nncf
    from onnxruntime import quantization as ort

    openvino = openvino_runtime.import_library()
    source = runtimes.write(variant, "onnxruntime", folder)
    model = nncf.quantize(
        openvino.Core().read_model(source), nncf.Dataset(pictures), subset_size=CALIBRATION_IMAGES
    )
    openvino.save_model(model, folder / "nncf.xml", compress_to_fp16=False)

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._left, None)
            return None if batch is None else {"input": batch}

    ort.quant_pre_process(source, folder / "prepared.onnx")
    ort.quantize_static(
        folder / "prepared.onnx",
        folder / "qdq.onnx",
        Reader(),
        quant_format=ort.QuantFormat.QDQ,
        per_channel=True,
        reduce_range=environment.saturates("host"),
    )
    return {
        "OpenVINO + NNCF": (folder / "nncf.xml", "openvino"),
        "ONNX Runtime QDQ": (folder / "qdq.onnx", "onnxruntime"),
        "Inductor + Neural Compressor": (_by_neural_compressor(variant, pictures, folder), "inductor"),
    }


def _by_neural_compressor(variant: Variant, pictures: list[np.ndarray], folder: Path) -> Path:
    """Its static configuration as it comes: export, prepare, calibrate, convert."""
    from neural_compressor.torch.export import export
    from neural_compressor.torch.quantization import convert, get_default_static_config, prepare

    model = capture.deterministic(variant.model)
    capture.set_training(model, False)
    example = torch.from_numpy(np.concatenate(pictures[:2]))
    with torch.no_grad():
        exported = export(model, example_inputs=(example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        prepared = prepare(exported, get_default_static_config())
        for picture in pictures:
            prepared(torch.from_numpy(picture))
        quantized = convert(prepared)
    made = dataclasses.replace(variant, model=quantized, precision="int8", artifacts={})
    return runtimes.write(made, "inductor", folder, name="compressor")


def winner(name: str) -> dict[str, Any]:
    """Latency and images a second in one interleaved run, one thread; answers on val/ through each file."""
    variant, source = loaded(name)
    dataset = data.load(str(source), input=variant.input)
    truth = dataset.val.labels
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        chosen = np.random.default_rng(0).permutation(len(dataset.train))[:CALIBRATION_IMAGES]
        pixels = dataset.train.pixels(variant.input.height, variant.input.width, 3)
        pictures = [
            np.ascontiguousarray(normalised(pixels[at : at + 1], variant.input)) for at in np.sort(chosen)
        ]
        files = by_hand(variant, pictures, folder)
        in_floats = runtimes.write(variant, "openvino", folder / "float")
        answers = {
            title: _answers(path, runtime, variant, dataset)
            for title, (path, runtime) in {"float": (in_floats, "openvino"), **files}.items()
        }
        right = {title: 100 * float(np.mean(given == truth)) for title, given in answers.items()}
        first = _timed(files, variant, batch=1)
        fastest = min(first, key=lambda title: first[title].latency.p50)
        bound = max(LEAST_DROP, right["float"] - right[fastest])
        shipped = slimcv.optimize(
            variant.model,
            recipe="cpu_int8",
            data=source,
            input=str(variant.input),
            threads=1,
            out=RESULTS / "winner" / name,
            overwrite=True,
            overrides=(f"gate.max_drop={bound:.2f}",),
        )
        manifest = bundle.read(shipped.folder)
        served = (shipped.folder / manifest.serve.path, manifest.serve.runtime)
        answers["slimcv"] = _answers(*served, variant, dataset)
        right["slimcv"] = 100 * float(np.mean(answers["slimcv"] == truth))
        timings = {batch: _timed({"slimcv": served, **files}, variant, batch=batch) for batch in SAMPLES}
    against = {batch: _against_the_best(found) for batch, found in timings.items()}
    report = shipped.report
    return {
        "model": name,
        "max_drop": bound,
        "served": report["steps"][-1]["reason"],
        "int8_mac_share": report["optimized"]["int8_mac_share"],
        "steps": [[step["name"], step["outcome"], step["reason"]] for step in report["steps"]],
        "bake_off_seconds": report["steps"][-1]["seconds"],
        "bake_off": report["steps"][-1]["details"].get("bake_off"),
        "top1_percent": right,
        "same_answer_as_in_float_percent": {
            title: 100 * float(np.mean(given == answers["float"])) for title, given in answers.items()
        },
        **{f"batch_{batch}": found for batch, found in against.items()},
        "met": {
            f"batch_{batch}": found["times_best_by_hand"]["value"] >= LEAST_SPEED
            and right["slimcv"] >= right[found["best_by_hand"]]
            for batch, found in against.items()
        },
    }


def _timed(files: dict[str, tuple[Path, str]], variant: Variant, *, batch: int) -> dict[str, latency.Timing]:
    contenders = {
        title: latency.Contender(path, runtime, 1, variant.input) for title, (path, runtime) in files.items()
    }
    return latency.interleaved(contenders, samples=SAMPLES[batch], batch=batch)


def _against_the_best(timings: dict[str, latency.Timing]) -> dict[str, Any]:
    """Milliseconds of a call, and how many times as fast as the best by hand."""
    p50 = {title: timing.latency.p50 for title, timing in timings.items()}
    best = min((title for title in p50 if title != "slimcv"), key=p50.__getitem__)
    times = dataclasses.asdict(latency.ratio(timings[best], timings["slimcv"]))
    return {"ms": p50, "best_by_hand": best, "times_best_by_hand": times}


def _answers(path: Path, runtime: str, variant: Variant, dataset: data.Dataset) -> np.ndarray:
    prepared = runtimes.prepare(path, runtime, threads=available())
    return accuracy.outputs(prepared, dataset.val, variant.input).argmax(axis=1)


def bake_off() -> dict[str, Any]:
    """`cpu_int8` on ResNet-18: seconds of its last record and of its exports, everything and quick."""
    seconds: dict[str, float] = {}
    with_exports: dict[str, float] = {}
    table: list[Any] = []
    for title, quick in (("all candidates", False), ("quick", True)):
        variant, source = loaded("resnet18")
        with tempfile.TemporaryDirectory() as work:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(work) / "compiled")
            result = slimcv.optimize(
                variant.model,
                recipe="cpu_int8",
                data=source,
                input=str(variant.input),
                threads=1,
                out=Path(work) / "slim",
                overrides=("gate.max_drop=100",),
                quick=quick,
            )
        steps = result.report["steps"]
        seconds[title] = steps[-1]["seconds"]
        exports = [step["seconds"] for step in steps if step["name"].startswith("export_")]
        with_exports[title] = seconds[title] + sum(exports)
        table = table or result.report["steps"][-1]["details"]["bake_off"]
    return {"model": "resnet18", "seconds": seconds, "seconds_with_exports": with_exports, "table": table}


def main() -> None:
    """Measure the row that was asked for."""
    rows: dict[str, Callable[[], dict[str, Any]]] = {
        "winner": lambda: winner(chosen.model),
        "bake-off": bake_off,
        "call": lambda: call(folder),
        "pictures": lambda: pictures(folder, network),
        "start": lambda: start(folder, network),
    }
    chosen = arguments(
        __doc__,
        row={"choices": list(rows), "required": True},
        model={"choices": MODELS, "default": "resnet18", "help": "of --row winner"},
        bundle={"type": Path, "help": "what --row call, pictures and start serve"},
    )
    network = networks()[chosen.network]
    folder = chosen.bundle or RESULTS / "latency" / network.name / "slim"
    served = {} if chosen.bundle is None else {"bundle": chosen.bundle.name}
    print_row(
        {"benchmark": f"serving, {chosen.row}", "network": network.name, **served, **rows[chosen.row]()}
    )


if __name__ == "__main__":
    main()
