"""Finding and replacing modules in the lifted graph: heads, convolutions, normalisations."""

from slimcv.surgery.calibration import calibration_batches, pictures_that_fit
from slimcv.surgery.coupling import Coupled, coupled
from slimcv.surgery.equalization import equalize
from slimcv.surgery.head import (
    Head,
    chain_to_output,
    collapse,
    find_head,
    linearised,
    observe,
    pool_globally,
)
from slimcv.surgery.importance import importance_of
from slimcv.surgery.least_squares import fit_linear
from slimcv.surgery.low_rank import Factorised, factorisable, factorise_layers
from slimcv.surgery.narrowing import (
    budget_of,
    choose,
    clean_sets,
    ignoring,
    is_clean,
    kept,
    multiple_for,
    narrow,
    readers,
    widths,
)
from slimcv.surgery.norms import absorb_norms, fold_norms, norms_left
from slimcv.surgery.reconstruction import Fit, insert_norms, reconstruct
from slimcv.surgery.refitting import Refit, refit
from slimcv.surgery.separable import Conversion, convertible, decouple, make_separable
from slimcv.surgery.sweep import peak_bytes

__all__ = [
    "Conversion",
    "Coupled",
    "Factorised",
    "Fit",
    "Head",
    "Refit",
    "absorb_norms",
    "budget_of",
    "calibration_batches",
    "chain_to_output",
    "choose",
    "clean_sets",
    "collapse",
    "convertible",
    "coupled",
    "decouple",
    "equalize",
    "factorisable",
    "factorise_layers",
    "find_head",
    "fit_linear",
    "fold_norms",
    "ignoring",
    "importance_of",
    "insert_norms",
    "is_clean",
    "kept",
    "linearised",
    "make_separable",
    "multiple_for",
    "narrow",
    "norms_left",
    "observe",
    "peak_bytes",
    "pictures_that_fit",
    "pool_globally",
    "readers",
    "reconstruct",
    "refit",
    "widths",
]
