"""Measure whether a decoder knows that a phrase is not in the image, on held-out scenes with absent phrases.

    python examples/lab/measure_presence.py [--model tiny-qwen2_5_vl] [--data hard] [--count 500] [--report FILE]

"Before" is the same decoder without its presence head: every mask is kept, and what there was to tell absent things by
is the score of the mask. "Without training" is the least probability that the backbone gives to a token of the phrase.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from absent_scenes import AbsentScenes, ShapeName
from numpy.typing import NDArray
from report import write_report

from vlm_adapters import GroundedVLM, MaskDecoder, Prompt, load_adapter
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.hard_scenes import HELD_OUT_SEED as HARD_SEED
from vlm_adapters.data.formats.hard_scenes import HardScenes
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.data.sample import ABSENT, Sample
from vlm_adapters.evaluation import auroc, expected_calibration_error, mask_iou

BATCH = 8
FOREIGN = ("the moon", "a red dog", "a cat", "a blue elephant", "the green car", "a person with a hat", "two horses")
"""Phrases of one's own, which are in no scene."""


@dataclass(frozen=True)
class Row:
    """What was found of one phrase.

    Attributes:
        tags: Tags of the phrase.
        present: Whether it is in the image.
        presence: Its presence, learned or not.
        absent: Whether it counts as absent.
        score: Score of its mask, were it kept.
        iou: IoU of that mask with the truth.
        has_mask: Whether that mask has a pixel.
    """

    tags: tuple[str, ...]
    present: bool
    presence: float
    absent: bool
    score: float
    iou: float
    has_mask: bool


def rows_of(vlm: GroundedVLM, samples: Sequence[Sample]) -> Iterator[Row]:
    """Ground samples, keeping all masks."""
    vlm.keeps_absent_masks = True
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        for sample, grounding in zip(batch, vlm.ground_all([sample.prompt for sample in batch]), strict=True):
            tags = sample.phrase_tags or ((),) * len(sample.phrases)
            for found, mask, of_phrase in zip(grounding.phrases, sample.masks, tags, strict=True):
                yield Row(
                    of_phrase,
                    bool(mask.any()),
                    found.presence or 0.0,
                    found.absent,
                    found.score,
                    mask_iou(found.mask, mask),
                    found.box is not None,
                )


def without_head(vlm: GroundedVLM) -> GroundedVLM:
    """The same masks without a presence head."""
    return GroundedVLM(vlm.adapter, MaskDecoder(vlm.decoder.unet, vlm.decoder.request, vlm.decoder.refiner)).eval()


def numbers_of(rows: Sequence[Row], without: Sequence[Row]) -> dict[str, object]:
    """The numbers of a data set, the last by kind of absence."""
    present = np.array([row.present for row in rows])
    presence, absent = np.array([row.presence for row in rows]), np.array([row.absent for row in rows])
    ious, masks = np.array([row.iou for row in rows]), np.array([row.has_mask for row in rows])
    kinds = sorted({row.tags[1] for row in rows if ABSENT in row.tags})
    of_kind = {kind: np.array([not row.present and kind in row.tags for row in rows]) for kind in kinds}
    free = np.array([row.presence for row in without])
    return {
        "present phrases": int(present.sum()),
        "absent phrases": int((~present).sum()),
        "before: no-target accuracy": (~masks[~present]).mean(),
        "before: AUROC of the mask's score": auroc([row.score for row in rows], present),
        "without training: AUROC": auroc(free, present),
        "AUROC": auroc(presence, present),
        "no-target accuracy": (absent | ~masks)[~present].mean(),
        "present things lost": absent[present].mean(),
        "calibration error": expected_calibration_error(presence, present),
        "before: mean IoU of present things": ious[present].mean(),
        "mean IoU of present things": np.where(absent, 0.0, ious)[present].mean(),
        "by kind": {kind: _of_kind(presence, absent | ~masks, present, chosen) for kind, chosen in of_kind.items()},
    }


