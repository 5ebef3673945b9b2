"""Judging a decoder while it learns: a number to choose the best by, and a sheet of images for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vlm_adapters.data.ahead import map_ahead
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.decoder.logits import binary_masks
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.evaluation.process import Process
from vlm_adapters.output.figures import mask_sheet
from vlm_adapters.output.render import write_png
from vlm_adapters.training.samples import ExtractedSample, ExtractedSamples
from vlm_adapters.training.stopping import StopRequest

BATCH_SIZE = 8


@dataclass(frozen=True)
class Validation:
    """The samples that a run is judged by.

    Attributes:
        samples: What the decoder reads of them.
        data: The data set that they are of.
        sheet_samples: How many the sheet shows.
        workers: Threads that read ahead.
    """

    samples: ExtractedSamples
    data: Dataset
    sheet_samples: int
    workers: int

    def mean_iou(self, decoder: MaskDecoder, process: Process, stop: StopRequest) -> float | None:
        """Mean IoU over all phrases at the images' size, each process judging its share; None if a stop came first.

        Several processes cannot agree on a stop before all are done, and go through.
        """
        indices = range(len(self.samples))[process.index :: process.count]
        total, count = 0.0, 0
        with _in_eval_mode(decoder):
            prepare = self.samples.prepare
            for finish in map_ahead(prepare, _batches(indices), workers=self.workers, most=self.workers):
                if stop and process.count == 1:
                    return None
                samples = finish()
                for sample, masks in zip(samples, _masks(decoder, samples), strict=True):
                    total += sum(mask_iou(found, mask) for found, mask in zip(masks, sample.masks, strict=True))
                    count += len(masks)
        summed = process.sum(torch.tensor([total, count], device=process.device, dtype=torch.float32))
        return float(summed[0] / summed[1].clamp(min=1))

    def write_sheet(self, decoder: MaskDecoder, path: Path) -> None:
        """Write the first samples with their masks, the truth outlined."""
        shown = range(min(self.sheet_samples, len(self.samples)))
        # a sample that cannot be read is not shown
        read = [(self.samples.data_index(index), sample) for index in shown for sample in self.samples.read([index])]
        samples = [sample for _, sample in read]
        with _in_eval_mode(decoder):
            found = _masks(decoder, samples)
        images = [self.data[index].image for index, _ in read]
        rows = [
            (image, [phrase.text for phrase in sample.annotation.phrases], list(masks), list(sample.masks))
            for image, sample, masks in zip(images, samples, found, strict=True)
        ]
        if rows:
            write_png(mask_sheet(rows), path)


@contextmanager
def _in_eval_mode(decoder: MaskDecoder) -> Iterator[None]:
    decoder.eval()
    try:
        yield
    finally:
        decoder.train()


@torch.no_grad()
def _masks(decoder: MaskDecoder, samples: Sequence[ExtractedSample]) -> list[NDArray[np.bool_]]:
    """Masks `(P, H, W)` of every sample."""
    found = decoder([sample.features for sample in samples], [sample.image for sample in samples])
    sizes = [(sample.masks.shape[1], sample.masks.shape[2]) for sample in samples]
    return [binary_masks(logits.at_image_size(size)).cpu().numpy() for logits, size in zip(found, sizes, strict=True)]


def _batches(indices: range) -> Iterable[range]:
    return (indices[start : start + BATCH_SIZE] for start in range(0, len(indices), BATCH_SIZE))
