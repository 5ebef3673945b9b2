"""Measure an embedded backbone and its decoder on held-out scenes, with the controls that keep the numbers honest.

    python examples/lab/measure_tiny.py [--model tiny-qwen2_5_vl] [--count 500]

On hard scenes only things that are there count: an empty mask would be right for the others, whatever the image shows.
The control with random weights is in `measure_claims.py`, which trains decoders.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from report import write_report
from torch.nn import functional as F  # noqa: N812 - the name everyone knows

from vlm_adapters import GroundedVLM, TransformersBackbone, load_adapter, place_map
from vlm_adapters.data.formats.hard_scenes import HELD_OUT_SEED as HARD_SEED
from vlm_adapters.data.formats.hard_scenes import HardScenes
from vlm_adapters.data.formats.scenes import COLOURS, HELD_OUT_SEED, SHAPES, Scenes
from vlm_adapters.data.sample import Sample
from vlm_adapters.decoder.losses import cover_cells
from vlm_adapters.evaluation.metrics import mask_iou

BATCH = 8
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55)


def coarse_ious(vlm: GroundedVLM, samples: Sequence[Sample]) -> NDArray[np.float64]:
    """IoU of every phrase of every sample, in order."""
    found: list[float] = []
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        for sample, grounding in zip(batch, vlm.ground_all([sample.prompt for sample in batch]), strict=True):
            found += [mask_iou(p.mask, mask) for p, mask in zip(grounding.phrases, sample.masks, strict=True)]
    return np.array(found)


def iou_of_present(vlm: GroundedVLM, samples: Sequence[Sample]) -> float:
    """Mean IoU over the phrases that have a mask."""
    there = np.concatenate([sample.masks.any(axis=(1, 2)) for sample in samples])
    return float(coarse_ious(vlm, samples)[there].mean())


def swapped(samples: Sequence[Sample]) -> list[Sample]:
    """Every sample with the image of the next one, stretched to its own size; text and masks stay."""
    others = [*samples[1:], samples[0]]
    return [
        dataclasses.replace(sample, image=other.image.resize(sample.image.size))
        for sample, other in zip(samples, others, strict=True)
    ]


def blank(samples: Sequence[Sample]) -> list[Sample]:
    """Every sample with an evenly grey image."""
    return [
        dataclasses.replace(sample, image=Image.new("RGB", sample.image.size, (128, 128, 128))) for sample in samples
    ]


def shape_words_right(adapter: TransformersBackbone, samples: Sequence[Sample]) -> tuple[float, float]:
    """How often the likeliest word after "a <colour>" is a shape that is there in this colour and not named before.

    The first share takes the likeliest of the whole vocabulary, the second the likeliest of the five shape words.
    """
    tokenizer = adapter.processor.tokenizer
    shape_ids = tokenizer.convert_tokens_to_ids([f"Ġ{shape}" for shape in SHAPES])
    right: list[tuple[bool, bool]] = []
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        inputs = adapter.preprocess([sample.prompt for sample in batch])
        with torch.no_grad():
            logits = adapter.model(**inputs.tensors).logits
        for b, sample in enumerate(batch):
            said = tokenizer.batch_decode(inputs.tensors["input_ids"][b, :, None])
            for allowed, tokens in zip(_allowed_shapes(sample), inputs.phrase_tokens[b], strict=True):
                colour = next(position for position in tokens.tolist() if said[position].strip() in COLOURS)
                word = tokenizer.decode(logits[b, colour].argmax()).strip()
                shape = SHAPES[int(logits[b, colour, shape_ids].argmax())]
                right.append((word in allowed, shape in allowed))
    of_all, of_shapes = np.mean(right, axis=0).tolist()
    return of_all, of_shapes


def _allowed_shapes(sample: Sample) -> list[list[str]]:
    """Per phrase, the shapes of its colour that its text names from there on."""
    names = [(phrase.start, *phrase.text.split()[1:3]) for phrase in sample.phrases]
    return [[other[2] for other in names if other[0] >= name[0] and other[1] == name[1]] for name in names]


def guess_rate(samples: Sequence[Sample]) -> float:
    """Share of right shape words if each were drawn evenly."""
    return float(
        np.mean([len(set(allowed)) / len(SHAPES) for sample in samples for allowed in _allowed_shapes(sample)])
    )


def ceiling(adapter: TransformersBackbone, samples: Sequence[Sample]) -> float:
    """Mean IoU of the truth itself, pooled on the grid and enlarged bilinearly, at the best threshold."""
    scores: dict[float, list[float]] = {threshold: [] for threshold in THRESHOLDS}
    for sample in samples:
        grid = adapter.locate_image_tokens(adapter.preprocess([sample.prompt]))[0][0]
        pooled = cover_cells(sample.masks, grid.box, grid.shape)
        placed = place_map(pooled, grid.box, (sample.image.height, sample.image.width)).numpy()
        _score(scores, placed, sample.masks)
    return max(float(np.mean(values)) for values in scores.values())


def floor(samples: Sequence[Sample]) -> float:
    """Mean IoU of the best guess that sees nothing: the mean of all masks, at the best threshold."""
    masks = [torch.from_numpy(sample.masks).float() for sample in samples]
    mean = torch.cat([F.interpolate(mask[None], (64, 64), mode="area")[0] for mask in masks]).mean(0)
    levels = {float(mean.quantile(level)): [] for level in (0.0, 0.3, 0.5, 0.7, 0.8, 0.9)}
    for sample in samples:
        guess = F.interpolate(mean[None, None], sample.masks.shape[1:], mode="bilinear")[0].numpy()
        _score(levels, np.repeat(guess, len(sample.masks), 0), sample.masks)
    return max(float(np.mean(values)) for values in levels.values())


def _score(scores: dict[float, list[float]], soft: NDArray[np.float32], masks: NDArray[np.bool_]) -> None:
    for threshold, values in scores.items():
        values += [mask_iou(found, mask) for found, mask in zip(soft >= threshold, masks, strict=True)]


def shares_colour(samples: Iterable[Sample]) -> NDArray[np.bool_]:
    """Per phrase, whether another object of the scene has its colour."""
    colours = [[phrase.text.split()[1] for phrase in sample.phrases] for sample in samples]
    return np.array([scene.count(colour) > 1 for scene in colours for colour in scene])


def main() -> None:
    """Read the command line, measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="tiny-qwen2_5_vl", help="an embedded checkpoint with a decoder, or a directory"
    )
    parser.add_argument("--decoder", help="its folder, if not beside the checkpoint")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    samples, hard = list(Scenes(arguments.count, seed=HELD_OUT_SEED)), list(HardScenes(arguments.count, seed=HARD_SEED))
    adapter = load_adapter(arguments.model)
    vlm = GroundedVLM.from_pretrained(arguments.decoder or arguments.model, adapter=adapter)
    ious, shared = coarse_ious(vlm, samples), shares_colour(samples)
    right, right_of_shapes = shape_words_right(adapter, samples)
    blind, blind_of_shapes = shape_words_right(adapter, blank(samples))
    numbers = {
        "scenes": len(samples),
        "phrases": len(ious),
        "mean IoU": ious.mean(),
        "P@0.5": (ious > 0.5).mean(),
        "mean IoU, colour unique": ious[~shared].mean(),
        "mean IoU, colour shared": ious[shared].mean(),
        "mean IoU, ceiling of the grid": ceiling(adapter, samples),
        "mean IoU, best blind guess": floor(samples),
        "mean IoU, images swapped": coarse_ious(vlm, swapped(samples)).mean(),
        "shape words right": right,
        "shape words right, blank image": blind,
        "shape words right, best of the five": right_of_shapes,
        "shape words right, best of the five, blank image": blind_of_shapes,
        "shape words right, drawn evenly": guess_rate(samples),
        "hard scenes, mean IoU of present things": iou_of_present(vlm, hard),
        "hard scenes, images swapped": iou_of_present(vlm, swapped(hard)),
        "hard scenes, blank images": iou_of_present(vlm, blank(hard)),
    }
    rounded = {name: round(float(value), 4) for name, value in numbers.items()}
    print(json.dumps(rounded, indent=2))
    if arguments.report:
        write_report(arguments.report, rounded)


if __name__ == "__main__":
    main()
