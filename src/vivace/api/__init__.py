"""The front door: optimize, measure, load, as plain functions."""

from vivace.api import metrics
from vivace.api.accelerate import accelerate
from vivace.api.measure import measure
from vivace.api.optimize import Optimized, optimize
from vivace.api.parity import parity
from vivace.api.prediction.predict import predict
from vivace.api.preview import preview
from vivace.api.quantum.verb import quantum
from vivace.api.silicon.synthesize import synthesize
from vivace.api.train import diagnose, train
from vivace.artifact.load import load

__all__ = [
    "Optimized", "accelerate", "diagnose", "load", "measure", "metrics", "optimize", "parity", "predict",
    "preview", "quantum", "synthesize", "train",
]  # fmt: skip
