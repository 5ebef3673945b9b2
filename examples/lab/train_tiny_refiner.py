"""Train a refiner on MobileSAM over the U-Net of an embedded backbone, on two cores or a GPU.

    pip install "vlm-adapters[sam]"
    python examples/lab/train_tiny_refiner.py [--model tiny-qwen2_5_vl] [--hard] [--device cuda] --out DIR

Backbone, U-Net and image encoder stay as they are; the prompt encoder, the mask decoder and the text prompt are trained
on scenes that nothing is measured on. `measure_refiner.py` shows what it adds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Spinning threads slow each other down beside other work; OpenMP reads this once, when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from artefacts import mobile_sam
from torch import Tensor, nn

from vlm_adapters import GroundedVLM
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.hard_scenes import HardScenes
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.decoder.losses import dice_loss, mask_loss
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.sam.checkpoint import load_sam
from vlm_adapters.decoder.sam.model import EncodedImage
from vlm_adapters.decoder.sam.refiner import SAMRefiner

TRAIN_SEED = 3
"""Scenes that neither the backbone was trained on nor anything is measured on."""
LEARNING_RATE = 2e-4
WARM_UP = 20
BATCH = 8
REPORT_EVERY = 20


@dataclass(frozen=True)
class Coarse:
    """What is constant of a scene while the refiner is trained, on its device: see `SAMRefiner.forward`."""

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
                device, there = features.maps.device, np.any(sample.masks, axis=(1, 2))
                image = refiner.sam.encode(sample.image)
                logits = vlm.decoder.unet(features.maps)[torch.from_numpy(there).to(device)]
                hidden = tuple(states for states, kept in zip(features.hidden, there.tolist(), strict=True) if kept)
                masks = torch.from_numpy(sample.masks[there]).to(device)
                yield Coarse(image, masks, logits, features.box, hidden)


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
        scene = scenes[int(rng.integers(len(scenes)))]
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


def main() -> None:
    """Read the command line, train, and write decoder and refiner."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen2_5_vl", help="an embedded checkpoint, or a directory")
    parser.add_argument("--hard", action="store_true", help="learn from hard scenes, too")
    parser.add_argument("--scenes", type=int, default=100, help="of each kind")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="where decoder and refiner are written")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    vlm = GroundedVLM.from_pretrained(arguments.model, device=arguments.device)
    decoder, info = vlm.decoder, vlm.adapter.info
    refiner = SAMRefiner.of(load_sam(mobile_sam()), info).to(info.device)
    refined = GroundedVLM(vlm.adapter, MaskDecoder(decoder.unet, decoder.request, refiner, decoder.presence))
    learned = list(coarse_scenes(refined, refiner, Scenes(arguments.scenes, seed=TRAIN_SEED)))
    if arguments.hard:
        learned += coarse_scenes(refined, refiner, HardScenes(arguments.scenes, seed=TRAIN_SEED))
    fit(refiner, learned, arguments.steps)
    refined.save_pretrained(arguments.out)
    print(f"Wrote {arguments.out}")


if __name__ == "__main__":
    main()
