"""Samples as a decoder learns from them: features and true masks, whether computed now or read from a cache."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from vlm_adapters.backbone.copying import CopyStream, DeviceInputs
from vlm_adapters.backbone.grids import Grids
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.data.ahead import default_workers, map_ahead
from vlm_adapters.data.dataset import Dataset, read_samples
from vlm_adapters.data.sample import Annotation, Sample
from vlm_adapters.decoder.features import PhraseFeatures
from vlm_adapters.decoder.sam.model import EncodedImage, SegmentAnything, encoding_once
from vlm_adapters.errors import CacheError
from vlm_adapters.training.cache.fingerprint import CacheFingerprint
from vlm_adapters.training.composition import Composition

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractedSample:
    """All that training needs of a sample.

    Attributes:
        annotation: Its text and phrases.
        features: What a decoder reads, in the precision of the fingerprint; every map's peak is 1.
        masks: `(P, H, W)` bool: the truth, at the image's size.
        image: The image as Segment Anything encoded it, where it is needed.
    """

    annotation: Annotation
    features: PhraseFeatures = field(repr=False)
    masks: NDArray[np.bool_] = field(repr=False)
    image: EncodedImage | None = field(default=None, repr=False)

    @property
    def nbytes(self) -> int:
        """Size of its features."""
        features = self.features
        tensors = [features.maps, *features.hidden, *features.log_probabilities]
        tensors += [self.image.features] if self.image else []
        return sum(tensor.nbytes for tensor in tensors)


class ExtractedSamples(Protocol):
    """Where the loop takes samples from.

    Attributes:
        fingerprint: What was, or is, computed, and of what.
    """

    fingerprint: CacheFingerprint

    def __len__(self) -> int: ...

    def phrase_count(self, index: int) -> int:
        """How many phrases a sample has; cheap."""
        ...

    def data_index(self, index: int) -> int:
        """Where a sample is in the data set that it was computed of."""
        ...

    def read(self, indices: Sequence[int]) -> list[ExtractedSample]:
        """Read some samples, in this order; where the set skips broken ones, without those."""
        ...

    def prepare(self, indices: Sequence[int]) -> Callable[[], list[ExtractedSample]]:
        """Do what can be done of `read` before the model is free, and give the rest of it; several threads may."""
        found = self.read(indices)
        return lambda: found

    def at_epoch(self, epoch: int) -> ExtractedSamples:
        """The samples as they are in an epoch; they differ from these only where the data set draws anew."""
        ...


@dataclass(frozen=True)
class PreparedBatch:
    """Samples that go through the backbone together, and what it takes of them.

    Attributes:
        positions: Where the samples are among those that were divided into batches.
        samples: The samples.
        inputs: The backbone's inputs, on its device.
    """

    positions: tuple[int, ...]
    samples: tuple[Sample, ...]
    inputs: DeviceInputs


class LiveSamples(ExtractedSamples):
    """Runs the backbone whenever samples are read.

    Sentences about one image run in one pass where they are read together and the backbone can share it; on an
    accelerator, images of similar size run beside each other. A sample that the data set skips (`skips_broken`) is
    logged once, as a warning.

    Attributes:
        adapter: The backbone.
        data: What to run it on.
        fingerprint: What to compute.
        sam: Encodes images for a refiner; None without one.
        workers: Threads that work ahead of the backbone; None takes as many as the machine has cores for.
        composition: Which samples run together.
    """

    def __init__(
        self,
        adapter: BackboneAdapter,
        data: Dataset,
        fingerprint: CacheFingerprint,
        sam: SegmentAnything | None = None,
        workers: int | None = None,
    ) -> None:
        self.adapter, self.data, self.sam = adapter, data, sam
        self.fingerprint = fingerprint
        self.workers = default_workers() if workers is None else workers
        self.composition, self._stream = Composition.of(adapter), CopyStream(adapter.info.device)
        self._left_out: set[str] = set()
        self._one_thread = threading.Lock()  # tokenizers and processors are not made for several threads at once

    @override
    def __len__(self) -> int:
        return len(self.data)

    @override
    def phrase_count(self, index: int) -> int:
        return len(self.data.annotation(index).phrases)

    @override
    def data_index(self, index: int) -> int:
        return index

    def extract_all(self, samples: Sequence[Sample]) -> Generator[tuple[int, ExtractedSample]]:
        """Run the backbone over samples, their inputs being prepared ahead of it.

        Yields:
            Every sample with its position, batch by batch.
        """

        def prepared(positions: tuple[int, ...]) -> PreparedBatch:
            return self._prepared(positions, samples)

        batches = self.composition.batches(samples)
        with closing(map_ahead(prepared, batches, workers=min(self.workers, 1), most=2)) as ahead:
            for batch in ahead:
                yield from zip(batch.positions, self._extracted(batch), strict=True)

    @override
    def read(self, indices: Sequence[int]) -> list[ExtractedSample]:
        return self.prepare(indices)()

    @override
    def prepare(self, indices: Sequence[int]) -> Callable[[], list[ExtractedSample]]:
        samples = list(self._readable(indices))
        batches = [self._prepared(positions, samples) for positions in self.composition.batches(samples)]

        def extract() -> list[ExtractedSample]:
            found = {
                position: sample
                for batch in batches
                for position, sample in zip(batch.positions, self._extracted(batch), strict=True)
            }
            return [found[position] for position in range(len(samples))]

        return extract

    @override
    def at_epoch(self, epoch: int) -> LiveSamples:
        samples = copy(self)  # what was left out is logged once, in whatever epoch
        samples.data = self.data.at_epoch(epoch)
        return samples

    def _readable(self, indices: Sequence[int]) -> Iterator[Sample]:
        for _, sample in read_samples(self.data, indices):
            if isinstance(sample, Sample):
                yield sample
                continue
            with self._one_thread:
                is_new = sample.place not in self._left_out
                self._left_out.add(sample.place)
            if is_new:
                _LOG.warning("left out %s: %s", sample.place, sample.message)

    def _prepared(self, positions: tuple[int, ...], samples: Sequence[Sample]) -> PreparedBatch:
        chosen = tuple(samples[position] for position in positions)
        with self._one_thread:
            inputs = self._stream.copied(lambda: self.adapter.preprocess([sample.prompt for sample in chosen]))
        return PreparedBatch(positions, chosen, inputs)

    @torch.no_grad()
    def _extracted(self, batch: PreparedBatch) -> list[ExtractedSample]:
        """Run the backbone over a batch, and round what it gives to the precision of the fingerprint."""
        extracted = self.adapter.extract(batch.inputs.ready(), self.fingerprint.feature_request.grids)
        encode = encoding_once(self.sam) if self.sam else None
        found = []
        for sample, grids in zip(batch.samples, extracted, strict=True):
            image = encode(sample.image) if encode else None
            if image is not None:
                image = replace(image, features=image.features.to(self.fingerprint.tensor_type).cpu())
            found.append(ExtractedSample(annotation_of(sample), self._rounded(sample, grids), sample.masks, image))
        return found

    def _rounded(self, sample: Sample, grids: Sequence[Grids]) -> PhraseFeatures:
        """What a decoder reads, every map divided by its peak.

        A decoder does not mind the scale of a map, and float16 would lose a map of a thousand small values.
        """
        dtype = self.fingerprint.tensor_type
        features = PhraseFeatures.of(grids, self.fingerprint.feature_request, self.fingerprint.backbone)
        maps = features.maps / features.maps.amax(dim=(2, 3), keepdim=True).clamp(min=1e-30)
        rounded = replace(features, maps=maps.to(dtype), hidden=tuple(states.to(dtype) for states in features.hidden))
        rounded = rounded.to("cpu")
        if not all(
            bool(tensor.isfinite().all()) for tensor in (rounded.maps, *rounded.hidden, *rounded.log_probabilities)
        ):
            remedy = "Take cache_dtype=bfloat16" if dtype == torch.float16 else "Check the backbone"
            raise CacheError(
                f"The features of sample {sample.id} do not fit into {self.fingerprint.dtype}: there are values that "
                f"are not finite. {remedy}."
            )
        return rounded


class ConcatSamples(ExtractedSamples):
    """Samples of several sources, of all of which the same was computed, one after the other."""

    def __init__(self, parts: Sequence[ExtractedSamples]) -> None:
        check_alike([part.fingerprint for part in parts])
        self.parts = parts
        self.fingerprint = parts[0].fingerprint
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    @override
    def __len__(self) -> int:
        return int(self._starts[-1])

    @override
    def phrase_count(self, index: int) -> int:
        part, inner = self._position(index)
        return self.parts[part].phrase_count(inner)

    @override
    def data_index(self, index: int) -> int:
        part, inner = self._position(index)
        return self.parts[part].data_index(inner)

    @override
    def read(self, indices: Sequence[int]) -> list[ExtractedSample]:
        positions = [self._position(index) for index in indices]
        return [sample for part, inner in positions for sample in self.parts[part].read([inner])]

    @override
    def prepare(self, indices: Sequence[int]) -> Callable[[], list[ExtractedSample]]:
        prepared = [self.parts[part].prepare([inner]) for part, inner in map(self._position, indices)]
        return lambda: [sample for finish in prepared for sample in finish()]

    @override
    def at_epoch(self, epoch: int) -> ConcatSamples:
        return ConcatSamples([part.at_epoch(epoch) for part in self.parts])

    def _position(self, index: int) -> tuple[int, int]:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return part, index - int(self._starts[part])


def check_alike(fingerprints: Sequence[CacheFingerprint]) -> None:
    """Check that the same was computed of several data sets.

    Raises:
        CacheError: It was not.
    """
    first = fingerprints[0]
    for other in fingerprints[1:]:
        if other.digest != first.digest:
            differing = [text for text in first.differences(other) if not text.startswith("data:")]
            raise CacheError(
                f"What was computed of {first.data} and of {other.data} differs: {'; '.join(differing)}. Delete the "
                "older cache, and build it anew."
            )


def annotation_of(sample: Annotation) -> Annotation:
    """Text and phrases of a sample, without its pixels."""
    return Annotation(**{name: getattr(sample, name) for name in Annotation.__dataclass_fields__})


def image_digest(sample: Sample) -> str:
    """Digest of an image's pixels."""
    digest = hashlib.sha256(f"{sample.image.size}".encode())
    digest.update(sample.image.tobytes())
    return digest.hexdigest()
