"""Channels go, the MACs with them, and what is left is fitted."""

import contextlib
from dataclasses import replace

import pytest
import torch
from torch import nn

from slimcv.errors import NotApplicable, Rejected, SlimcvError
from slimcv.measure import macs
from slimcv.measure.trial import Outcome, Trial
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant
from slimcv.steps import prune_channels
from slimcv.steps.prune_channels import PruneChannels
from slimcv.train.settings import FinetuneSettings

INPUT = InputSpec(3, 16, 16)


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(48, 64, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2),
    )  # fmt: skip


def redundant() -> nn.Module:
    """Every second channel of the first layer is a multiple of the one before, as the norm sees it too."""
    made = module()
    with torch.no_grad():
        for values in (made[0].weight, made[0].bias):
            values[1::2] = 0.5 * values[::2]
        made[1].running_var[1::2] = 0.25
    return made


def variant_of(made: nn.Module) -> Variant:
    return Variant(capture.capture(made.eval(), INPUT), INPUT)


def applied(step, variant: Variant, tmp_path, data=None, **settings) -> Variant:
    context = Context(variant, data, tmp_path, threads=1, train_threads=1, **settings)
    return step.apply(replace(variant, model=capture.copy(variant.model)), context)


def error(variant: Variant, original: Variant) -> float:
    x = capture.example(INPUT, batch=16)
    with torch.no_grad():
        expected = original.model(x)
        return float((variant.model(x) - expected).norm() / (expected - expected.mean(0)).norm())


@pytest.mark.parametrize("importance", ["taylor", "l2"])
def test_the_share_of_the_macs_is_kept_in_widths_of_eight(importance, tmp_path):
    before = variant_of(module())
    step = PruneChannels(macs=0.5, importance=importance, calibration_images=16)
    after = applied(step, before, tmp_path)
    share = macs.count(after.model, INPUT) / macs.count(before.model, INPUT)
    assert 0.35 < share <= 0.5
    details = after.details["prune_channels"]
    assert details["macs"] == pytest.approx(share, abs=1e-4)
    assert details["widths"]
    assert all(new % 8 == 0 and new < old for old, new in details["widths"].values())
    assert after.model.get_submodule("11").out_features == 2
    assert after.model.state_dict().keys() == before.model.state_dict().keys()


def test_what_reads_the_channels_makes_up_for_them(tmp_path):
    before = variant_of(redundant())
    settings = {"macs": 0.6, "calibration_images": 64}
    plain = applied(PruneChannels(correct=False, **settings), before, tmp_path)
    fitted = applied(PruneChannels(**settings), before, tmp_path)
    assert error(fitted, before) < 0.5 * error(plain, before)
    errors = fitted.details["prune_channels"]["errors"]
    assert errors
    assert all(after <= was for was, after in errors.values())
    assert not plain.details["prune_channels"]["errors"]


def test_it_is_exported_trained_and_copied_like_any_other(tmp_path):
    before = variant_of(module())
    state = {name: value.clone() for name, value in before.model.state_dict().items()}
    after = applied(PruneChannels(calibration_images=8), before, tmp_path)
    assert all(torch.equal(value, state[name]) for name, value in before.model.state_dict().items())
    x = torch.randn(4, 3, 16, 16)
    after.model(x).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in after.model.parameters())
    again = capture.lift(capture.exported(after.model, INPUT))
    torch.testing.assert_close(again(x), after.model(x), rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_network(tmp_path):
    before = variant_of(module())
    one, other = (applied(PruneChannels(calibration_images=8), before, tmp_path) for _ in range(2))
    assert all(
        torch.equal(value, other.model.state_dict()[name]) for name, value in one.model.state_dict().items()
    )


def test_rounds_train_in_between(data, tmp_path):
    before = variant_of(wide())
    step = PruneChannels(macs=0.3, steps=2, epochs=1, calibration_images=16)
    after = applied(step, before, tmp_path, data, runtime="onnxruntime")
    assert macs.count(after.model, INPUT) <= 0.3 * macs.count(before.model, INPUT)
    assert list(tmp_path.glob("training-*"))
    assert "finetune" not in after.details


def test_training_in_between_keeps_to_the_memory_it_is_given(data, tmp_path):
    step = PruneChannels(macs=0.3, steps=2, epochs=1, calibration_images=16, memory="1kB")
    with pytest.raises(SlimcvError, match="training does not fit into 1e-06 GB"):
        applied(step, variant_of(wide()), tmp_path, data, runtime="onnxruntime")


def wide() -> nn.Module:
    """So wide that a third of the MACs is faster on any machine, in a runtime with one way to convolve.

    Eager PyTorch takes another library for maps below a size, which is half as fast on some CPUs.
    """
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 128, 3, padding=1), nn.ReLU(),
        nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 2),
    )  # fmt: skip


