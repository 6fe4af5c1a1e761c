"""A network compiled for training: the same gradients, the same network afterwards, or a reason."""

import pytest
import torch
from torch import nn

from slimcv.errors import SlimcvError
from slimcv.models import capture
from slimcv.step import InputSpec
from slimcv.train.average import snapshot
from slimcv.train.compiled import compiled, share_of_eager
from slimcv.train.descent import Descent
from slimcv.train.feed import Batch
from slimcv.train.settings import FinetuneSettings

INPUT = InputSpec(3, 8, 8)
SETTINGS = FinetuneSettings(distill=0, ema=0)


def network():
    torch.manual_seed(0)
    # No bias before BatchNorm: its gradient is all rounding, which Adam makes as large as any other.
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)
    )
    return capture.capture(net, INPUT).to(memory_format=torch.channels_last)


def batch(count):
    pictures = torch.randn(count, 8, 8, 3).permute(0, 3, 1, 2)
    return Batch(pictures, torch.arange(count) % 2, None)


def test_it_trains_like_the_network_itself_which_can_be_exported_afterwards():
    eager, model = network(), network()
    before = snapshot(model)
    forward = compiled(model, INPUT, sizes=(4, 5), settings=SETTINGS, precision="fp32")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    descents = [
        Descent(eager, SETTINGS, precision="fp32"),
        Descent(model, SETTINGS, precision="fp32", forward=forward),
    ]
    for count in (4, 5, 4):
        given = batch(count)
        for one in (eager, model):
            capture.set_training(one, True)
        first, second = (descent.step(given, rate=0.01, group=1, update=True) for descent in descents)
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(eager.state_dict(), model.state_dict(), rtol=1e-3, atol=1e-4)
    program = capture.exported(model, INPUT)
    pictures = given.pictures.contiguous()
    torch.testing.assert_close(program.module()(pictures), model(pictures), rtol=1e-4, atol=1e-5)


def test_timing_both_ways_leaves_the_network_as_it_is():
    model = network()
    before = snapshot(model)
    forward = compiled(model, INPUT, sizes=(4,), settings=SETTINGS, precision="fp32")
    assert share_of_eager(model, forward, INPUT, size=4, settings=SETTINGS, precision="fp32") > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_without_a_compiler_there_is_a_reason(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SlimcvError, match="C\\+\\+ compiler"):
        compiled(network(), INPUT, sizes=(4,), settings=SETTINGS, precision="fp32")


def test_a_compiler_that_does_not_work_is_a_reason_too():
    import torch._inductor.config as inductor_config
    from torch._inductor.utils import fresh_cache

    model = network()
    broken = inductor_config.patch({"cpp.cxx": (None, "false")})
    with fresh_cache(), broken, pytest.raises(SlimcvError, match=r"torch\.compile failed"):
        compiled(model, INPUT, sizes=(3,), settings=SETTINGS, precision="fp32")
    assert all(parameter.grad is None for parameter in model.parameters())
