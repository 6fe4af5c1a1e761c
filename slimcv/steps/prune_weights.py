"""Weights of small magnitude become zero during a fine-tuning: for a smaller packed file, not for speed."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from slimcv.errors import NotApplicable
from slimcv.step import Context, Gain, Stage, Step, Variant
from slimcv.train.pruning import PruningSettings

log = logging.getLogger("slimcv")


class PruneWeights(Step, PruningSettings):
    """Magnitude pruning by the polynomial schedule of Zhu and Gupta 2017, "To prune, or not to prune".

    It saves storage once the file is packed or compressed; the runtimes multiply by zeros as by other
    numbers, so it saves no time. The network is trained meanwhile, taught by the original; without pictures,
    or with no epochs, all weights are taken out at once. Later training keeps the zeros.
    """

    stage: ClassVar[Stage] = Stage.PRUNE
    enabling: ClassVar[bool] = True
    gains: ClassVar[Gain | None] = "sparsity"

    exclude: tuple[str, ...] | Literal["auto"] = Field(  # type: ignore[assignment]
        (),
        description="globs on the layers' names to leave; auto: those that bear it worst (slimcv "
        "sensitivity), a tenth of the weights at most",
    )

    @property
    def trains(self) -> bool:  # type: ignore[override]
        """Not with no epochs."""
        return self.epochs > 0

    @property
    def zero_pattern(self) -> str | None:
        """A pattern of groups or blocks."""
        return None if self.pattern == "unstructured" else self.pattern

    def undoes(self, gained: Gain, *, recovers: bool) -> str | None:  # noqa: ARG002
        """By what its training does not keep."""
        return self.forgets(gained) if self.trains else None

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The pruned variant; `details["prune_weights"]` has the zeros reached, in all and by layer."""
        from slimcv.surgery import magnitude
        from slimcv.train import finetune, kept

        settings = self._settings(variant, context)
        weights = kept.prunable(variant.model, settings)
        if not weights:
            wide = f" of {self.form.group} inputs or more" if self.form.group else ""
            raise NotApplicable(f"no convolution or linear layer{wide} is chosen by include and exclude")
        at_once = context.data is None or not self.trains
        if at_once or self.sparsity_schedule == "constant":
            kept.prune(weights, settings)
        if not at_once:
            variant = finetune(variant, context, settings).variant
            weights = kept.prunable(variant.model, settings)
            # Where time ran out before the schedule did, the rest goes now.
            kept.prune(weights, settings)
        reached = magnitude.sparsity(list(weights.values()))
        log.info("prune_weights: %.1f %% of %d layers' weights are zero", 100 * reached, len(weights))
        details = {
            "sparsity": reached,
            "pattern": self.pattern,
            "at_once": at_once,
            "exclude": list(settings.exclude),
            "layers": {name: round(magnitude.sparsity([weight]), 4) for name, weight in weights.items()},
        }
        return replace(variant, artifacts={}, details={**variant.details, "prune_weights": details})

    def _settings(self, variant: Variant, context: Context) -> PruningSettings:
        """How to prune, with the layers named that `auto` leaves."""
        from slimcv import sensitivity

        exclude = sensitivity.excluded(
            self.exclude, variant, context, treatment=sensitivity.prune(), step="prune_weights"
        )
        return PruningSettings(**{**self.model_dump(), "exclude": exclude})
