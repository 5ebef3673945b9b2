"""Train a small mask decoder on the attention of an embedded backbone, on two processor cores in minutes.

    python examples/lab/train_tiny_decoder.py [--model tiny-qwen2_5_vl] [--out DIR] [--seed 0] [--presence-only]

The backbone stays as it is. Its attention maps are computed once and kept in memory; then a U-Net learns to turn the
maps of a phrase into its mask. At last a small head learns which phrases are in the image, and is calibrated on other
scenes. With `--presence-only` the decoder that is there keeps its masks and gets a new presence head.
"""

from __future__ import annotations

import argparse
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

# Spinning threads slow each other down beside other work; OpenMP reads this once, when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from fit_presence import TRAIN_SEED, data_of, fit_presence
from torch import Tensor, nn

from vlm_adapters import GridRequest, GroundedVLM, load_adapter
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.decoder.checkpoint import EMBEDDED_FOLDER
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.decoder.losses import cover_cells, dice_loss, mask_loss
from vlm_adapters.embedded import embedded_checkpoints

EXTRACT_BATCH, PHRASE_BATCH = 8, 32
LEARNING_RATE = 2e-3
WARM_UP = 50
REPORT_EVERY = 100


@dataclass(frozen=True)
class Training:
    """How a decoder is trained.

    Attributes:
        scenes: Number of scenes of each kind, which are the same for every seed.
        steps: Number of batches.
        data: Kind of the scenes: `"easy"`, `"hard"` or `"both"`.
        reduce: How the rows of a phrase's tokens become one map, as in `GridRequest`.
        width: Channels of the U-Net's first stage.
        seed: Of the first weights and of the batches.
    """

    scenes: int = 1500
    steps: int = 2500
    data: str = "both"
    reduce: Literal["mean", "max", "last"] = "last"
    width: int = 16
    seed: int = 0


@dataclass(frozen=True)
class PhraseMaps:
    """The phrases of all scenes with one grid that have a mask.

    Attributes:
        maps: `(P, C, h, w)` float16 attention.
        masks: `(P, h', w')` uint8, 255 where the object covers all of a pixel of the decoder's canvas.
    """

    maps: Tensor
    masks: Tensor


def extract_maps(vlm: GroundedVLM, sets: Sequence[Dataset]) -> list[PhraseMaps]:
    """Run the backbone over data sets, once, and group the phrases that have a mask by the shape of the grid."""
    groups: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for samples in sets:
        for start in range(0, len(samples), EXTRACT_BATCH):
            batch = list(samples[start : start + EXTRACT_BATCH])
            for sample, features in zip(batch, vlm.features([sample.prompt for sample in batch]), strict=True):
                there = sample.masks.any(axis=(1, 2))
                maps, box = features.maps[torch.from_numpy(there).to(features.maps.device)], features.box
                size = vlm.decoder.unet.config.output_size(maps.shape[2], maps.shape[3])
                masks = cover_cells(sample.masks[there], box, size)
                groups[tuple(maps.shape[2:])].append((maps.half(), (masks * 255).round().byte().to(maps.device)))
    return [PhraseMaps(*(torch.cat(parts) for parts in zip(*group, strict=True))) for group in groups.values()]


def fit(vlm: GroundedVLM, groups: Sequence[PhraseMaps], steps: int, seed: int = 0) -> None:
    """Train the decoder with binary cross entropy and Dice loss, each of weight 1, on batches drawn by a seed."""
    # Convolutions on a processor are faster with the channels last.
    unet = vlm.decoder.train().unet.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(unet.parameters(), weight_decay=0.01)
    for step, (maps, masks) in enumerate(_batches(groups, steps, seed)):
        rate = LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(maps.device.type, torch.bfloat16):
            logits = unet(maps)
        loss = mask_loss(logits, masks) + dice_loss(logits, masks)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % REPORT_EVERY == 0:
            print(f"{step + 1:5d}  loss {loss.item():.3f}", flush=True)
    vlm.decoder.eval().to(memory_format=torch.contiguous_format)


def _batches(groups: Sequence[PhraseMaps], steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random phrases of one grid, mirrored at random: attention maps have no preferred side."""
    rng = np.random.default_rng(seed)
    sizes = np.array([len(group.maps) for group in groups])
    for _ in range(steps):
        group = groups[rng.choice(len(groups), p=sizes / sizes.sum())]
        chosen = torch.from_numpy(rng.integers(0, len(group.maps), PHRASE_BATCH)).to(group.maps.device)
        sides = [side for side in (-1, -2) if rng.random() < 0.5]
        yield group.maps[chosen].float().flip(sides), group.masks[chosen].float().div(255).flip(sides)


def train_decoder(adapter: BackboneAdapter, chosen: Training) -> GroundedVLM:
    """Give an adapter, which stays as it is, a decoder trained on its attention, without a presence head."""
    torch.manual_seed(chosen.seed)
    request = FeatureRequest(GridRequest(reduce=chosen.reduce))
    vlm = GroundedVLM.untrained(adapter, request, base_width=chosen.width)
    vlm.decoder.to(adapter.info.device)
    fit(vlm, extract_maps(vlm, data_of(chosen.data, chosen.scenes, TRAIN_SEED)), chosen.steps, chosen.seed)
    return vlm


def main() -> None:
    """Read the command line, train, and write the decoder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen2_5_vl", help="an embedded checkpoint, or a directory")
    parser.add_argument("--out", type=Path, help="by default, beside the embedded checkpoint")
    parser.add_argument("--scenes", type=int, default=Training.scenes, help="of each kind")
    parser.add_argument("--steps", type=int, default=Training.steps)
    parser.add_argument("--seed", type=int, default=Training.seed, help="of the first weights and of the batches")
    parser.add_argument("--data", choices=("easy", "hard", "both"), default=Training.data, help="kind of scenes")
    parser.add_argument("--reduce", choices=("mean", "max", "last"), default=Training.reduce, help="rows to one map")
    parser.add_argument("--width", type=int, default=Training.width, help="channels of the U-Net's first stage")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--presence-only", action="store_true", help="keep the masks of the decoder that is there")
    arguments = parser.parse_args()
    out = arguments.out or embedded_checkpoints().get(arguments.model, Path(arguments.model)) / EMBEDDED_FOLDER
    adapter = load_adapter(arguments.model, device=arguments.device)
    if arguments.presence_only:
        vlm = GroundedVLM.from_pretrained(arguments.model, adapter=adapter)
    else:
        chosen = Training(**{field.name: getattr(arguments, field.name) for field in fields(Training)})
        vlm = train_decoder(adapter, chosen)
    fit_presence(vlm, arguments.data, arguments.scenes).save_pretrained(out)
    print(f"Wrote {out}")


if __name__ == "__main__":
    main()
