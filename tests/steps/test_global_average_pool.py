"""Flatten → dense becomes global average pooling."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimcv import data, surgery
from slimcv.errors import NotApplicable
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant
from slimcv.steps.global_average_pool import GlobalAveragePool

INPUT = InputSpec(3, 24, 24)


def flat(*, deep: bool = True) -> nn.Module:
    body = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Dropout(0.4)]
    dense = [nn.Linear(8 * 36, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 5)]
    return nn.Sequential(*body, *(dense if deep else [nn.Linear(8 * 36, 5)]))


def variant_of(module: nn.Module, input: InputSpec = INPUT) -> Variant:
    return Variant(capture.capture(module.eval(), input), input)


def context_of(variant: Variant, tmp_path, pictures=None) -> Context:
    return Context(variant, pictures, tmp_path, threads=1, train_threads=1)


def applied(step: GlobalAveragePool, variant: Variant, context: Context) -> Variant:
    return step.apply(replace(variant, model=capture.copy(variant.model)), context)


def parameters(variant: Variant) -> int:
    return sum(p.numel() for p in variant.model.parameters())


def answers(variant: Variant, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return variant.model(x)


class FixedPool(nn.Module):
    """Pools to a fixed size before it flattens, as VGG and AlexNet do."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 8, 1)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(3), nn.Linear(72, 5)

    def forward(self, x):
        return self.fc(torch.flatten(self.pool(self.features(x).relu()), 1))


class WholeMap(nn.Module):
    """A convolution whose one window is the whole map, as timm writes VGG's first dense layer."""

    def __init__(self):
        super().__init__()
        self.features, self.fc1 = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 16, 6)
        self.drop, self.fc2 = nn.Dropout(0.2), nn.Linear(16, 5)

    def forward(self, x):
        return self.fc2(self.drop(self.fc1(self.features(x).relu()).relu()).mean((2, 3)))


