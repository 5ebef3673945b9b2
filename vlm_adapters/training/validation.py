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
from vlm_adapters.decoder.calibration import Calibration
from vlm_adapters.decoder.logits import MaskLogits, binary_masks
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.evaluation.process import Process
from vlm_adapters.output.figures import mask_sheet
from vlm_adapters.output.render import write_png
from vlm_adapters.training.samples import ExtractedSample, ExtractedSamples
from vlm_adapters.training.stopping import StopRequest

BATCH_SIZE = 8


@dataclass(frozen=True)
class Judgement:
    """What a validation found.

    Attributes:
        mean_iou: Mean IoU over all phrases at the images' size; where presence is learned, over those that are there.
        calibration: That of presence; None where it is not learned, or the samples have no absent phrases or no others.
    """

    mean_iou: float
    calibration: Calibration | None


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

    def judge(self, decoder: MaskDecoder, process: Process, stop: StopRequest) -> Judgement | None:
        """Judge a decoder, each process its share of the samples; None if a stop came first.

        Several processes cannot agree on a stop before all are done, and go through.
        """
        indices = range(len(self.samples))[process.index :: process.count]
        ious: list[float] = []
        logits: list[float] = []
        present: list[bool] = []
        with _in_eval_mode(decoder):
            prepare = self.samples.prepare
            for finish in map_ahead(prepare, _batches(indices), workers=self.workers, most=self.workers):
                if stop and process.count == 1:
                    return None
                samples = finish()
                for sample, found in zip(samples, _decoded(decoder, samples), strict=True):
                    pairs = list(zip(_masks(found, sample), sample.masks, strict=True))
                    if found.presence is not None:
                        there = [bool(truth.any()) for _, truth in pairs]
                        pairs = [pair for pair, is_there in zip(pairs, there, strict=True) if is_there]
                        logits, present = logits + found.presence.tolist(), present + there
                    ious += [mask_iou(mask, truth) for mask, truth in pairs]
        summed = process.sum(torch.tensor([sum(ious), len(ious)], device=process.device, dtype=torch.float32))
        calibration = _calibrated(process.gather(logits), process.gather([float(there) for there in present]))
        return Judgement(float(summed[0] / summed[1].clamp(min=1)), calibration)

    def write_sheet(self, decoder: MaskDecoder, path: Path, title: str) -> None:
        """Write the first samples with their masks, the truth outlined, under a title."""
        shown = range(min(self.sheet_samples, len(self.samples)))
        # a sample that cannot be read is not shown
        read = [(self.samples.data_index(index), sample) for index in shown for sample in self.samples.read([index])]
        samples = [sample for _, sample in read]
        with _in_eval_mode(decoder):
            decoded = _decoded(decoder, samples)
        found = [_masks(logits, sample) for logits, sample in zip(decoded, samples, strict=True)]
        images = [self.data[index].image for index, _ in read]
        rows = [
            (image, [phrase.text for phrase in sample.annotation.phrases], list(masks), list(sample.masks))
            for image, sample, masks in zip(images, samples, found, strict=True)
        ]
        if rows:
            write_png(mask_sheet(rows, title), path)


@contextmanager
def _in_eval_mode(decoder: MaskDecoder) -> Iterator[None]:
    decoder.eval()
    try:
        yield
    finally:
        decoder.train()


@torch.no_grad()
def _decoded(decoder: MaskDecoder, samples: Sequence[ExtractedSample]) -> list[MaskLogits]:
    found: list[MaskLogits] = decoder([sample.features for sample in samples], [sample.image for sample in samples])
    return found


def _masks(found: MaskLogits, sample: ExtractedSample) -> NDArray[np.bool_]:
    """Masks `(P, H, W)` of a sample."""
    masks: NDArray[np.bool_] = binary_masks(found.at_image_size(sample.masks.shape[1:])).cpu().numpy()
    return masks


def _calibrated(logits: Sequence[float], present: Sequence[float]) -> Calibration | None:
    """The calibration of presence, where there are phrases of both kinds."""
    truth = np.array(present, np.bool_)
    return Calibration.of(logits, truth) if truth.any() and not truth.all() else None


def _batches(indices: range) -> Iterable[range]:
    return (indices[start : start + BATCH_SIZE] for start in range(0, len(indices), BATCH_SIZE))
