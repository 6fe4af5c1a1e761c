"""The step `finetune`: better answers, the same computation, and a record of the training."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from slimcv import data as datasets
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Stage, Variant
from slimcv.steps.finetune import Finetune
from slimcv.train.evaluation import evaluate

INPUT = InputSpec(3, 12, 12)


def test_the_step_is_a_training_step_that_needs_data():
    assert Finetune.stage is Stage.TRAIN
    assert Finetune.needs_data
    assert Finetune(budget="1h").budget == 3600


def test_fine_tuning_raises_accuracy_and_keeps_the_graph(tmp_path):
    random = np.random.default_rng(0)
    for brightness, name in ((0, "dark"), (90, "light")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(24):
            pixels = random.integers(0, 160, (12, 12, 3), dtype=np.uint8) + np.uint8(brightness)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    data = datasets.load(str(tmp_path / "pictures"), cache=tmp_path / "cache")
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    torch.manual_seed(0)
    student = Variant(capture.capture(net, INPUT), INPUT)
    context = Context(student, data, tmp_path, threads=1, train_threads=1)
    trained = Finetune(epochs=20, lr=0.03, batch=8, distill=0).apply(student, context)
    assert evaluate(trained.model, data.val, INPUT).top1 == 100.0
    assert trained.model.code == student.model.code
    assert trained.input == INPUT
    assert trained.details["finetune"]["best_top1"] == 100.0