class View(nn.Module):
    """Flattens with view."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 4, stride=4), nn.Linear(144, 5)

    def forward(self, x):
        x = self.conv(x)
        return self.fc(x.view(x.size(0), -1))


@pytest.mark.parametrize("module", [flat(deep=False), FixedPool(), View()])
def test_a_constant_map_gives_the_same_logits_as_before(module, tmp_path):
    if isinstance(module, nn.Sequential):
        module[0] = nn.Conv2d(3, 8, 1)
    before = variant_of(module)
    after = applied(GlobalAveragePool(head="keep"), before, context_of(before, tmp_path))
    constant = torch.randn(4, 3, 1, 1).expand(4, 3, 24, 24)
    torch.testing.assert_close(answers(after, constant), answers(before, constant), rtol=1e-4, atol=1e-5)
    assert parameters(after) < parameters(before)


@pytest.mark.parametrize("head", ["keep", "collapse"])
@pytest.mark.parametrize("module", [flat(), FixedPool(), WholeMap()])
def test_afterwards_other_resolutions_are_taken(module, head, tmp_path):
    before = variant_of(module)
    after = applied(GlobalAveragePool(head=head, calibration_images=8), before, context_of(before, tmp_path))
    for side in (24, 16, 40):
        assert answers(after, torch.randn(2, 3, side, side)).shape == (2, 5)


def test_keep_keeps_the_names_and_the_other_dense_layers(tmp_path):
    before = variant_of(flat())
    after = applied(GlobalAveragePool(head="keep"), before, context_of(before, tmp_path))
    assert list(after.model.state_dict()) == list(before.model.state_dict())
    assert after.model.get_submodule("5").weight.shape == (16, 8)
    assert torch.equal(after.model.get_submodule("9").weight, before.model.get_submodule("9").weight)


def test_collapse_leaves_one_dropout_and_one_linear(tmp_path):
    before = variant_of(flat())
    after = applied(GlobalAveragePool(calibration_images=8), before, context_of(before, tmp_path))
    assert [name for name, _ in after.model.named_parameters()] == [
        "0.weight",
        "0.bias",
        "9.weight",
        "9.bias",
    ]
    assert after.model.get_submodule("9").weight.shape == (5, 8)
    dropouts = [part for part in after.model.modules() if isinstance(part, nn.Dropout)]
    assert [dropout.p for dropout in dropouts] == [0.3]


def test_the_collapsed_head_is_fitted_to_the_logits_on_training_pictures(tmp_path):
    random = np.random.default_rng(0)
    for number in range(80):
        folder = tmp_path / "pictures" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        coarse.resize((24, 24)).save(folder / f"{number}.png")
    pictures = data.load(str(tmp_path / "pictures"))
    before = variant_of(flat())
    fitted = applied(GlobalAveragePool(), before, context_of(before, tmp_path, pictures))
    carried = applied(GlobalAveragePool(head="keep"), before, context_of(before, tmp_path, pictures))
    pixels = pictures.val.pixels(24, 24, 3)
    x = data.batches.normalise(torch.from_numpy(np.array(pixels)), INPUT)
    wanted = answers(before, x)
    errors = [float((answers(variant, x) - wanted).norm()) for variant in (fitted, carried)]
    assert errors[0] < errors[1]


def test_a_copy_in_the_head_is_no_activation():
    class Copying(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 5)

        def forward(self, x):
            return self.last(self.first(x.mean((2, 3))).clone().contiguous())

    module = nn.Sequential(nn.Conv2d(3, 8, 1), Copying())
    model = capture.capture(module.eval(), INPUT)
    (pooled,) = model.graph.find_nodes(op="call_function", target=torch.ops.aten.mean.dim)
    weight, bias = surgery.linearised(model, surgery.chain_to_output(pooled), channels=8)
    features = torch.randn(4, 8, dtype=torch.float64)
    expected = module[1](features.float()[..., None, None])
    torch.testing.assert_close((features @ weight.T + bias).float(), expected, rtol=1e-4, atol=1e-5)


def test_every_parameter_learns_and_the_graph_is_exported_again(tmp_path):
    before = variant_of(flat())
    after = applied(GlobalAveragePool(calibration_images=8), before, context_of(before, tmp_path))
    after.model(torch.randn(4, 3, 24, 24)).sum().backward()
    assert all(p.grad is not None for p in after.model.parameters())
    again = capture.lift(capture.exported(after.model, after.input))
    x = torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(again(x), after.model(x))


def test_a_network_that_pools_globally_already_is_left(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    before = variant_of(module)
    with pytest.raises(NotApplicable, match="no dense layer reads"):
        applied(GlobalAveragePool(), before, context_of(before, tmp_path))


def test_a_branched_head_is_kept_or_refused(tmp_path):
    class Branched(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.first, self.gate, self.last = (
                nn.Conv2d(3, 4, 4, stride=4), nn.Linear(144, 8), nn.Linear(8, 8), nn.Linear(8, 5)
            )  # fmt: skip

        def forward(self, x):
            x = self.first(self.conv(x).flatten(1))
            return self.last(x * self.gate(x).sigmoid())

    before = variant_of(Branched())
    with pytest.raises(NotApplicable, match="branches"):
        applied(GlobalAveragePool(calibration_images=8), before, context_of(before, tmp_path))
    after = applied(GlobalAveragePool(head="keep"), before, context_of(before, tmp_path))
    assert parameters(after) < parameters(before)


@pytest.mark.parametrize("name", ["vgg11", "alexnet"])
def test_networks_of_torchvision_get_it(name, tmp_path):
    from torchvision import models

    with torch.device("meta"):
        module = getattr(models, name)(num_classes=5)
    module.classifier[1 if name == "alexnet" else 0] = nn.Linear(
        256 * 36 if name == "alexnet" else 512 * 49, 32
    )
    module.classifier[4 if name == "alexnet" else 3] = nn.Linear(32, 32)
    module.classifier[6] = nn.Linear(32, 5)
    module = module.to_empty(device="cpu")
    for p in module.parameters():
        nn.init.normal_(p, std=0.02)
    before = variant_of(module, InputSpec(3, 96, 96))
    after = applied(GlobalAveragePool(calibration_images=8), before, context_of(before, tmp_path))
    assert answers(after, torch.randn(2, 3, 64, 64)).shape == (2, 5)
