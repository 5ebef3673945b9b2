"""Train a refiner on MobileSAM over the U-Net of an embedded backbone, and measure what it adds, on two cores.

    pip install "vlm-adapters[sam]"
    python examples/lab/train_tiny_refiner.py [--model tiny-qwen2_5_vl] [--hard] [--out DIR] [--report FILE]

Backbone, U-Net and image encoder stay as they are; the prompt encoder, the mask decoder and the text prompt are trained
on scenes that nothing is measured on. Then the same U-Net is measured alone and refined, at the images' full size; on
hard scenes by kind, where a phrase that is not there counts 1 if it comes out absent, else 0.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Spinning threads slow each other down beside other work; OpenMP reads this once, when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from artefacts import mobile_sam
from report import write_report
from torch import Tensor, nn

from vlm_adapters import GroundedVLM
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.hard_scenes import HELD_OUT_SEED as HARD_SEED
from vlm_adapters.data.formats.hard_scenes import HardScenes
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.data.formats.things import KINDS
from vlm_adapters.decoder.losses import dice_loss, mask_loss
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.sam.checkpoint import load_sam
from vlm_adapters.decoder.sam.model import EncodedImage
from vlm_adapters.decoder.sam.refiner import SAMRefiner
from vlm_adapters.evaluation.metrics import boundary_f_score, mask_iou

TRAIN_SEED = 3
"""Scenes that neither the backbone was trained on nor anything is measured on."""
LEARNING_RATE = 2e-4
WARM_UP = 20
BATCH = 8
REPORT_EVERY = 20


@dataclass(frozen=True)
class Coarse:
    """What is constant of a scene while the refiner is trained: see `SAMRefiner.forward`."""

    image: EncodedImage
    masks: Tensor
    logits: Tensor
    box: tuple[float, float, float, float]
    hidden: tuple[Tensor, ...]


def coarse_scenes(vlm: GroundedVLM, refiner: SAMRefiner, samples: Dataset) -> Iterator[Coarse]:
    """Run backbone, U-Net and image encoder over scenes; of the phrases, those that have a mask are kept."""
    for start in range(0, len(samples), BATCH):
        batch = [samples[index] for index in range(start, min(start + BATCH, len(samples)))]
        with torch.no_grad():
            for sample, features in zip(batch, vlm.features([sample.prompt for sample in batch]), strict=True):
                there = sample.masks.any(axis=(1, 2))
                image = refiner.sam.encode(sample.image)
                logits = vlm.decoder.unet(features.maps)[torch.from_numpy(there)]
                hidden = tuple(states for states, kept in zip(features.hidden, there, strict=True) if kept)
                yield Coarse(image, torch.from_numpy(sample.masks[there]), logits, features.box, hidden)


def fit(refiner: SAMRefiner, scenes: Sequence[Coarse], steps: int) -> None:
    """Train with binary cross entropy and Dice loss at full size, one scene a step."""
    refiner.train()
    trained = [weight for weight in refiner.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.01)
    rng, started = np.random.default_rng(0), time.monotonic()
    losses: list[float] = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * (1 - step / steps)
        scene = scenes[rng.integers(len(scenes))]
        refined = refiner(scene.image, scene.logits, scene.box, scene.hidden)
        masks = scene.masks.float()
        loss = mask_loss(refined, masks) + dice_loss(refined, masks)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % REPORT_EVERY == 0:
            pace = (time.monotonic() - started) / (step + 1)
            print(f"{step + 1:5d} {pace:.2f} s  loss {np.mean(losses[-REPORT_EVERY:]):.3f}", flush=True)
    refiner.eval()


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
    """Read the command line, train, write the refiner and print what it adds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen2_5_vl", help="an embedded checkpoint with a decoder")
    parser.add_argument("--hard", action="store_true", help="learn from hard scenes, too, and measure on them")
    parser.add_argument("--scenes", type=int, default=100, help="of each kind")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--count", type=int, default=500, help="held-out scenes of each kind to measure on")
    parser.add_argument("--out", type=Path, help="write decoder and refiner to this folder")
    parser.add_argument("--report", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    coarse = GroundedVLM.from_pretrained(arguments.model, device="cpu")
    refiner = SAMRefiner.of(load_sam(mobile_sam()), coarse.adapter.info)
    decoder = coarse.decoder
    refined = GroundedVLM(coarse.adapter, MaskDecoder(decoder.unet, decoder.request, refiner, decoder.presence))
    learned = list(coarse_scenes(refined, refiner, Scenes(arguments.scenes, seed=TRAIN_SEED)))
    if arguments.hard:
        learned += coarse_scenes(refined, refiner, HardScenes(arguments.scenes, seed=TRAIN_SEED))
    fit(refiner, learned, arguments.steps)
    if arguments.out:
        refined.save_pretrained(arguments.out)
    numbers = measure(coarse, refined, Scenes(arguments.count, seed=HELD_OUT_SEED))
    if arguments.hard:
        numbers["hard scenes"] = measure(coarse, refined, HardScenes(arguments.count, seed=HARD_SEED))
    print(json.dumps(numbers, indent=2))
    if arguments.report:
        write_report(arguments.report, {"model": arguments.model, **numbers})


if __name__ == "__main__":
    main()
