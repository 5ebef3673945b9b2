"""Which samples go through the backbone together: decided by the samples alone, so that their bits stay the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.data.sample import Sample

MOST_SHARING = 16
"""Most sentences about one image in a pass."""
MOST_PADDED = 8
MOST_PIXELS = 4_000_000
"""Most samples, and pixels of their images, that are padded beside each other."""
_SIMILAR = 1.25
"""Images are of similar size where the larger has at most so many times the pixels of the smaller."""


@dataclass(frozen=True)
class Composition:
    """How samples are put together into batches.

    Attributes:
        shares: Whether sentences about one image run in one pass, as they do where the backbone runs the image once.
        pads: Whether samples with images of similar size run beside each other. A processor is not faster so.
    """

    shares: bool
    pads: bool

    @classmethod
    def of(cls, adapter: BackboneAdapter) -> Self:
        """What pays for a backbone, where it is."""
        info = adapter.info
        return cls(shares=info.shared == "beginning", pads=torch.device(info.device).type != "cpu")

    def batches(self, samples: Sequence[Sample]) -> list[tuple[int, ...]]:
        """Divide samples into batches, of their positions; batches are in the order of their first members.

        Samples share an image where they name the same one and have the same pixels.
        """
        groups: list[tuple[int, ...]] = [(position,) for position in range(len(samples))]
        if self.shares:
            groups = _of_one_image(samples)
        if self.pads:
            alone = [position for group in groups if len(group) == 1 for position in group]
            groups = sorted([group for group in groups if len(group) > 1] + _buckets(samples, alone))
        return groups


def _of_one_image(samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    """Positions of samples of one image, in groups of bounded length."""
    groups: list[list[int]] = []
    latest: dict[object, list[list[int]]] = {}  # the latest group of every image that goes by the same name and size
    for position, sample in enumerate(samples):
        alike = latest.setdefault((sample.image_id, sample.image.size), [])
        place = next((n for n, group in enumerate(alike) if _same_pixels(samples[group[0]], sample)), len(alike))
        if place < len(alike) and len(alike[place]) < MOST_SHARING:
            alike[place].append(position)
            continue
        groups.append([position])
        alike[place : place + 1] = [groups[-1]]
    return [tuple(group) for group in groups]


def _same_pixels(one: Sample, other: Sample) -> bool:
    return one.image is other.image or one.image.tobytes() == other.image.tobytes()


def _buckets(samples: Sequence[Sample], positions: Iterable[int]) -> list[tuple[int, ...]]:
    """Positions of samples with images of similar size, in groups of bounded length and pixels."""
    ordered = sorted(positions, key=lambda position: (_pixels(samples[position]), len(samples[position].text)))
    buckets: list[list[int]] = []
    for position in ordered:
        pixels = _pixels(samples[position])
        bucket = buckets[-1] if buckets else []
        fits = len(bucket) < MOST_PADDED and (len(bucket) + 1) * pixels <= MOST_PIXELS
        if bucket and fits and pixels <= _SIMILAR * _pixels(samples[bucket[0]]):
            bucket.append(position)
        else:
            buckets.append([position])
    return [tuple(sorted(bucket)) for bucket in buckets]


def _pixels(sample: Sample) -> int:
    return sample.image.width * sample.image.height
