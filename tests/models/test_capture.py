"""Capturing networks: equal outputs, the same names, and errors that name the line that stopped it."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimcv.errors import SlimcvError
from slimcv.models import capture
from slimcv.models.randomness import random_operators
from slimcv.step import InputSpec

SMALL = InputSpec(3, 32, 32)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8 * 4 * 4, 5)

    def forward(self, x):
        x = functional.relu(self.norm(self.stem(x)), inplace=True)
        x = x + self.shared(self.shared(x))
        x = functional.adaptive_avg_pool2d(x, 4)
        return self.head(self.drop(x.view(x.size(0), -1)))


def kinds(model):
    return [type(model.get_submodule(n.target)).__name__ for n in model.graph.nodes if n.op == "call_module"]


def functions(model):
    return [n.target for n in model.graph.nodes if n.op == "call_function"]


def test_the_lifted_graph_answers_and_is_named_like_the_network():
    network = Residual()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    lifted = capture.capture(network, SMALL)
    x = torch.randn(3, 3, 32, 32)
    assert torch.equal(lifted(x), network.eval()(x))
    assert set(lifted.state_dict()) == set(network.state_dict())
    assert all(value is dict(network.named_parameters())[name] for name, value in lifted.named_parameters())


def test_layers_are_modules_again_and_a_shared_layer_is_one_module_called_twice():
    lifted = capture.capture(Residual(), SMALL)
    assert kinds(lifted) == ["Conv2d", "BatchNorm2d", "Conv2d", "Conv2d", "Dropout", "Linear"]
    targets = [n.target for n in lifted.graph.nodes if n.op == "call_module"]
    assert targets == ["stem", "norm", "shared", "shared", "drop", "head"]
    assert lifted.shared.groups == 4
    assert lifted.shared.bias is None


def test_the_view_before_the_head_becomes_a_flatten_and_relu_is_out_of_place():
    found = functions(capture.capture(Residual(), SMALL))
    assert torch.flatten in found
    assert torch.ops.aten.relu.default in found
    assert torch.ops.aten.relu_.default not in found


def test_every_parameter_of_the_lifted_graph_gets_a_gradient():
    lifted = capture.capture(Residual(), SMALL)
    capture.set_training(lifted, True)
    lifted(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in lifted.parameters())


def test_dropout_is_active_in_training_only():
    lifted = capture.capture(Residual(), SMALL)
    x = torch.randn(2, 3, 32, 32)
    capture.set_training(lifted, True)
    assert not torch.equal(lifted(x), lifted(x))
    capture.set_training(lifted, False)
    assert torch.equal(lifted(x), lifted(x))


def test_batch_norm_statistics_move_as_in_the_network():
    network = Residual()
    lifted = capture.copy(capture.capture(network, SMALL))
    capture.set_training(lifted, True)
    x = torch.randn(4, 3, 32, 32)
    lifted(x)
    network.train()(x)
    assert torch.equal(lifted.norm.running_mean, network.norm.running_mean)
    assert torch.equal(lifted.norm.running_var, network.norm.running_var)
    assert int(lifted.norm.num_batches_tracked) == 1


def test_a_batch_norm_that_averages_over_all_batches_goes_on_averaging():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), Noise(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    lifted = capture.copy(capture.capture(network, SMALL))
    assert kinds(lifted) == ["Conv2d", "BatchNorm2d", "Conv2d", "StochasticDepth"]
    assert network[1].momentum is None
    again = capture.lift(capture.exported(lifted, SMALL))
    norm = network.train()[1]
    for _ in range(3):
        x = torch.randn(4, 3, 32, 32)
        network(x)
        for model in (lifted, again):
            capture.set_training(model, True)
            model(x)
    for model in (lifted, again):
        assert torch.allclose(model.get_submodule("1").running_mean, norm.running_mean)
        assert torch.allclose(model.get_submodule("1").running_var, norm.running_var)


def test_a_copy_shares_nothing():
    lifted = capture.capture(Residual(), SMALL)
    copied = capture.copy(lifted)
    with torch.no_grad():
        copied.stem.weight.zero_()
    assert lifted.stem.weight.abs().sum() > 0


def test_the_lifted_graph_runs_at_other_resolutions_and_batch_sizes():
    network = Residual()
    lifted = capture.capture(network, SMALL)
    x = torch.randn(1, 3, 48, 40)
    assert torch.equal(lifted(x), network.eval()(x))


def test_a_channel_shuffle_keeps_to_the_size_of_its_input():
    class Shuffle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            x = self.conv(x)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
            return self.head(x.mean((2, 3)))

    network = Shuffle()
    lifted = capture.capture(network, SMALL)
    x = torch.randn(1, 3, 20, 24)
    assert torch.allclose(lifted(x), network(x), atol=1e-6)


def test_pooling_the_whole_map_becomes_global_pooling():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(32), nn.Flatten(), nn.Linear(4, 2))
    lifted = capture.capture(network, SMALL)
    assert torch.ops.aten.adaptive_avg_pool2d.default in functions(lifted)
    assert lifted(torch.randn(1, 3, 48, 48)).shape == (1, 2)


def test_an_overwritten_tensor_that_is_read_afterwards_keeps_its_new_value():
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.conv(x)
            half = y[:, :2]
            half.mul_(3.0)
            functional.relu(y, inplace=True)
            return y.mean((2, 3))

    network = Overwriting()
    x = torch.randn(2, 3, 32, 32)
    lifted = capture.capture(network, SMALL)
    assert torch.allclose(lifted(x), network(x), atol=1e-6)


def test_stochastic_depth_is_kept_and_leaves_no_trace_in_eval():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            y = self.conv(x)
            if self.training:
                keep = y.new_empty((y.shape[0], 1, 1, 1)).bernoulli_(0.5).div_(0.5)
                y = y * keep
            return (x + y).mean((2, 3))

    lifted = capture.capture(Block(), SMALL)
    assert "StochasticDepth" in kinds(lifted)
    again = capture.lift(capture.exported(lifted, SMALL))
    assert "StochasticDepth" in kinds(again)
    capture.set_training(again, True)
    x = torch.randn(64, 3, 32, 32)
    branch = (again(x) - x.mean((2, 3))).abs().sum(1)
    dropped = int((branch < 1e-5).sum())
    assert 10 < dropped < 54
    assert "StochasticDepth" not in kinds(capture.deterministic(lifted))


class Noise(nn.Module):
    """A branch times noise while training, drawn in one shape and divided by one number."""

    def __init__(self, channels=3, *, shape=(1, 1, 1), keep=0.5, divisor=0.5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.shape, self.keep, self.divisor = shape, keep, divisor

    def forward(self, x):
        y = self.conv(x)
        if self.training:
            y = y * (torch.empty(x.shape[0], *self.shape).bernoulli_(self.keep) / self.divisor)
        return x + y


def noisy(**noise):
    return nn.Sequential(Noise(**noise), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_noise_for_whole_samples_that_keeps_their_mean_is_stochastic_depth():
    assert kinds(capture.capture(noisy(), SMALL)) == ["Conv2d", "StochasticDepth"]


@pytest.mark.parametrize(
    "noise",
    [
        {"shape": (3, 1, 1)}, {"shape": (1, 32, 32)}, {"divisor": 1.0}, {"divisor": 0.25},
        {"keep": 1 - 1e-9, "divisor": 1.0}, {"shape": (3, 1, 1), "keep": 1 - 1e-9, "divisor": 1 - 1e-9},
    ],
    ids=["channels", "pixels", "not scaled", "scaled twice", "no difference seen", "channels not seen"],
)  # fmt: skip
def test_a_dropout_of_the_networks_own_is_not_taken_for_stochastic_depth(noise):
    network = noisy(**noise)
    lifted = capture.capture(network, SMALL)
    assert kinds(lifted) == ["Conv2d"]
    assert not random_operators(lifted.graph)
    with pytest.raises(SlimcvError, match="draws random numbers"):
        capture.checked(capture.export(network.train(), SMALL), own=SMALL, input=SMALL)


@pytest.mark.parametrize(
    "noise", [lambda drawn: drawn * 2.0, lambda drawn: drawn * drawn], ids=["times a number", "times itself"]
)
def test_noise_that_multiplies_no_branch_is_left_to_eval_mode(noise):
    class Own(Noise):
        def forward(self, x):
            y = self.conv(x)
            if self.training:
                y = y + noise(torch.empty(x.shape[0], 1, 1, 1).bernoulli_(0.5))
            return y.mean((2, 3))

    assert kinds(capture.capture(Own(), SMALL)) == ["Conv2d"]


def test_an_activation_that_is_random_only_while_training_is_captured():
    network = nn.Sequential(nn.RReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.randn(4, 3, 32, 32)
    assert torch.allclose(capture.capture(network, SMALL)(x), network.eval()(x), atol=1e-6)


def test_other_layers_are_lifted_too():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding="same"), nn.GroupNorm(2, 4), nn.Dropout2d(0.1),
        nn.ConvTranspose2d(4, 4, 2, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(4), nn.BatchNorm1d(4, affine=False),
        nn.Linear(4, 3),
    )  # fmt: skip
    lifted = capture.capture(network, SMALL)
    expected = ["Conv2d", "GroupNorm", "Dropout2d", "ConvTranspose2d", "LayerNorm", "BatchNorm1d", "Linear"]
    assert kinds(lifted) == expected
    again = capture.lift(capture.exported(lifted, SMALL))
    assert kinds(again) == expected


def test_a_group_norm_with_a_bias_and_no_weight_stays_an_operator():
    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.randn(4))

        def forward(self, x):
            return functional.group_norm(x, 2, None, self.bias)

    network = nn.Sequential(nn.Conv2d(3, 4, 3), Biased(), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    lifted = capture.capture(network, SMALL)
    assert kinds(lifted) == ["Conv2d"]
    assert set(lifted.state_dict()) == set(network.state_dict())


def test_a_tied_weight_stays_a_parameter():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)

        def forward(self, x):
            x = self.first(x.mean((2, 3)))
            return x @ self.first.weight

    lifted = capture.capture(Tied(), SMALL)
    assert kinds(lifted) == []
    assert list(dict(lifted.named_parameters())) == ["first.weight"]
    x = torch.randn(2, 3, 32, 32)
    capture.copy(lifted)(x).sum().backward()


def test_a_network_with_other_outputs_while_training_is_captured_in_eval_mode():
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)
            self.auxiliary = nn.Linear(3, 2)

        def forward(self, x):
            x = x.mean((2, 3))
            return (self.head(x), self.auxiliary(x)) if self.training else self.head(x)

    lifted = capture.capture(Auxiliary(), SMALL)
    assert kinds(lifted) == ["Linear"]


def test_shapes_are_known_for_every_node():
    lifted = capture.capture(Residual(), SMALL)
    shapes = capture.shapes(lifted, SMALL, batch=1)
    assert shapes["stem"] == (1, 8, 32, 32)
    assert shapes["head"] == (1, 5)


def test_the_mode_of_the_network_is_left_as_it_was():
    network = Residual()
    network.norm.eval()
    capture.capture(network, SMALL)
    assert network.training
    assert not network.norm.training


def test_a_network_that_branches_on_values_is_refused_with_the_line_that_does():
    class Branching(nn.Module):
        def forward(self, x):
            x = x.mean((2, 3))
            if x.sum() > 0:  # the line
                return x
            return -x

    with pytest.raises(SlimcvError) as caught:
        capture.capture(Branching(), SMALL)
    assert "test_capture.py:" in caught.value.message
    assert "if x.sum() > 0:  # the line" in caught.value.message


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout])
@pytest.mark.parametrize("inplace", [False, True])
def test_a_program_exported_while_training_is_checked_without_its_dropouts(kind, inplace):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), kind(0.3, inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    lifted = capture.checked(capture.export(network.train(), SMALL), own=SMALL, input=SMALL)
    assert kinds(lifted) == ["Conv2d", kind.__name__, "Linear"]


class PictureByPicture(nn.Module):
    """Is traced for as many pictures as the example has."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 5)

    def forward(self, x):
        return torch.stack([self.head(picture.mean((1, 2))) for picture in x])


