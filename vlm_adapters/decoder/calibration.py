"""From the logits of a classifier to probabilities that hold, and a threshold, both chosen on samples of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vlm_adapters.errors import DecoderError

LOST = 0.02
"""Largest share of present things that a threshold may lose on the samples that it is chosen on."""

_STEPS, _PRIOR = 50, 1e-3


@dataclass(frozen=True)
class Calibration:
    """How a logit becomes a probability (Platt scaling), and below which probability a phrase counts as absent.

    Attributes:
        scale: Factor of the logits.
        offset: What is added to them after that.
        threshold: A phrase whose probability is below this is absent; in [0, 1].
    """

    scale: float = 1.0
    offset: float = 0.0
    threshold: float = 0.5

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities in [0, 1] of logits, float32 and of the same shape."""
        return (logits.float() * self.scale + self.offset).sigmoid()

    def absent(self, logits: Tensor) -> Tensor:
        """Whether phrases with these logits count as absent: bool, of the same shape."""
        return self.probabilities(logits) < self.threshold

    @classmethod
    def of(cls, logits: Sequence[float] | NDArray[np.float64], present: Sequence[bool] | NDArray[np.bool_]) -> Self:
        """Fit scale and offset by maximum likelihood, and choose the threshold.

        The threshold is the largest, at most one half, that loses no more than `LOST` of the present ones.

        Args:
            logits: `(N,)` of samples that were neither learned from nor are reported on.
            present: `(N,)` the truth, with at least one of each kind.

        Raises:
            DecoderError: All are present, or none is.
        """
        order = np.argsort(logits, kind="stable")  # so that the result does not depend on the order of the samples
        z, y = np.asarray(logits, np.float64)[order], np.asarray(present, np.bool_)[order]
        if y.all() or not y.any():
            raise DecoderError(
                f"Presence cannot be calibrated on {len(y)} phrases of which {int(y.sum())} are in the image. Give "
                "samples with present and absent phrases."
            )
        scale, offset = _platt(z, y)
        if scale <= 0:  # logits that say nothing: what is likelier is there, and nothing is called absent for them
            scale, offset = 0.0, float(np.log((y.sum() + 1) / ((~y).sum() + 1)))
        probabilities = 1 / (1 + np.exp(-(scale * z + offset)))
        threshold = min(0.5, float(np.quantile(probabilities[y], LOST, method="lower")))
        return cls(float(scale), float(offset), threshold)


def _platt(z: NDArray[np.float64], y: NDArray[np.bool_]) -> tuple[float, float]:
    """Scale and offset of the likeliest logistic curve, by Newton's method.

    The targets lie as far within (0, 1) as Platt put them, by the number of samples: perfect separation stays finite.
    """
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
    inputs, weights = np.stack([z, np.ones_like(z)], axis=1), np.array([1.0, 0.0])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(inputs @ weights, -50, 50)))
        gradient = inputs.T @ (p - target)
        curvature = (inputs * (p * (1 - p))[:, None]).T @ inputs + _PRIOR * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    return float(weights[0]), float(weights[1])
