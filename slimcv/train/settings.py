"""What can be chosen about fine-tuning: parameters of the step `finetune` and of an entry's `recover`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from slimcv.step import Gain

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_SIZES = {"": 1, "b": 1}
_SIZES |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)}
_SIZES |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)}
_REFERENCE_LR = 4e-3
_REFERENCE_PARAMETERS = 250_000
_REFERENCE_BATCH = 32
_LOWEST_LR = 5e-4


def seconds(duration: str | float) -> float:
    """Seconds of `90`, `"90s"`, `"10m"` or `"1h30m"`. Raises ValueError for anything else."""
    if isinstance(duration, bool):
        raise ValueError("a duration is like 90s, 10m or 1h30m")
    if isinstance(duration, int | float):
        return float(duration)
    text = duration.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(r"(\d+(\.\d+)?h)?(\d+(\.\d+)?m)?(\d+(\.\d+)?s)?", text) or not text:
        raise ValueError("a duration is like 90s, 10m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([hms])", text))


def size_bytes(size: str | float) -> int:
    """Bytes of `4000000000`, `"4GB"`, `"500 MB"` or `"3.5GiB"`. Raises ValueError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(size).strip().lower())
    if isinstance(size, bool) or found is None or found[2] not in _SIZES:
        raise ValueError("a size is like 500MB, 4GB or 3.5GiB")
    return int(float(found[1]) * _SIZES[found[2]])


def _parsed(value: Any) -> Any:
    return seconds(value) if isinstance(value, str | int | float) else value


def _parsed_size(value: Any) -> Any:
    return size_bytes(value) if isinstance(value, str | int | float) else value


_Positive = Annotated[float, Field(gt=0)]
_Duration = Annotated[
    str,
    Field(
        pattern=r"^\d+(\.\d+)?$|^(?=\d)(\d+(\.\d+)?[hH])?(\d+(\.\d+)?[mM])?(\d+(\.\d+)?[sS])?$",
        examples=["90s", "10m", "1h30m"],
    ),
]
_Size = Annotated[
    str,
    Field(pattern=r"^\d+(\.\d+)?\s*([bB]|[kKmMgGtT][iI]?[bB])?$", examples=["500MB", "4GB", "3.5GiB"]),
]
"""How durations and sizes are written, which is what the schema of recipes says of them."""

Seconds = Annotated[
    float,
    BeforeValidator(_parsed, json_schema_input_type=_Positive | _Duration),
    Field(gt=0, allow_inf_nan=False),
]
Bytes = Annotated[int, BeforeValidator(_parsed_size, json_schema_input_type=_Positive | _Size), Field(gt=0)]


class FinetuneSettings(BaseModel):
    """How long, how fast and from whom the student learns. The defaults suit a network just operated on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(12, ge=1, le=10_000, description="rounds through the training pictures, 1 or more")
    budget: Seconds | None = Field(
        None,
        description="wall time for teacher and training together, such as 90s, 10m or 1h30m; null for none",
    )
    lr: float | None = Field(
        None, gt=0, lt=1, description="peak learning rate of AdamW; null chooses by the number of parameters"
    )
    batch: Annotated[int, Field(ge=2, le=4096)] | Literal["auto"] = Field(
        _REFERENCE_BATCH,
        description="pictures a step, 2 or more; auto takes the fastest, measured without compile, that fits",
    )
    memory: Bytes | None = Field(
        None,
        description="the most memory that training may take, such as 4GB; null for what the machine has free",
    )
    accumulate: int = Field(
        1, ge=1, le=1024, description="steps whose gradients are averaged before an update"
    )
    steps_per_call: int = Field(
        1,
        ge=1,
        le=1024,
        description="steps taken before losses are looked at, time is checked, state is kept",
    )
    fused_optimizer: bool = Field(
        True, description="AdamW changes all weights in one call; false: operator by operator"
    )
    preserve: Literal["auto"] | tuple[Gain, ...] = Field(
        "auto",
        description="what stays in the weights: sparsity (zeros), clusters (shared values); auto: both",
    )
    distill: float = Field(
        0.7, ge=0, le=1, description="weight of the teacher's outputs against the labels, 0 to 1"
    )
    temperature: float = Field(3.0, ge=0.1, le=100, description="softens the teacher's outputs, 0.1 to 100")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the label spread over all classes")
    weight_decay: float = Field(
        0.02, ge=0, lt=1, description="decoupled decay of weights; biases and norms have none"
    )
    warmup: float = Field(
        0.1, ge=0, le=0.9, description="share of the training in which the rate rises linearly"
    )
    schedule: Literal["cosine", "plateau"] = Field(
        "cosine", description="how the rate falls: cosine or plateau"
    )
    ema: float = Field(
        0.98, ge=0, lt=1, description="decay of the running average of the weights; 0 for none"
    )
    early_stopping: int = Field(
        0, ge=0, description="epochs without gain on the tuning split before the end; 0 for never"
    )
    clip: float = Field(5.0, ge=0, description="largest norm of the gradient; 0 for no limit")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto takes bf16 where the CPU has it and it was measured to be faster"
    )
    compile: bool | Literal["auto"] = Field(
        False,
        description="compile the network for training; where that fails it is trained as it is; "
        "auto also where steps were measured to be slower compiled",
    )
    teacher: Literal["auto", "cached", "live"] = Field(
        "auto",
        description="cached asks once about whole pictures, live about every picture as it was changed; "
        "auto is live where crop, shift or colour is on and the teacher is fast enough",
    )
    checkpoint_every: Seconds = Field(
        60.0, description="time between two states on disk, which a killed training goes on from"
    )
    flip: bool = Field(True, description="half of the pictures are mirrored left to right")
    vertical_flip: bool = Field(False, description="half of the pictures are turned upside down")
    crop: float = Field(
        0.0, ge=0, lt=1, description="largest share of each side cut away at random; 0 for none"
    )
    shift: float = Field(
        0.0, ge=0, lt=1, description="largest random shift as a share of each side; 0 for none"
    )
    colour: float = Field(
        0.0, ge=0, lt=1, description="largest random change of brightness and contrast; 0 for none"
    )
    seed: int = Field(0, ge=0, description="added to the run's seed, for another order of the same training")

    def forgets(self, gained: Gain) -> str | None:
        """Why this training does not keep what pruning or clustering gained; None where it does."""
        if self.preserve == "auto" or gained in self.preserve:
            return None
        return f"it trains without `{gained}` in its preserve"

    @property
    def batch_pictures(self) -> int:
        """Pictures a step; the usual number where it is still to be measured."""
        return _REFERENCE_BATCH if self.batch == "auto" else self.batch

    @property
    def lr_growth(self) -> float:
        """What the chosen rate is multiplied by for the pictures that share an update."""
        return float((self.batch_pictures * self.accumulate / _REFERENCE_BATCH) ** 0.5)

    def peak_lr(self, parameters: int) -> float:
        """The rate after warm-up for a network of that many parameters.

        4e-3 up to a quarter of a million, then falling as the width grows, which is the square root of their
        number (Yang et al. 2022, "Tensor Programs V"); with the batch it grows by the square root, as fits
        Adam (Malladi et al. 2022, "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms").
        """
        if self.lr is not None:
            return self.lr
        by_width = _REFERENCE_LR * (_REFERENCE_PARAMETERS / max(parameters, _REFERENCE_PARAMETERS)) ** 0.5
        return float(max(_LOWEST_LR, by_width) * self.lr_growth)