def test_the_latency_is_measured_where_the_network_will_run(tmp_path):
    before = variant_of(wide())
    step = PruneChannels(latency=0.7, importance="l2", correct=False, min_kept=0.1)
    after = applied(step, before, tmp_path, runtime="onnxruntime")
    assert after.details["prune_channels"]["macs"] < 0.95
    assert list(tmp_path.glob("trial-*/candidate/*.onnx"))
    again = Context(before, None, tmp_path, threads=1, train_threads=1, runtime="onnxruntime")
    found = Trial(before, again).of(after)
    assert found.faster
    assert found.least_share < 0.75, "timed once more, it is where it was asked to be"


@pytest.mark.parametrize("found", [Outcome(2.0, 1.9, True), Outcome(2.0, 2.1, False, smaller=True)])
def test_what_is_faster_or_asked_for_its_size_and_smaller_is_trained(found):
    prune_channels._require_gain(found, 0.5)


def test_what_is_no_faster_is_not_trained():
    with pytest.raises(Rejected, match=r"50% of the MACs: 2 → 2\.1 ms"):
        prune_channels._require_gain(Outcome(2.0, 2.1, False), 0.5)


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (Outcome(2.0, 1.19, True, 0.58), True),
        (Outcome(2.0, 1.21, True, 0.595), True),
        (Outcome(2.0, 1.4, True, 0.68), False),
        (Outcome(2.0, 1.1, False, 0.5), False),
    ],
)
def test_the_last_round_keeps_the_asked_latency_within_the_spread(found, kept):
    with contextlib.nullcontext() if kept else pytest.raises(Rejected, match="the last round takes 2 → 1"):
        prune_channels._require_share(found, 0.6)


class Waves(nn.Module):
    """Much time, no MACs and no weights."""

    def forward(self, x):
        large = nn.functional.interpolate(x, scale_factor=40)
        return nn.functional.adaptive_avg_pool2d(large.sin().sin().sin(), 16)


class Slowed(PruneChannels):
    """A tenth of the MACs took the time that is asked for; what comes out of its training takes longer."""

    def _share_for_latency(self, variant, context, timing, *, latency):  # noqa: ARG002
        return 0.1

    def _trained(self, variant, context):  # noqa: ARG002
        model = variant.model
        model.add_submodule("waves", Waves())
        first = next(iter(model.graph.find_nodes(op="placeholder")))
        with model.graph.inserting_after(first):
            made = model.graph.call_module("waves", (first,))
        first.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)
        model.recompile()
        return variant


def test_rounds_of_pruning_that_end_above_the_asked_latency_are_rejected(tmp_path):
    step = Slowed(latency=0.5, steps=2, importance="l2", correct=False, min_kept=0.05)
    with pytest.raises(Rejected, match="the last round takes"):
        applied(step, variant_of(wide()), tmp_path, runtime="onnxruntime")


