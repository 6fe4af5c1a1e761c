"""Wall time of `cpu_int8` on ResNet-18 with 300 calibration pictures against NNCF's own quantize + compile.

Both read the same pictures and start from the same file; slimcv's time is that of its step (calibration,
conversion, export to ONNX and OpenVINO IR), NNCF's that of export, quantize and compile by hand. Alternating,
in processes of their own, all threads. Prints JSON.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from reference import REFERENCE, make_torchvision_importable, print_row

from slimcv.measure.threads import available

CALIBRATION_IMAGES = 300
ARCH = "torchvision:resnet18?num_classes=6"


def by_slimcv(work: Path) -> float:
    """Seconds of the steps quantize_int8 and export_openvino, from the loaded variant to a compiled model."""
    from slimcv import data, models, runtimes
    from slimcv.measure import allocator
    from slimcv.step import Context
    from slimcv.steps.export_openvino import ExportOpenvino
    from slimcv.steps.quantize_int8 import QuantizeInt8

    allocator.tune()
    torch.set_num_threads(available())
    variant = models.load(ARCH, input="3x224x224")
    dataset = data.load(str(REFERENCE / "data" / "scenes"))
    dataset.train.pixels(224, 224, 3)
    context = Context(variant, dataset, work, threads=available(), train_threads=available())
    begun = time.perf_counter()
    quantized = QuantizeInt8(calibration_images=CALIBRATION_IMAGES).apply(variant, context)
    exported = ExportOpenvino().apply(quantized, context)
    runtimes.prepare(exported.artifacts["openvino"], "openvino", threads=available())
    return time.perf_counter() - begun


def by_nncf(work: Path) -> float:
    """Seconds of the same by hand, as NNCF's documentation shows it for a PyTorch model."""
    import nncf

    from slimcv import data, models, runtimes
    from slimcv.data.normalisation import normalised
    from slimcv.runtimes import openvino as openvino_runtime

    openvino = openvino_runtime.import_library()
    torch.set_num_threads(available())
    variant = models.load(ARCH, input="3x224x224")
    split = data.load(str(REFERENCE / "data" / "scenes")).train
    pixels = split.pixels(224, 224, 3)
    begun = time.perf_counter()
    source = runtimes.write(variant, "openvino", work)
    pictures = [
        np.ascontiguousarray(normalised(pixels[i : i + 1], variant.input)) for i in range(CALIBRATION_IMAGES)
    ]
    model = nncf.quantize(
        openvino.Core().read_model(source), nncf.Dataset(pictures), subset_size=CALIBRATION_IMAGES
    )
    openvino.Core().compile_model(model, "CPU")
    return time.perf_counter() - begun


def main() -> None:
    """Alternate the two, each in a process of its own."""
    if len(sys.argv) > 1:
        make_torchvision_importable()
        with tempfile.TemporaryDirectory() as work:
            print(json.dumps({"slimcv": by_slimcv, "nncf": by_nncf}[sys.argv[1]](Path(work))))
        return
    found: dict[str, list[float]] = {"slimcv": [], "nncf": []}
    for name in ("slimcv", "nncf", "nncf", "slimcv"):
        done = subprocess.run([sys.executable, __file__, name], stdout=subprocess.PIPE, text=True, check=True)
        found[name].append(json.loads(done.stdout.splitlines()[-1]))
    seconds = {name: statistics.median(values) for name, values in found.items()}
    print_row(
        {
            "benchmark": "cpu_int8 on ResNet-18, 300 calibration pictures",
            "seconds": seconds,
            "runs": found,
            "times_nncf": seconds["slimcv"] / seconds["nncf"],
        }
    )


if __name__ == "__main__":
    main()
