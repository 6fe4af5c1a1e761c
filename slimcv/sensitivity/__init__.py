"""Which layer bears what: one layer at a time is changed, and the network's outputs are compared.

`slimcv sensitivity` prints it (see slimcv.sensitivity.analysis); steps choose by the same numbers which
layers to leave as they are.
"""

from slimcv.sensitivity.effects import Effect, effect, relative_error
from slimcv.sensitivity.ranking import Sensitivity, excluded, rank, to_leave, to_spare
from slimcv.sensitivity.sampling import PICTURES, Sample, as_deployed, sample
from slimcv.sensitivity.treatments import (
    Changed,
    Treatment,
    cluster,
    int8,
    low_rank,
    prune,
    separable,
    treatments,
)

__all__ = [
    "PICTURES",
    "Changed",
    "Effect",
    "Sample",
    "Sensitivity",
    "Treatment",
    "as_deployed",
    "cluster",
    "effect",
    "excluded",
    "int8",
    "low_rank",
    "prune",
    "rank",
    "relative_error",
    "sample",
    "separable",
    "to_leave",
    "to_spare",
    "treatments",
]