def _of_kind(
    presence: NDArray[np.float64], empty: NDArray[np.bool_], present: NDArray[np.bool_], chosen: NDArray[np.bool_]
) -> dict[str, object]:
    compared = present | chosen
    found = auroc(presence[compared], present[compared])
    return {"phrases": int(chosen.sum()), "AUROC": found, "no-target accuracy": empty[chosen].mean()}


def swapped(samples: Sequence[Sample]) -> list[Sample]:
    """Every scene with the image of the next one, and only what of its caption is not in that image."""
    found = []
    for sample, other in zip(samples, [*samples[1:], samples[0]], strict=True):
        there = {ShapeName.of(phrase.text)[:2] for phrase in other.phrases}
        phrases = tuple(phrase for phrase in sample.phrases if ShapeName.of(phrase.text)[:2] not in there)
        empty = np.zeros((len(phrases), other.image.height, other.image.width), np.bool_)
        tags = ((ABSENT, "swapped"),) * len(phrases)
        if phrases:
            found.append(dataclasses.replace(sample, image=other.image, phrases=phrases, masks=empty, phrase_tags=tags))
    return found


def own_phrases(vlm: GroundedVLM, scenes: Sequence[Sample]) -> dict[str, float]:
    """How phrases that are all of a text are judged: things of no scene, and the scene's own in other words."""
    absent: dict[str, list[bool]] = defaultdict(list)
    for sample in scenes:
        name = ShapeName.of(sample.phrases[0].text)
        texts = {
            "no scene has": list(FOREIGN),
            "there, as in the scenes": [sample.phrases[0].text],
            'there, with "the"': [f"the {name.colour} {name.shape}"],
            "there, without article": [f"{name.colour} {name.shape}"],
        }
        for kind, words in texts.items():
            prompts = [Prompt.describe(sample.image, text, [text]) for text in words]
            absent[kind] += [found.phrases[0].absent for found in vlm.ground_all(prompts)]
    return {f"absent: {kind}": float(np.mean(values)) for kind, values in absent.items()}


def rounded(numbers: object) -> object:
    """Numbers with four decimals, within dicts too."""
    if isinstance(numbers, dict):
        return {name: rounded(value) for name, value in numbers.items()}
    return round(float(numbers), 4) if isinstance(numbers, float | np.floating) else numbers


def main() -> None:
    """Read the command line, measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen2_5_vl", help="an embedded model with a decoder, or a folder")
    parser.add_argument("--decoder", help="its folder, if not beside the model")
    parser.add_argument("--data", choices=("easy", "hard"), default="hard")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--own", type=int, default=60, help="scenes that phrases of one's own are asked about")
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    vlm = GroundedVLM.from_pretrained(arguments.decoder or arguments.model, adapter=load_adapter(arguments.model))
    sets: dict[str, Dataset] = {
        "easy": AbsentScenes(arguments.count, seed=HELD_OUT_SEED),
        "hard": HardScenes(arguments.count, seed=HARD_SEED),
    }
    samples = list(sets[arguments.data])
    numbers = numbers_of(list(rows_of(vlm, samples)), list(rows_of(without_head(vlm), samples)))
    scenes = list(Scenes(arguments.count, seed=HELD_OUT_SEED))
    of_swapped = list(rows_of(vlm, swapped(scenes)))
    numbers["swapped images: no-target accuracy"] = np.mean([row.absent or not row.has_mask for row in of_swapped])
    numbers |= own_phrases(vlm, scenes[: arguments.own])
    head = vlm.decoder.presence
    if head is not None:
        numbers["threshold"] = head.calibration.threshold
        numbers["parameters"] = sum(weight.numel() for weight in head.parameters())
    found = rounded(numbers)
    print(json.dumps(found, indent=2))
    if arguments.report and isinstance(found, dict):
        write_report(arguments.report, found)


if __name__ == "__main__":
    main()
