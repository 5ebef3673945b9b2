"""Samples as a decoder learns from them: features and true masks, whether computed now or kept in a cache."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.data.dataset import Dataset, read_samples
from vlm_adapters.data.sample import Annotation, Sample
from vlm_adapters.decoder.features import PhraseFeatures
from vlm_adapters.decoder.sam.model import EncodedImage, SegmentAnything
from vlm_adapters.errors import CacheError
from vlm_adapters.training.cache.fingerprint import FeaturePlan

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractedSample:
    """All that training needs of a sample.

    Attributes:
        annotation: Its text and phrases.
        features: What a decoder reads, in the precision of the plan; every map's peak is 1.
        masks: `(P, H, W)` bool: the truth, at the image's size.
        image: As the image encoder of Segment Anything sees it, if the plan says so.
    """

    annotation: Annotation
    features: PhraseFeatures = field(repr=False)
    masks: NDArray[np.bool_] = field(repr=False)
    image: EncodedImage | None = field(default=None, repr=False)

    @property
    def nbytes(self) -> int:
        """Size of its features."""
        tensors = [self.features.maps, *self.features.hidden, *([self.image.features] if self.image else [])]
        return sum(tensor.nbytes for tensor in tensors)


class ExtractedSamples(Protocol):
    """Where the loop takes samples from."""

    @property
    def plan(self) -> FeaturePlan:
        """What was, or is, computed."""
        ...

    def __len__(self) -> int: ...

    def phrase_count(self, index: int) -> int:
        """How many phrases a sample has; cheap."""
        ...

    def read(self, indices: Sequence[int]) -> list[ExtractedSample]:
        """Give some samples, in this order, without those that cannot be read, where the set says so."""
        ...

    def at_epoch(self, epoch: int) -> ExtractedSamples:
        """The samples as they are in an epoch; unlike these only where the data set draws anew."""
        ...


class LiveSamples:
    """Runs the backbone whenever samples are asked for.

    What the data set leaves out (`skips_broken`) is told once, as a warning.

    Attributes:
        adapter: The backbone.
        data: What to run it on.
        plan: What to compute.
        sam: Encodes images, if the plan says so.
    """

    def __init__(
        self, adapter: BackboneAdapter, data: Dataset, plan: FeaturePlan, sam: SegmentAnything | None = None
    ) -> None:
        self.adapter, self.data, self.plan, self.sam = adapter, data, plan, sam
        self._left_out: set[str] = set()

    def __len__(self) -> int:
        return len(self.data)

    def phrase_count(self, index: int) -> int:
        """See `ExtractedSamples`."""
        return len(self.data.annotation(index).phrases)

    @torch.no_grad()
    def extract(self, sample: Sample) -> ExtractedSample:
        """Run the backbone over a sample, and round what it gives to the plan's precision.

        Samples go through it one by one: what is padded beside others differs in its last bits, and a cache and the
        loop would not agree. Every map is divided by its peak first: a decoder does not mind its scale, and float16
        would lose a map of a thousand small values.
        """
        request, dtype = self.plan.features, self.plan.tensor_type
        (grids,) = self.adapter.extract(self.adapter.preprocess([sample.prompt]), request.grids)
        features = PhraseFeatures.of(grids, request)
        maps = features.maps / features.maps.amax(dim=(2, 3), keepdim=True).clamp(min=1e-30)
        kept = replace(features, maps=maps.to(dtype), hidden=tuple(states.to(dtype) for states in features.hidden))
        if not all(bool(tensor.isfinite().all()) for tensor in (kept.maps, *kept.hidden)):
            raise CacheError(
                f"What the backbone gives for sample {sample.id} does not fit into {self.plan.dtype}: there are values "
                f"that are not finite. {'Take keep=bfloat16' if dtype == torch.float16 else 'Check the backbone'}."
            )
        image = self.sam.encode(sample.image) if self.sam else None
        if image is not None:
            image = replace(image, features=image.features.to(dtype).cpu())
        return ExtractedSample(annotation_of(sample), kept.to("cpu"), sample.masks, image)

    def read(self, indices: Sequence[int]) -> list[ExtractedSample]:
        """See `ExtractedSamples`."""
        found = []
        for _, sample in read_samples(self.data, indices):
            if isinstance(sample, Sample):
                found.append(self.extract(sample))
            elif sample.place not in self._left_out:
                self._left_out.add(sample.place)
                _LOG.warning("left out %s: %s", sample.place, sample.message)
        return found

    def at_epoch(self, epoch: int) -> LiveSamples:
        """See `ExtractedSamples`."""
        there = copy(self)  # what was left out is told once, in whatever epoch
        there.data = self.data.at_epoch(epoch)
        return there


def annotation_of(sample: Annotation) -> Annotation:
    """What a sample says, without its pixels."""
    return Annotation(**{name: getattr(sample, name) for name in Annotation.__dataclass_fields__})


def image_digest(sample: Sample) -> str:
    """Names an image by its pixels."""
    digest = hashlib.sha256(f"{sample.image.size}".encode())
    digest.update(sample.image.tobytes())
    return digest.hexdigest()
