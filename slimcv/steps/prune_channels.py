"""Whole channels go, in every layer that makes or reads them, and what is left makes up for them."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from slimcv.errors import NotApplicable, Rejected
from slimcv.step import Context, Gain, Stage, Step, Variant
from slimcv.train.settings import Bytes, FinetuneSettings, Seconds

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from slimcv.measure.trial import Outcome, Trial
    from slimcv.surgery import Refit

log = logging.getLogger("slimcv")


class PruneChannels(Step):
    """Structured pruning along torch-pruning's dependency graph (Fang et al. 2023, "DepGraph").

    The network that is left is the one before, exactly, had nothing read the removed channels; layers that
    read them are then fitted to what they gave before (He et al. 2017, "Channel Pruning"). Raises
    NotApplicable where no channels can be cut or the target cannot be reached, Rejected where no candidate is
    fast enough.
    """

    stage: ClassVar[Stage] = Stage.PRUNE

    macs: float = Field(default=0.5, gt=0, lt=1, description="share of the MACs to keep")
    latency: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of the latency to keep, where variants are compared; wins over macs",
    )
    round_to: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="widths become multiples of this, as kernels like them; auto: of 8, "
        "and with AVX-512 of 16 from 48 channels on",
    )
    importance: Literal["l2", "l1", "lamp", "fpgm", "taylor"] = Field(
        default="l2",
        description="which channels go first: by weights, by the loss (taylor) or by distance (fpgm)",
    )
    allocation: Literal["global", "uniform"] = Field(
        default="global",
        description="where they go: wherever a MAC costs least importance, or the same share everywhere",
    )
    min_kept: float = Field(
        default=0.25, gt=0, lt=1, description="share of a layer's channels that stays at the least"
    )
    steps: int = Field(default=1, ge=1, le=20, description="rounds of pruning, with training in between")
    epochs: int = Field(
        default=2,
        ge=1,
        description="rounds through the pictures behind each of `steps` but the last; all else as in recover",
    )
    memory: Bytes | None = Field(
        default=None,
        description="the most memory that training in between may take, such as 4GB; null for what is free",
    )
    checkpoint_every: Seconds = Field(
        default=60.0, description="time between two states of that training on disk"
    )
    correct: bool = Field(
        default=True, description="fit layers whose inputs were cut to what they gave before, on pictures"
    )
    calibration_images: int = Field(
        default=128, ge=1, description="pictures for importance and fitting, fewer where memory would not do"
    )

    @property
    def multiples(self) -> tuple[int, ...]:
        """What widths may become multiples of, coarsest first (see `surgery.multiple_for`)."""
        from slimcv.measure import environment

        return environment.channel_blocks() if self.round_to == "auto" else (self.round_to,)

    def undoes(self, gained: Gain, *, recovers: bool) -> str | None:  # noqa: ARG002
        """Weights that are cut out and not fitted stay what they were."""
        if not self.correct:
            return None
        return "layers that read removed channels are fitted anew, unless `correct: false`"

    def shifts(self, pattern: str) -> str | None:  # noqa: ARG002
        """Layers that read removed channels lose columns from the middle of their weights."""
        return "the inputs that are left move up, so that others are neighbours"

    def draft(self) -> PruneChannels:
        """All channels at once, nothing is fitted or trained."""
        return self.model_copy(update={"correct": False, "steps": 1})

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The variant with fewer channels, pruned in `steps` rounds with fine-tuning in between."""
        from slimcv.measure import macs, trial
        from slimcv.models import capture

        capture.set_training(variant.model, False)
        whole = macs.count(variant.model, variant.input)
        timing = trial.Trial(variant, context)
        share = self.macs
        if self.latency is not None:
            share = self._share_for_latency(variant, context, timing, latency=self.latency)
        elif self.steps > 1:
            # An end that is out of reach is told before anything is trained.
            self._round(variant, context, target=share * whole, correct=False)
        given = variant
        fits: list[Refit] = []
        for number in range(1, self.steps + 1):
            target = share ** (number / self.steps) * whole
            candidate, fits = self._round(variant, context, target=target, given=given.model)
            if number < self.steps:
                _require_gain(timing.of(candidate), macs.count(candidate.model, variant.input) / whole)
                candidate = self._trained(candidate, context)
            elif self.latency is not None and self.steps > 1:
                # After training other channels matter least, so that other widths came out than were timed.
                _require_share(timing.of(candidate), self.latency)
            variant = candidate
        details = {
            "macs": round(macs.count(variant.model, variant.input) / whole, 4),
            "widths": _changed_widths(given.model, variant.model),
            "errors": {fit.name: [round(fit.before, 4), round(fit.after, 4)] for fit in fits},
        }
        return replace(variant, artifacts={}, details={**variant.details, "prune_channels": details})

    def _round(
        self,
        variant: Variant,
        context: Context,
        *,
        target: float,
        given: GraphModule | None = None,
        correct: bool = True,
    ) -> tuple[Variant, list[Refit]]:
        """The variant cut to `target` MACs, fitted on pictures where that is asked for.

        `given` is the network that the first round began with, None where this is the first.
        """
        from slimcv import surgery

        model = variant.model
        count = surgery.pictures_that_fit(model, variant.input, most=self.calibration_images)
        batches = surgery.calibration_batches(context, variant.input, count=count)
        importance = surgery.importance_of(self.importance, model, batches, seed=context.seed)
        sets = surgery.coupled(model, variant.input, importance)
        model.zero_grad(set_to_none=True)
        sets = surgery.clean_sets(model, sets, input=variant.input)
        if not sets:
            raise NotApplicable("no channels can be cut out of the network")
        removed = surgery.choose(
            sets,
            surgery.budget_of(model, variant.input),
            target=target,
            round_to=self.multiples,
            min_kept=self.min_kept,
            uniform=self.allocation == "uniform",
            whole=None if given is None else surgery.widths(given),
        )
        if not surgery.is_clean(model, sets, removed, input=variant.input):
            raise Rejected("the network without the channels is not the one that ignores them")
        narrower = surgery.narrow(model, sets, removed)
        fits: list[Refit] = []
        if self.correct and correct:
            layers, kept = surgery.readers(sets, removed), surgery.kept(model, sets, removed)
            fits = surgery.refit(
                model, narrower, layers=layers, kept=kept, batches=batches, seed=context.seed
            )
        return replace(variant, model=narrower, artifacts={}), fits

    def _share_for_latency(
        self, variant: Variant, context: Context, timing: Trial, *, latency: float
    ) -> float:
        """The largest share of the MACs whose candidate is timed at this share of the latency."""
        from slimcv.measure import macs, trial

        whole = macs.count(variant.model, variant.input)

        def timed(share: float) -> Outcome:
            candidate, _ = self._round(variant, context, target=share * whole, correct=False)
            found = timing.of(candidate)
            log.info("prune_channels: %.0f %% of the MACs: %s in %s", 100 * share, found, context.runtime)
            return found

        return trial.widest(timed, wanted=latency)

    def _trained(self, variant: Variant, context: Context) -> Variant:
        from slimcv import train

        if context.data is None:
            return variant
        given = {} if context.recover is None else context.recover.model_dump(exclude_unset=True)
        own = {"memory", "checkpoint_every"} & self.model_fields_set
        given |= self.model_dump(include={"epochs", *own})
        trained = train.finetune(variant, context, FinetuneSettings.model_validate(given)).variant
        return replace(trained, details=variant.details)


def _require_gain(found: Outcome, share: float) -> None:
    """Between rounds what the session asks for behind the last one."""
    if not (found.faster or found.smaller):
        raise Rejected(f"no faster beyond the spread with {share:.0%} of the MACs: {found}; not trained")


def _require_share(found: Outcome, wanted: float) -> None:
    """Where the last round's candidate is above the share that was asked for, by more than the spread."""
    if not found.faster or found.least_share > wanted:
        raise Rejected(f"after {wanted:.0%} of the time was found to do, the last round takes {found}")


def _changed_widths(before: GraphModule, after: GraphModule) -> dict[str, list[int]]:
    from slimcv import surgery

    now = surgery.widths(after)
    return {name: [width, now[name]] for name, width in surgery.widths(before).items() if width != now[name]}
