"""Judging a decoder while it learns: a number to choose the best by, and a sheet of images for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from numpy.typing import NDArray

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.decoder.model import MaskDecoder, binary_masks
from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.output.figures import mask_sheet
from vlm_adapters.output.render import write_png
from vlm_adapters.training.cache.build import CachedSamples
from vlm_adapters.training.data import Sources
from vlm_adapters.training.samples import ExtractedSample, ExtractedSamples

BATCH = 8


@dataclass(frozen=True)
class Validation:
    """The samples that a run is judged by.

    Attributes:
        samples: What the decoder reads of them.
        data: Their images.
        images: How many the sheet shows.
    """

    samples: ExtractedSamples
    data: Dataset
    images: int

    @classmethod
    def of(cls, sources: Sources) -> Validation | None:
        """Open what the recipe names; None if it names nothing."""
        opened = sources.validation()
        return opened and cls(*opened, sources.recipe.images)

    def mean_iou(self, decoder: MaskDecoder) -> float:
        """Mean IoU over all phrases at the images' size, each process judging its share."""
        processes = PartialState()
        indices = range(len(self.samples))[processes.process_index :: processes.num_processes]
        total, count = 0.0, 0
        decoder.eval()
        for batch in _batches(indices):
            samples = self.samples.read(batch)
            for sample, masks in zip(samples, _masks(decoder, samples), strict=True):
                total += sum(mask_iou(found, mask) for found, mask in zip(masks, sample.masks, strict=True))
                count += len(masks)
        decoder.train()
        summed = torch.tensor([total, count], device=processes.device, dtype=torch.float32)
        if processes.num_processes > 1:
            summed = reduce(summed, reduction="sum")
        return float(summed[0] / summed[1].clamp(min=1))

    def write_sheet(self, decoder: MaskDecoder, path: Path) -> None:
        """Write the first samples with their masks, the truth outlined."""
        shown = range(min(self.images, len(self.samples)))
        # of a cache, samples that could not be read are not among them
        places = self.samples.index.indices if isinstance(self.samples, CachedSamples) else shown
        read = [(places[index], sample) for index in shown for sample in self.samples.read([index])]
        samples = [sample for _, sample in read]
        decoder.eval()
        found = _masks(decoder, samples)
        decoder.train()
        images = [self.data[place].image for place, _ in read]
        rows = [
            (image, [phrase.text for phrase in sample.annotation.phrases], list(masks), list(sample.masks))
            for image, sample, masks in zip(images, samples, found, strict=True)
        ]
        if rows:
            write_png(mask_sheet(rows), path)


def _batches(indices: range) -> Iterable[range]:
    return (indices[start : start + BATCH] for start in range(0, len(indices), BATCH))


@torch.no_grad()
def _masks(decoder: MaskDecoder, samples: Sequence[ExtractedSample]) -> list[NDArray[np.bool_]]:
    """Masks `(P, H, W)` of every sample."""
    found = decoder([sample.features for sample in samples], [sample.image for sample in samples])
    sizes = [(sample.masks.shape[1], sample.masks.shape[2]) for sample in samples]
    return [binary_masks(logits.at_image_size(size)).cpu().numpy() for logits, size in zip(found, sizes, strict=True)]
