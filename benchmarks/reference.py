"""The fixed start line of the benchmarks.

Trained networks and real pictures, and the best a user could do by hand.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REFERENCE = Path(os.environ.get("SLIMCV_REFERENCE", ROOT.parent / "shared"))
"""Folder with `models/` and `data/`; the product and its tests do without."""

RESULTS = ROOT / ".cache" / "benchmarks"


@dataclass(frozen=True)
class Network:
    """A trained network, its architecture, which a `.pt2` has inside, and its pictures."""

    name: str
    weights: Path
    arch: str
    data: Path
    input: str = "3x224x224"


_vision: Any = None


def networks() -> dict[str, Network]:
    """The two networks the project was founded on."""
    models, data = REFERENCE / "models", REFERENCE / "data"
    code = models / "networks.py"
    return {
        "leafnet": Network(
            "leafnet", models / "leafnet-leaves.safetensors", f"{code}:leafnet?classes=12", data / "leaves"
        ),
        "scenenet": Network(
            "scenenet", models / "scenenet-scenes.safetensors", f"{code}:scenenet", data / "scenes"
        ),
    }


def arguments(description: str | None, **choices: Any) -> argparse.Namespace:
    """Parse `--network` and what else a benchmark offers."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--network", choices=sorted(networks()), default="leafnet")
    for name, values in choices.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **values)
    return parser.parse_args()


def called(command: str, network: Network, out: Path, *options: str) -> list[str]:
    """The command line of `slimcv COMMAND` on a network and its pictures, answering in JSON."""
    return [
        str(Path(sys.executable).parent / "slimcv"),
        command,
        str(network.weights),
        *(["--arch", network.arch] if network.arch else []),
        "--input",
        network.input,
        "--data",
        str(network.data),
        "--out",
        str(out),
        "--format",
        "json",
        *options,
    ]


def optimize(network: Network, out: Path, *options: str) -> tuple[dict[str, Any], float]:
    """Call `slimcv optimize` as a user would; its report and the whole command's wall time in seconds."""
    import time

    command = called("optimize", network, out, "--overwrite", *options)
    begun = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode not in (0, 3):
        sys.exit(f"slimcv optimize ended with {done.returncode}")
    return json.loads(done.stdout), seconds


def make_torchvision_importable() -> None:
    """Its wheel is built for CUDA and looks at import for operators that a CPU build of torch lacks."""
    import torch

    global _vision
    if _vision is not None:
        return
    _vision = torch.library.Library("torchvision", "DEF")
    for arguments in ("nms(Tensor dets, Tensor scores", "qnms(Tensor dets, Tensor scores"):
        _vision.define(f"{arguments}, float iou_threshold) -> Tensor")


def fit_linear(layer: Any, features: Any, labels: Any) -> None:
    """Fit a linear layer to features (n, channels) and labels (n,): logistic regression with weight decay."""
    import torch
    from torch.nn import functional

    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Any:
        optimizer.zero_grad()
        found = functional.cross_entropy(layer(features), labels) + 1e-3 * layer.weight.square().sum()
        found.backward()
        return found

    optimizer.step(loss)


def print_row(row: dict[str, Any]) -> None:
    """One JSON object on stdout, with the machine it was measured on."""
    from slimcv.measure import environment

    print(json.dumps({**row, "environment": environment.describe().as_json()}, indent=2))
