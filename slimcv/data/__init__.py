"""Labelled pictures: found, checked, split, decoded once and kept, fed to models in batches."""

from slimcv.data.dataset import BrokenPicture, Dataset, Split, load

__all__ = ["BrokenPicture", "Dataset", "Split", "load"]