def test_a_batch_size_that_tracing_fixed_is_refused():
    with pytest.raises(SlimcvError, match="only works with one batch size") as caught:
        capture.capture(PictureByPicture(), SMALL)
    assert "no loop over them" in caught.value.hint
    with pytest.raises(SlimcvError, match="only works with one batch size"):
        capture.checked(capture.export(PictureByPicture().eval(), SMALL), own=SMALL, input=SMALL)


def test_a_number_of_pictures_that_the_graph_does_not_run_on_is_refused():
    class InTwos(nn.Module):
        def forward(self, x):
            x = x.mean((2, 3))
            return x.view(2, -1, 3).flatten(0, 1) if x.shape[0] % 2 == 0 else x

    with pytest.raises(SlimcvError, match="does not run on 3 pictures"):
        capture.capture(InTwos(), SMALL)


def test_a_network_that_is_random_in_eval_mode_is_refused():
    class Noisy(nn.Module):
        def forward(self, x):
            x = x.mean((2, 3))
            return x + torch.rand_like(x)

    with pytest.raises(SlimcvError, match="draws random numbers"):
        capture.capture(Noisy(), SMALL)


@pytest.mark.parametrize(
    "network",
    [nn.Conv2d(3, 4, 3), nn.Sequential(nn.Flatten(), nn.Linear(3072, 4), nn.Unflatten(1, (2, 2)))],
    ids=["map", "matrix"],
)
def test_what_is_no_classifier_is_refused(network):
    with pytest.raises(SlimcvError) as caught:
        capture.capture(network, SMALL)
    assert "image classifiers" in caught.value.hint


def test_pictures_the_network_cannot_take_are_refused():
    with pytest.raises(SlimcvError, match="does not run on 1x32x32"):
        capture.capture(Residual(), InputSpec(1, 32, 32))
