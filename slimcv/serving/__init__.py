"""A bundle at work: loaded without torch where its runtime needs none, asked, and checked on this machine."""

from slimcv.serving.predictor import Prediction, Predictor, load

__all__ = ["Prediction", "Predictor", "load"]
