"""From records to the numbers of a table, each with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm_adapters.evaluation.record import Agreement, Record

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Of `P@`: the share of masks whose IoU is at least this."""

RESAMPLES = 1000
CONFIDENCE = 0.95

METRICS = ("cIoU", "mIoU", *(f"P@{threshold}" for threshold in THRESHOLDS), "Acc@0.5 of boxes", "boundary F")
"""Names of all metrics. Each is a sum over phrases divided by another sum over them.

mIoU is the average recall of Panoptic Narrative Grounding (Gonzalez et al., ICCV 2021), too: the integral over t in
[0, 1] of the share of masks with IoU >= t, to which each mask adds the length of the thresholds it passes, its IoU.
"""

_KNOWN_TAGS = ("thing", "stuff", "singular", "plural")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Number:
    """One number of the table.

    Attributes:
        group: `"all"`, or the tag that its phrases bear.
        phrases: How many.
        masks: Which masks: a name of `Record.found`.
        metric: One of `METRICS`.
        value: In [0, 1]; None where it is 0 / 0.
        low: Lower end of the interval.
        high: Upper end.
    """

    group: str
    phrases: int
    masks: str
    metric: str
    value: float | None
    low: float | None
    high: float | None


def summarise(records: Sequence[Record], *, seed: int = 0, resamples: int = RESAMPLES) -> list[Number]:
    """Compute all metrics of all phrases and of those of every tag, for each kind of mask.

    Args:
        records: Of all phrases.
        seed: Of the bootstrap.
        resamples: How many sets of images are drawn.
    """
    if not records:
        return []
    keys, columns = [], []
    for group in ("all", *tags_of(records)):
        inside = np.array([group == "all" or group in record.tags for record in records], dtype=np.float64)
        for masks in records[0].found:
            sums = _sums([record.found[masks] for record in records])
            for metric in METRICS:
                keys.append((group, int(inside.sum()), masks, metric))
                columns.append([part * inside for part in sums[metric]])
    above, below = np.array(columns).transpose(1, 2, 0)
    images = np.unique([record.image for record in records], return_inverse=True)[1]
    low, high = bootstrap(above, below, images, seed=seed, resamples=resamples)
    values = _quotient(above.sum(0), below.sum(0))
    return [Number(*key, *map(_known, row)) for key, *row in zip(keys, values, low, high, strict=True)]


def bootstrap(
    above: Floats, below: Floats, images: NDArray[np.int64], *, seed: int, resamples: int
) -> tuple[Floats, Floats]:
    """Intervals of quotients of sums by the percentile bootstrap: images are drawn with replacement, not phrases.

    Phrases of one image stand or fall together, so an interval that draws phrases would be too narrow.

    Args:
        above: `(P, M)`: what every phrase adds to the numerators of M quotients.
        below: `(P, M)`: the same for the denominators.
        images: `(P,)`: number of every phrase's image, from 0.
        seed: Of the draws.
        resamples: How many.

    Returns:
        Lower and upper end, `(M,)` each. Draws in which a quotient is 0 / 0 do not count; NaN where all are.
    """
    count = int(images.max()) + 1
    sums = np.zeros((2, count, above.shape[1]))
    np.add.at(sums[0], images, above)
    np.add.at(sums[1], images, below)
    generator = np.random.default_rng(seed)
    drawn = np.empty((resamples, above.shape[1]))
    for row in drawn:
        times = np.bincount(generator.integers(0, count, count), minlength=count)
        row[:] = _quotient(times @ sums[0], times @ sums[1])
    ends = np.full((2, above.shape[1]), np.nan)
    some = ~np.isnan(drawn).all(0)
    tail = (1 - CONFIDENCE) / 2
    ends[:, some] = np.nanquantile(drawn[:, some], (tail, 1 - tail), axis=0)
    return ends[0], ends[1]


def tags_of(records: Sequence[Record]) -> list[str]:
    """All tags, those of Panoptic Narrative Grounding first."""
    found = {tag for record in records for tag in record.tags}
    return [tag for tag in _KNOWN_TAGS if tag in found] + sorted(found - set(_KNOWN_TAGS))


def _sums(found: Sequence[Agreement]) -> dict[str, tuple[Floats, Floats]]:
    """Per metric, what every phrase adds to its numerator and to its denominator, `(P,)` each."""
    ious = np.array([one.iou for one in found])
    boxes = np.array([one.box_iou for one in found])
    means = {"mIoU": ious} | {f"P@{threshold}": (ious >= threshold).astype(np.float64) for threshold in THRESHOLDS}
    means |= {
        "Acc@0.5 of boxes": (boxes >= 0.5).astype(np.float64),
        "boundary F": np.array([one.boundary_f for one in found]),
    }
    pixels = np.array([(one.intersection, one.union) for one in found], dtype=np.float64)
    return {"cIoU": (pixels[:, 0], pixels[:, 1])} | {name: (each, np.ones(len(found))) for name, each in means.items()}


def _quotient(above: Floats, below: Floats) -> Floats:
    quotients = np.full(above.shape, np.nan)
    np.divide(above, below, out=quotients, where=below > 0)
    return quotients


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
