"""Which samples go through the backbone together: decided by the samples alone, so that their bits stay the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.data.sample import Sample
from vlm_adapters.hf.backbone import TransformersBackbone
from vlm_adapters.hf.shared_prefix import can_share

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
        shares = isinstance(adapter, TransformersBackbone) and adapter.shares_prefix and can_share(adapter.model)
        return cls(shares, pads=torch.device(adapter.info.device).type != "cpu")

    def batches(self, samples: Sequence[Sample]) -> list[tuple[int, ...]]:
        """Divide samples into batches, of their positions; batches and their members are in the samples' order.

        Samples share an image where they follow one another and have the same pixels.
        """
        groups: list[tuple[int, ...]] = [(position,) for position in range(len(samples))]
        if self.shares:
            groups = _runs(samples)
        if self.pads:
            alone = [position for group in groups if len(group) == 1 for position in group]
            groups = sorted([group for group in groups if len(group) > 1] + _buckets(samples, alone))
        return groups


def _runs(samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    """Positions of consecutive samples of one image, in groups of bounded length."""
    groups: list[tuple[int, ...]] = []
    for position, sample in enumerate(samples):
        before = groups[-1] if groups else ()
        if before and len(before) < MOST_SHARING and _same_image(samples[before[0]], sample):
            groups[-1] = (*before, position)
        else:
            groups.append((position,))
    return groups


def _same_image(one: Sample, other: Sample) -> bool:
    alike = one.image_id == other.image_id and one.image.size == other.image.size
    return alike and one.image.tobytes() == other.image.tobytes()


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
