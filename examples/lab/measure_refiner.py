"""Measure what a refiner adds to the decoder of an embedded backbone, at the images' full size.

    pip install "vlm-adapters[sam]"
    python examples/lab/measure_refiner.py --model tiny-qwen2_5_vl --refined DIR [--hard] [--report FILE]

DIR is what `train_tiny_refiner.py` wrote. Nothing was trained on the scenes. On hard scenes there are numbers by kind,
too, where a phrase that is not there counts 1 if it comes out absent, else 0.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

# Spinning threads slow each other down beside other work; OpenMP reads this once, when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from artefacts import mobile_sam
from report import write_report

from vlm_adapters import GroundedVLM
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.hard_scenes import HELD_OUT_SEED as HARD_SEED
from vlm_adapters.data.formats.hard_scenes import HardScenes
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.data.formats.things import KINDS
from vlm_adapters.evaluation.metrics import boundary_f_score, mask_iou


def measure(coarse: GroundedVLM, refined: GroundedVLM, samples: Dataset) -> dict[str, Any]:
    """Mean IoU and boundary F-score of both over all phrases, and the mean IoU by kind where phrases have kinds."""
    scores: dict[str, list[float]] = defaultdict(list)
    of_kinds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for done, sample in enumerate(samples, 1):
        tags = sample.phrase_tags or ((),) * len(sample.masks)
        for name, vlm in (("coarse", coarse), ("refined", refined)):
            found = vlm.ground_all([sample.prompt])[0].phrases
            for phrase, mask, of_phrase in zip(found, sample.masks, tags, strict=True):
                iou = mask_iou(phrase.mask, mask)
                scores[f"mean IoU, {name}"].append(iou)
                scores[f"boundary F (2 px), {name}"].append(boundary_f_score(phrase.mask, mask))
                for kind in set(of_phrase) & set(KINDS):
                    of_kinds[kind][name].append(iou)
        if done % 50 == 0:
            print(
                f"{done:5d} scenes  " + "  ".join(f"{key} {np.mean(of):.3f}" for key, of in scores.items()), flush=True
            )
    numbers = {name: round(float(np.mean(values)), 4) for name, values in scores.items()}
    kinds = {
        kind: {"phrases": len(ious["coarse"]), **{name: round(float(np.mean(of)), 4) for name, of in ious.items()}}
        for kind, ious in sorted(of_kinds.items())
    }
    by_kind = {"mean IoU by kind": kinds} if kinds else {}
    return {"scenes": len(samples), "phrases": len(scores["mean IoU, coarse"]), **numbers, **by_kind}


def main() -> None:
    """Read the command line, measure, and print what the refiner adds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen2_5_vl", help="an embedded checkpoint, or a directory")
    parser.add_argument("--refined", type=Path, required=True, help="what train_tiny_refiner.py wrote")
    parser.add_argument("--hard", action="store_true", help="measure on hard scenes, too")
    parser.add_argument("--count", type=int, default=500, help="held-out scenes of each kind")
    parser.add_argument("--report", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    coarse = GroundedVLM.from_pretrained(arguments.model, device="cpu")
    refined = GroundedVLM.from_pretrained(arguments.refined, adapter=coarse.adapter, sam=mobile_sam())
    numbers = measure(coarse, refined, Scenes(arguments.count, seed=HELD_OUT_SEED))
    if arguments.hard:
        numbers["hard scenes"] = measure(coarse, refined, HardScenes(arguments.count, seed=HARD_SEED))
    print(json.dumps(numbers, indent=2))
    if arguments.report:
        write_report(arguments.report, {"model": arguments.model, **numbers})


if __name__ == "__main__":
    main()
