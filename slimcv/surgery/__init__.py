"""Finding and replacing modules in the lifted graph: heads, convolutions, normalisations."""

from slimcv.surgery.calibration import calibration_batches
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
from slimcv.surgery.least_squares import fit_linear
from slimcv.surgery.norms import absorb_norms, fold_norms, norms_left
from slimcv.surgery.reconstruction import Fit, insert_norms, reconstruct
from slimcv.surgery.separable import Conversion, convertible, decouple, make_separable
from slimcv.surgery.sweep import peak_bytes

__all__ = [
    "Conversion",
    "Fit",
    "Head",
    "absorb_norms",
    "calibration_batches",
    "chain_to_output",
    "collapse",
    "convertible",
    "decouple",
    "equalize",
    "find_head",
    "fit_linear",
    "fold_norms",
    "insert_norms",
    "linearised",
    "make_separable",
    "norms_left",
    "observe",
    "peak_bytes",
    "pool_globally",
    "reconstruct",
]
