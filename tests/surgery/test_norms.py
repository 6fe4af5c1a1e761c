"""Folding BatchNorms into neighbouring layers."""

import pytest
import torch
from torch import nn

from slimcv.models import capture
from slimcv.step import InputSpec
from slimcv.surgery import absorb_norms, fold_norms, norms, norms_left

INPUT = InputSpec(3, 16, 16)


def lively(module: nn.Module) -> nn.Module:
    """Give every norm statistics and weights that do something; scales stay positive."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return module


def lifted(*layers: nn.Module):
    return capture.capture(lively(nn.Sequential(*layers)), INPUT)


def answers(model):
    with torch.no_grad():
        return model(capture.example(INPUT))


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), *head(8)],
        [nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.ReLU(), *head(8)],
        [nn.Conv2d(3, 6, 3, padding=1, groups=3), nn.BatchNorm2d(6), nn.ReLU(), *head(6)],
        [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.ReLU(), *head(8)],
        [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.Conv2d(8, 8, 1), *head(8)],
        [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=4), nn.ReLU(), *head(8)],
        [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), *head(8)],
        [nn.Conv2d(3, 4, 5, stride=4), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 5)],
        [nn.Flatten(), nn.Linear(768, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5)],
        [nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 5)],
    ],
)  # fmt: skip
def test_a_norm_that_folds_exactly_is_gone_and_the_outputs_stay(layers):
    model = lifted(*layers)
    before = answers(model)
    assert fold_norms(model, INPUT) == 1
    assert norms_left(model) == 0
    torch.testing.assert_close(answers(model), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1), *head(8)],
        [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), *head(8)],
        [nn.ReLU(), nn.BatchNorm2d(3), nn.AvgPool2d(3, padding=1), nn.Conv2d(3, 8, 3), *head(8)],
    ],
)
def test_a_norm_that_does_not_fold_exactly_is_left(layers):
    model = lifted(*layers)
    before = answers(model)
    assert fold_norms(model, INPUT) == 0
    assert norms_left(model) == 1
    assert torch.equal(answers(model), before)


def test_a_negative_scale_does_not_cross_max_pooling():
    norm = nn.BatchNorm2d(8)
    model = lifted(nn.Conv2d(3, 8, 3), nn.ReLU(), norm, nn.MaxPool2d(2), *head(8))
    norm.weight.data[3] = -1.0
    before = answers(model)
    assert fold_norms(model, INPUT) == 0
    assert torch.equal(answers(model), before)


def uneven():
    """A norm behind channels of which half are hardly ever more than 0, and it makes up for that."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
    model = lifted(conv, nn.ReLU(), norm, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5))
    conv.weight.data[4:] *= 1e-3
    conv.bias.data[4:] *= 1e-3
    with torch.no_grad():
        maps = torch.relu(conv(capture.example(INPUT)))
    norm.running_mean.copy_(maps.mean((0, 2, 3)))
    norm.running_var.copy_(maps.var((0, 2, 3)))
    norm.eps = 1e-9
    return model


def moved_by_rounding(model):
    """How far outputs move when the last layer's weights get 8 bits, a scale for each output."""
    before = answers(model)
    layer = next(part for part in model.modules() if isinstance(part, nn.Linear))
    step = layer.weight.data.abs().amax(1, keepdim=True) / 127
    layer.weight.data = torch.round(layer.weight.data / step) * step
    return float((answers(model) - before).norm() / before.norm())


def test_a_norm_that_evens_out_its_channels_is_left_where_folding_it_would_cost_8_bit_weights_their_bits(
    monkeypatch,
):
    model = uneven()
    before = answers(model)
    assert fold_norms(model, INPUT) == 0
    assert torch.equal(answers(model), before)
    left = moved_by_rounding(model)
    monkeypatch.setattr(norms, "_MOST_NOISE", float("inf"))
    folded = uneven()
    assert fold_norms(folded, INPUT) == 1
    torch.testing.assert_close(answers(folded), before, rtol=1e-4, atol=1e-4)
    assert moved_by_rounding(folded) > 4 * left


def test_a_convolution_that_others_read_too_keeps_its_norm():
    class Branched(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)

        def forward(self, x):
            x = self.conv(x)
            return self.fc((self.norm(x).relu() + x).mean((2, 3)))

    model = capture.capture(lively(Branched()), INPUT)
    before = answers(model)
    assert fold_norms(model, INPUT) == 0
    assert torch.equal(answers(model), before)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet"])
def test_every_convolution_followed_by_a_norm_takes_it_in(name):
    from torchvision import models

    torch.manual_seed(1)
    if name == "densenet":
        network = models.DenseNet(growth_rate=8, block_config=(2, 2), num_init_features=16, num_classes=5)
    else:
        network = getattr(models, name)(num_classes=5)
    module = lively(network)
    input = InputSpec(3, 32, 32)
    model = capture.capture(module, input)
    with torch.no_grad():
        x = capture.example(input)
        before, norms = model(x), norms_left(model)
        folded = fold_norms(model, input)
        difference = (model(x) - before).abs().max() / before.abs().max()
    assert float(difference) <= 1e-4
    assert norms_left(model) == norms - folded
    assert folded == (norms if name != "densenet" else 5)


def test_absorbing_changes_nothing_away_from_the_border():
    class Mapped(nn.Module):
        """Logits are single positions of the map: the corner and the middle."""

        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.second = nn.Conv2d(8, 4, 3, padding=1)

        def forward(self, x):
            x = self.second(self.norm(self.first(x).relu()))
            return torch.cat([x[:, :, 8, 8], x[:, :, 0, 0]], 1)

    model = capture.capture(lively(Mapped()), INPUT)
    before = answers(model)
    assert absorb_norms(model, INPUT) == 1
    assert norms_left(model) == 0
    after = answers(model)
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(after[:, 4:], before[:, 4:], atol=1e-2)


def test_absorbing_leaves_norms_that_fold_backward():
    model = lifted(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1), *head(8))
    assert absorb_norms(model, INPUT) == 0


def test_a_shift_goes_through_a_depthwise_convolution_into_the_pointwise_bias():
    depthwise, pointwise = nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.Conv2d(8, 6, 1)
    model = lifted(
        nn.ReLU(), nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), depthwise, pointwise, nn.ReLU(), *head(6)
    )
    before, names = answers(model), {name for name, _ in model.named_parameters()}
    assert fold_norms(model, INPUT) == 1
    torch.testing.assert_close(answers(model), before, rtol=1e-5, atol=1e-5)
    assert {name for name, _ in model.named_parameters()} == names - {"3.weight", "3.bias"}


def test_a_norm_after_a_shared_layer_is_left():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Linear(3, 5)

        def forward(self, x):
            return self.fc(self.norm(self.conv(self.conv(x).relu())).relu().mean((2, 3)))

    model = capture.capture(lively(Shared()), INPUT)
    before = answers(model)
    fold_norms(model, INPUT)
    torch.testing.assert_close(answers(model), before, rtol=1e-5, atol=1e-5)
