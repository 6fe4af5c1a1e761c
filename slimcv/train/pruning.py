"""What can be chosen about pruning weights: how many, in which pattern, and when during a training."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from slimcv.train.settings import FinetuneSettings

MOMENTS = 32
"""How often weights are taken out while the schedule lasts; Zhu and Gupta take hundreds of steps between."""

_FORM = re.compile(r"([1-9]\d?)([:x])([1-9]\d?)")


@dataclass(frozen=True)
class Pattern:
    """Which weights go together: `rows` × `columns` at once, or all but `kept` of every `group`."""

    rows: int = 1
    columns: int = 1
    kept: int = 0
    group: int = 0


def _checked(pattern: str) -> str:
    found = _FORM.fullmatch(pattern)
    if pattern != "unstructured" and found is None:
        raise ValueError("a pattern is unstructured, n:m such as 2:4, or a block such as 1x4")
    if found is not None and found[2] == ":" and int(found[1]) >= int(found[3]):
        raise ValueError("n:m keeps n of m weights, so n is below m")
    return pattern


class PruningSettings(FinetuneSettings):
    """A fine-tuning during which weights are taken out, those of the smallest magnitude first."""

    epochs: int = Field(
        12, ge=0, le=10_000, description="rounds through the training pictures; 0 takes all out at once"
    )
    sparsity: float = Field(
        0.7, gt=0, lt=1, description="share of the weights that become zero; given by the pattern with n:m"
    )
    pattern: Annotated[str, AfterValidator(_checked)] = Field(
        "unstructured",
        description="unstructured, n:m in quotes (n of m neighbours stay, such as '2:4') or a block (such "
        "as 1x4)",
        examples=["unstructured", "2:4", "1x4"],
        json_schema_extra={"pattern": f"^(unstructured|{_FORM.pattern})$"},
    )
    scope: Literal["global", "layer"] = Field(
        "global",
        description="the smallest weights of all layers together, or the same share of every layer (so n:m)",
    )
    sparsity_schedule: Literal["polynomial", "constant"] = Field(
        "polynomial", description="more and more weights during the training, or all before it"
    )
    until: float = Field(
        0.5, gt=0, le=0.9, description="share of the training in which the schedule takes weights out"
    )
    include: tuple[str, ...] = Field(("*",), description="globs on the layers' names to prune")
    exclude: tuple[str, ...] = Field((), description="globs on the layers' names to leave")

    @model_validator(mode="before")
    @classmethod
    def _given_by_pattern(cls, values: Any) -> Any:
        found = _FORM.fullmatch(str(values.get("pattern", "")))
        if found is None or found[2] != ":":
            return values
        return {"sparsity": 1 - int(found[1]) / int(found[3]), "scope": "layer", **values}

    @model_validator(mode="after")
    def _pattern_and_sparsity_agree(self) -> Self:
        form = self.form
        if form.group and abs(self.sparsity - (1 - form.kept / form.group)) > 1e-6:
            raise ValueError(
                f"{self.pattern} makes it {1 - form.kept / form.group:.12g}, {self.sparsity} was given"
            )
        if form.group and self.scope == "global":
            raise ValueError(f"{self.pattern} takes the same share of every layer, which is `scope: layer`")
        return self

    @property
    def form(self) -> Pattern:
        """The pattern in numbers."""
        found = _FORM.fullmatch(self.pattern)
        if found is None:
            return Pattern()
        first, second = int(found[1]), int(found[3])
        return Pattern(kept=first, group=second) if found[2] == ":" else Pattern(first, second)

    def progress(self, share: float) -> float:
        """The part of the zeros, 0 to 1, that is due after this share of the training.

        Zhu and Gupta 2017, "To prune, or not to prune": many while there is much to spare, the last ones
        slowly, `1 - (1 - t)^3`.
        """
        if self.sparsity_schedule == "constant" or share >= self.until:
            return 1.0
        moment = int(share / self.until * MOMENTS) / MOMENTS
        return float(1.0 - (1.0 - moment) ** 3)


def settings(values: dict[str, Any]) -> FinetuneSettings:
    """Settings as they were dumped, of the kind they were."""
    kind = PruningSettings if "sparsity" in values else FinetuneSettings
    return kind(**values)
