"""The contract of a step: its parameters, its stage, and one function from a variant to a new variant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from slimcv.data import Dataset
    from slimcv.gate import Gate
    from slimcv.train.processes.group import Processes
    from slimcv.train.settings import FinetuneSettings

Gain = Literal["sparsity", "clusters"]
"""What can be in the weights for the sake of a small file: exact zeros, and few distinct values."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Stage(IntEnum):
    """When a step may come: a recipe may stay on a stage or go on, never step back."""

    SURGERY = 10
    PRUNE = 20
    TRAIN = 30
    FUSE = 40
    CLUSTER = 45
    QUANTIZE = 50
    EXPORT = 60


@dataclass(frozen=True)
class InputSpec:
    """What a model is fed: pictures of this shape, normalised per channel as `(pixel / 255 - mean) / std`."""

    channels: int
    height: int
    width: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return (self.channels, self.height, self.width)

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width}"


@dataclass(frozen=True)
class Variant:
    """A model somewhere on its way: the lifted graph, what it is fed, and what was exported from it.

    `model` is the lifted graph (see slimcv.models.capture); after `quantize_int8` it is the folded INT8
    graph. `runtime` names the runtime the variant is meant for, as the last of the steps `compile` and
    `export_*` left it. `artifacts` maps a runtime's name to the file it runs, and names such as
    "openvino:nncf" to the files that other quantisers made for it.
    """

    model: GraphModule
    input: InputSpec
    classes: tuple[str, ...] | None = None
    precision: str = "fp32"
    runtime: str = "eager"
    artifacts: dict[str, Path] = field(default_factory=dict)
    int8_mac_share: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a step may read: the data, the original as teacher, where to put files, and the limits of the run.

    `threads` is the deployment's thread count, used for every measurement; `train_threads` is what training
    may use. `runtime` is the one that variants are compared in. `deadline` is a `time.perf_counter` reading
    after which work should end, or None. `processes` are those that train together, None for this one alone.
    `gate` is what the step's result will be judged by, None where nobody knows; `objective` says what counts
    as a gain, as the recipe does. `recover` is the training that follows the step, None where none does.
    """

    teacher: Variant
    data: Dataset | None
    workdir: Path
    threads: int
    train_threads: int
    seed: int = 0
    runtime: str = "eager"
    deadline: float | None = None
    processes: Processes | None = None
    gate: Gate | None = None
    objective: str = "latency"
    recover: FinetuneSettings | None = None


class Step(BaseModel, ABC):
    """A step's parameters, frozen and checked.

    Subclasses live one a file in slimcv/steps/, named like the file. A step's file must not import torch at
    module level: recipes are checked before torch is paid for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: ClassVar[Stage]
    needs_data: ClassVar[bool] = False
    """The step cannot run without pictures; without `--data` it is skipped."""
    lossless: ClassVar[bool] = False
    """The step leaves the outputs as they are (within 1e-4)."""
    quantizes: ClassVar[bool] = False
    """The step brings 8-bit integers; in the stage EXPORT it gets the variant from before quantisation."""
    artifact: ClassVar[str] = ""
    """In the stage EXPORT, the key of what the step adds to `Variant.artifacts`; else the runtime's name."""
    enabling: ClassVar[bool] = False
    """What the step is worth shows in later ones, so it needs no gain of its own; slower it may not be."""
    trains: ClassVar[bool] = False
    """The step ends with trained weights, so its accuracy can be judged."""
    trainable: ClassVar[bool] = True
    """What the step leaves has weights that a `recover` behind it could train."""
    data_free: ClassVar[bool] = False
    """Meant to be right without pictures; without `--data` its agreement with the original judges it."""
    gains: ClassVar[Gain | None] = None
    """What the step gives the weights, and no later step may take from them."""

    def undoes(self, gained: Gain, *, recovers: bool) -> str | None:  # noqa: ARG002
        """Why nothing is left of what an earlier step gained, None where it is kept.

        `recovers` says that fine-tuning follows in the same entry of the recipe.
        """
        return None

    @property
    def zero_pattern(self) -> str | None:
        """What groups or blocks of neighbouring weights the step's zeros come in, None where in none."""
        return None

    def shifts(self, pattern: str) -> str | None:  # noqa: ARG002
        """Why zeros that are kept do not keep an earlier step's pattern; None where they do."""
        return None

    def draft(self) -> Step:
        """The same step without what accuracy alone needs, for a form that is made to be timed."""
        return self

    @abstractmethod
    def apply(self, variant: Variant, context: Context) -> Variant:
        """A new variant; `variant` is a private copy. Raises NotApplicable where there is nothing to do."""
