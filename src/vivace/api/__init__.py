"""The front door: optimize, measure, load, as plain functions."""

from vivace.api.measure import measure
from vivace.api.optimize import Optimized, optimize
from vivace.artifact.load import load

__all__ = ["Optimized", "load", "measure", "optimize"]
