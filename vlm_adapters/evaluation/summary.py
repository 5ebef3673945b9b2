"""The numbers of a table, each with an interval, computed from records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vlm_adapters.evaluation.record import Agreement, Record

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""IoU thresholds of the metrics `P@t`."""

RESAMPLES = 1000
"""How many sets of images the bootstrap draws."""

CONFIDENCE = 0.95
"""Share of the draws that an interval covers."""

METRICS = ("cIoU", "mIoU", *(f"P@{threshold}" for threshold in THRESHOLDS), "Acc@0.5 of boxes", "boundary F")
"""Names of all metrics. Each is a sum over phrases divided by another sum over phrases.

mIoU is also the average recall of Panoptic Narrative Grounding (Gonzalez et al., ICCV 2021): the integral over t in
[0, 1] of the share of masks with IoU >= t, to which every mask adds the length of the interval that it passes, its IoU.
"""

NO_TARGET_METRICS = ("gIoU", "N-acc", "T-acc")
"""Names of the metrics that are added where some phrase has no target, as Liu et al. define them (GRES, CVPR 2023).

gIoU is the mean of the IoUs, where that of a phrase without a target is 1 if its mask has no pixel, otherwise 0. N-acc
is the share of the phrases without a target whose mask has no pixel, T-acc the share of the others whose mask has one.
The pixels that were found for phrases without a target are in the unions of cIoU.
"""

_KNOWN_TAGS = ("thing", "stuff", "singular", "plural")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Number:
    """One number of the table.

    Attributes:
        group: `"all"`, or the tag that its phrases have in common.
        phrases: Number of phrases.
        masks: Name of the masks in `Record.found`.
        metric: One of `METRICS` or `NO_TARGET_METRICS`.
        value: The value in [0, 1]; None where it is 0 / 0.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    group: str
    phrases: int
    masks: str
    metric: str
    value: float | None
    low: float | None
    high: float | None


def summarise(records: Sequence[Record], *, seed: int = 0, resamples: int = RESAMPLES) -> list[Number]:
    """Compute all metrics for each kind of mask, over all phrases and over those of every tag.

    Args:
        records: Records of all phrases.
        seed: Seed of the bootstrap.
        resamples: How many sets of images are drawn.
    """
    if not records:
        return []
    has_target = np.array([record.true_area > 0 for record in records])
    sums = {masks: _sums([record.found[masks] for record in records], has_target) for masks in records[0].found}
    keys, columns = [], []
    for group in ("all", *tags_of(records)):
        inside = np.array([group == "all" or group in record.tags for record in records], dtype=np.float64)
        for masks in records[0].found:
            for metric, parts in sums[masks].items():
                keys.append((group, int(inside.sum()), masks, metric))
                columns.append([part * inside for part in parts])
    numerators, denominators = np.array(columns).transpose(1, 2, 0)
    images = np.unique([record.image for record in records], return_inverse=True)[1]
    low, high = bootstrap(numerators, denominators, images, seed=seed, resamples=resamples)
    values = _quotient(numerators.sum(0), denominators.sum(0))
    return [Number(*key, *map(_known, row)) for key, *row in zip(keys, values, low, high, strict=True)]


def join_runs(runs: Mapping[str, Sequence[Record]]) -> list[Record]:
    """Join the records of one model's runs on several data sets, such as held-out seeds, to be summarised as one run.

    The bootstrap then draws from the images of all of them.

    Args:
        runs: The records of every run, by a name that distinguishes its images from those of the others.
    """
    return [replace(record, image=f"{name}/{record.image}") for name, records in runs.items() for record in records]


def bootstrap(
    numerators: Floats, denominators: Floats, images: NDArray[np.int64], *, seed: int, resamples: int
) -> tuple[Floats, Floats]:
    """Compute intervals of quotients of sums by the percentile bootstrap over images.

    Images are drawn with replacement, not phrases: results for phrases of one image depend on each other, so that
    drawing phrases would give intervals that are too narrow.

    Args:
        numerators: `(P, M)`: what every phrase adds to the numerators of M quotients.
        denominators: `(P, M)`: the same for the denominators.
        images: `(P,)`: number of every phrase's image, from 0.
        seed: Seed of the draws.
        resamples: Number of draws.

    Returns:
        Lower and upper ends, `(M,)` each. Draws in which a quotient is 0 / 0 do not count; NaN if it is so in all.
    """
    count = int(images.max()) + 1
    sums = np.zeros((2, count, numerators.shape[1]))
    np.add.at(sums[0], images, numerators)
    np.add.at(sums[1], images, denominators)
    generator = np.random.default_rng(seed)
    drawn = np.empty((resamples, numerators.shape[1]))
    for row in drawn:
        times = np.bincount(generator.integers(0, count, count), minlength=count)
        row[:] = _quotient(times @ sums[0], times @ sums[1])
    ends = np.full((2, numerators.shape[1]), np.nan)
    defined = ~np.isnan(drawn).all(0)
    tail = (1 - CONFIDENCE) / 2
    ends[:, defined] = np.nanquantile(drawn[:, defined], (tail, 1 - tail), axis=0)
    return ends[0], ends[1]


def tags_of(records: Sequence[Record]) -> list[str]:
    """List all tags, those of Panoptic Narrative Grounding first."""
    found = {tag for record in records for tag in record.tags}
    return [tag for tag in _KNOWN_TAGS if tag in found] + sorted(found - set(_KNOWN_TAGS))


def _sums(found: Sequence[Agreement], has_target: NDArray[np.bool_]) -> dict[str, tuple[Floats, Floats]]:
    """For every metric, what each phrase adds to its numerator and to its denominator, `(P,)` each."""
    ious = np.array([agreement.iou for agreement in found])
    boxes = np.array([agreement.box_iou for agreement in found])
    means = {"mIoU": ious} | {f"P@{threshold}": (ious >= threshold).astype(np.float64) for threshold in THRESHOLDS}
    means |= {
        "Acc@0.5 of boxes": (boxes >= 0.5).astype(np.float64),
        "boundary F": np.array([agreement.boundary_f for agreement in found]),
    }
    pixels = np.array([(agreement.intersection, agreement.union) for agreement in found], dtype=np.float64)
    every = np.ones(len(found))
    sums = {"cIoU": (pixels[:, 0], pixels[:, 1])} | {name: (each, every) for name, each in means.items()}
    if not has_target.all():
        is_empty = np.array([agreement.area == 0 for agreement in found])
        accuracies = [
            ((right & group).astype(np.float64), group.astype(np.float64))
            for right, group in ((is_empty, ~has_target), (~is_empty, has_target))
        ]
        sums |= dict(zip(NO_TARGET_METRICS, [(ious, every), *accuracies], strict=True))
    return sums


def _quotient(numerators: Floats, denominators: Floats) -> Floats:
    quotients = np.full(numerators.shape, np.nan)
    np.divide(numerators, denominators, out=quotients, where=denominators > 0)
    return quotients


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
