"""Why a candidate takes no part in the last measurement, for the table that names them all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slimcv.step import Stage

if TYPE_CHECKING:
    from slimcv.results import Record
    from slimcv.step import Step, Variant


@dataclass
class LeftOut:
    """`reasons` by the name of the candidate, as the records so far have them."""

    reasons: dict[str, str] = field(default_factory=dict)

    def by_step(self, step: Step, record: Record) -> None:
        """An export that was rejected or skipped is none; one that is accepted later is one again."""
        if step.stage != Stage.EXPORT:
            return
        if record.outcome == "accepted":
            self.reasons.pop(step.artifact, None)
        else:
            self.reasons[step.artifact] = f"{record.outcome}: {record.reason}"

    def by_gate(self, variant: Variant, record: Record) -> None:
        """What other quantisers made of a variant that missed the gate is not made again for the next."""
        if record.outcome == "rejected" and not record.details["accuracy_met"]:
            forms = (name for name in variant.artifacts if ":" in name)
            self.reasons |= dict.fromkeys(forms, "its accuracy missed the gate on val/")
