"""Settings of fine-tuning: durations as people write them, bounds, the rate for a network's size."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from slimcv.train.settings import FinetuneSettings, seconds, size_bytes


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("45", 45),
        (30, 30),
        (2.5, 2.5),
        ("1H", 3600),
    ],
)
def test_a_duration_is_read_as_people_write_it(written, meant):
    assert seconds(written) == meant


@pytest.mark.parametrize("written", ["", "soon", "10 minutes", "m", "-5m", True, "1m1h"])
def test_what_is_no_duration_is_refused_with_an_example(written):
    with pytest.raises(ValidationError, match="90s, 10m or 1h30m"):
        FinetuneSettings(budget=written)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"budget": 0},
        {"budget": "nan"},
        {"lr": 0},
        {"distill": 1.1},
        {"batch": 1},
        {"ema": 1},
        {"epoch": 3},
        {"batch": "large"},
        {"batch": 5000},
        {"memory": "some"},
        {"checkpoint_every": 0},
        {"steps_per_call": 0},
        {"teacher": "dead"},
    ],
)
def test_values_out_of_range_and_unknown_names_are_refused(wrong):
    with pytest.raises(ValidationError):
        FinetuneSettings(**wrong)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("4GB", 4 * 10**9),
        ("500 MB", 500 * 10**6),
        ("3.5GiB", 3758096384),
        ("1kb", 1000),
        (1024, 1024),
        ("7", 7),
    ],
)
def test_a_size_is_read_as_people_write_it(written, meant):
    assert size_bytes(written) == meant
    assert FinetuneSettings(memory=written).memory == meant


@pytest.mark.parametrize("written", ["", "4 gigabytes", "GB", "-1GB", True])
def test_what_is_no_size_is_refused_with_an_example(written):
    with pytest.raises(ValidationError, match="500MB, 4GB or"):
        FinetuneSettings(memory=written)


def test_settings_written_down_are_read_back():
    for settings in (FinetuneSettings(), FinetuneSettings(batch="auto", memory="4GB", budget="10m")):
        assert FinetuneSettings.model_validate_json(settings.model_dump_json()) == settings
    assert FinetuneSettings(batch=64, accumulate=2) == FinetuneSettings.model_validate(
        {"batch": 64, "accumulate": 2}
    )


def test_the_rate_falls_with_the_width_and_rises_with_the_batch():
    settings = FinetuneSettings()
    assert settings.peak_lr(60_000) == 4e-3
    assert settings.peak_lr(1_000_000) == pytest.approx(2e-3)
    assert settings.peak_lr(100_000_000) == 5e-4
    assert FinetuneSettings(batch=128).peak_lr(60_000) == pytest.approx(8e-3)
    assert FinetuneSettings(lr=0.1, batch=128).peak_lr(60_000) == 0.1


def test_settings_and_step_are_read_without_torch():
    code = "import sys, slimcv.train.settings, slimcv.steps.finetune; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
