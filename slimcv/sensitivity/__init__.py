"""Which layer bears what: one layer at a time is changed, and the network's outputs are compared.

`slimcv sensitivity` prints it (see slimcv.sensitivity.analysis); steps choose by the same numbers which
layers to leave as they are.
"""

from slimcv.sensitivity.effects import Effect, effect, relative_error
from slimcv.sensitivity.ranking import Sensitivity, rank, spared, to_leave, to_spare
from slimcv.sensitivity.treatments import Changed, Treatment, int8, low_rank, prune, treatments

__all__ = [
    "Changed",
    "Effect",
    "Sensitivity",
    "Treatment",
    "effect",
    "int8",
    "low_rank",
    "prune",
    "rank",
    "relative_error",
    "spared",
    "to_leave",
    "to_spare",
    "treatments",
]