def test_rounds_go_on_for_a_smaller_file_that_is_no_faster_where_the_recipe_is_for_size(tmp_path):
    torch.manual_seed(0)
    made = nn.Sequential(Waves(), nn.Flatten(), nn.Linear(768, 256), nn.ReLU(), nn.Linear(256, 2))
    step = PruneChannels(macs=0.3, steps=2, importance="l2", correct=False, min_kept=0.1)
    after = applied(step, variant_of(made), tmp_path, runtime="onnxruntime", objective="size")
    assert after.details["prune_channels"]["macs"] <= 0.3


def test_training_in_between_has_the_settings_of_recover(data, tmp_path):
    before = variant_of(wide())
    step = PruneChannels(macs=0.3, steps=2, epochs=1, importance="l2", correct=False)
    recover = FinetuneSettings(lr=1e-9, weight_decay=0, epochs=50)
    options = {"runtime": "onnxruntime"}
    trained = applied(step, before, tmp_path / "trained", data, recover=recover, **options).model.state_dict()
    untrained = applied(step, before, tmp_path / "untrained", **options).model.state_dict()
    assert list((tmp_path / "trained").glob("training-*"))
    for name, values in untrained.items():
        torch.testing.assert_close(trained[name], values, rtol=0, atol=1e-6)


def test_what_stays_at_the_least_counts_over_all_rounds(tmp_path):
    step = PruneChannels(macs=0.3, steps=3, importance="l2", correct=False, min_kept=0.5)
    before = variant_of(wide())
    after = applied(step, before, tmp_path, runtime="onnxruntime")
    widths = after.details["prune_channels"]["widths"]
    assert widths
    assert all(now >= 0.5 * given for given, now in widths.values())


def test_a_share_out_of_reach_is_told_before_any_round_is_trained(data, tmp_path):
    step = PruneChannels(macs=0.1, steps=3, importance="l2", correct=False, min_kept=0.5)
    with pytest.raises(NotApplicable, match="MACs are left"):
        applied(step, variant_of(wide()), tmp_path, data)
    assert not list(tmp_path.glob("training-*"))


def test_a_network_without_inner_channels_is_left(tmp_path):
    made = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    with pytest.raises(NotApplicable, match="no channels"):
        applied(PruneChannels(), variant_of(made), tmp_path)


def of_torchvision(name: str) -> nn.Module:
    """One of its networks, with few blocks where those are all alike."""
    from torchvision import models
    from torchvision.models.regnet import BlockParams

    if name == "resnext":
        blocks = {"layers": [1, 1, 1, 1], "groups": 8, "width_per_group": 8}
        return models.ResNet(models.resnet.Bottleneck, num_classes=5, **blocks)
    if name == "densenet":
        return models.DenseNet(16, (3, 3), 32, num_classes=5)
    if name == "regnet":
        widths = BlockParams.from_init_params(4, w_0=32, w_a=16.0, w_m=2.0, group_width=16, se_ratio=0.25)
        return models.RegNet(widths, num_classes=5)
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    return getattr(models, name)(num_classes=5, **options)


NETWORKS = [
    "resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "googlenet", "resnext", "densenet", "regnet"
]  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_torchvision_are_pruned(name, tmp_path):
    spec = InputSpec(3, 32, 32)
    made = of_torchvision(name).eval()
    before = Variant(capture.capture(made, spec), spec)
    step = PruneChannels(macs=0.6, importance="l2", correct=False, allocation="uniform")
    after = applied(step, before, tmp_path)
    assert macs.count(after.model, spec) <= 0.6 * macs.count(before.model, spec)
    with torch.no_grad():
        answer = after.model(capture.example(spec))
    assert answer.shape == (2, 5)
    assert bool(answer.isfinite().all())
    if name in ("resnext", "regnet"):
        grouped = {key for key, layer in after.model.named_modules() if getattr(layer, "groups", 1) > 1}
        assert grouped & after.details["prune_channels"]["widths"].keys(), "grouped ones are narrower too"
