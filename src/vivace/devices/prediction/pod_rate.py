"""What share of a TPU's peak a transformer's training reaches: a regression on published trainings of whole slices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from vivace.devices.prediction.fitting import Vector

WEIGHTS = 64e9
"""Where the logarithm of the weights is zero."""


@dataclasses.dataclass(frozen=True)
class Pod:
    """A training on one or more slices of chips; chips of one slice are linked directly, slices by the network."""

    device: str
    parameters: float
    slices: int


@dataclasses.dataclass(frozen=True)
class PodLaw:
    """log(share) = that of the device + slices x log2(slices) + weights x log(weights / 64e9)."""

    own: Mapping[str, float]
    slices: float
    weights: float


def fit_pods(pods: Sequence[Pod], shares: Sequence[float]) -> PodLaw:
    """Least squares of the logarithms, each device with its own constant."""
    names = sorted({pod.device for pod in pods})
    rows = [[float(pod.device == name) for name in names] + _features(pod) for pod in pods]
    found = np.linalg.lstsq(np.array(rows), np.log(shares), rcond=None)[0]
    own = {name: float(value) for name, value in zip(names, found, strict=False)}
    return PodLaw(own, float(found[-2]), float(found[-1]))


def share_of(law: PodLaw, pod: Pod) -> float:
    """The share of the dense bf16 peak; of a device that was not measured with the mean constant of those that were.

    >>> law = PodLaw({"a": math.log(0.5), "b": math.log(0.6)}, slices=math.log(0.97), weights=0.0)
    >>> round(share_of(law, Pod("a", 64e9, 2)), 3), round(share_of(law, Pod("c", 64e9, 1)), 3)
    (0.485, 0.548)
    """
    own = law.own.get(pod.device, float(np.mean(list(law.own.values()))))
    slices, weights = _features(pod)
    return math.exp(own + law.slices * slices + law.weights * weights)


def errors_of_unseen(pods: Sequence[Pod], shares: Sequence[float], is_device_unseen: bool) -> Vector:
    """log(predicted / measured) of each training, fitted without those of its model on its device, or of its device."""
    places = range(len(pods))
    groups = [pod.device if is_device_unseen else f"{pod.device} {pod.parameters}" for pod in pods]
    errors = np.zeros(len(pods))
    for group in sorted(set(groups)):
        seen = [place for place in places if groups[place] != group]
        law = fit_pods([pods[place] for place in seen], [shares[place] for place in seen])
        for place in places:
            if groups[place] == group:
                errors[place] = math.log(share_of(law, pods[place]) / shares[place])
    return errors


def _features(pod: Pod) -> list[float]:
    return [math.log2(pod.slices), math.log(pod.parameters / WEIGHTS)]
