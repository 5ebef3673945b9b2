"""Give a decoder that has learned masks a presence head: learned on some scenes, calibrated on others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from absent_scenes import AbsentScenes, reworded
from torch import Tensor, nn

from vlm_adapters import GroundedVLM, MaskDecoder
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.hard_scenes import HardScenes
from vlm_adapters.decoder import Calibration, PhraseFeatures, PresenceHead, presence_loss

TRAIN_SEED, CALIBRATION_SEED = 3, 7
"""Seeds of scenes that the backbones have not seen, and that nothing is measured on."""
CALIBRATION_SCENES = 500
REWORDED = 0.3
"""Share of the scenes whose sentences are put in other words: people ask with phrases of their own."""
EPOCHS, BATCH, EXTRACT_BATCH = 12, 16, 8
LEARNING_RATE, WARM_UP = 3e-3, 0.1


@dataclass(frozen=True)
class Evidence:
    """What the head reads of a scene, and the truth.

    Attributes:
        features: What was read of it, in half the precision.
        coarse: `(P, h', w')` logits of its masks.
        present: `(P,)` bool.
    """

    features: PhraseFeatures
    coarse: Tensor
    present: Tensor


def data_of(kind: str, count: int, seed: int) -> list[Dataset]:
    """The scenes of a kind, `"easy"` or `"hard"`, or as many of both: `"both"`."""
    sets: dict[str, Dataset] = {"easy": AbsentScenes(count, seed=seed), "hard": HardScenes(count, seed=seed)}
    return list(sets.values()) if kind == "both" else [sets[kind]]


@torch.no_grad()
def collect(vlm: GroundedVLM, sets: Sequence[Dataset]) -> Iterator[Evidence]:
    """Run backbone and masks over scenes, once; some of them are in other words."""
    rng = np.random.default_rng(0)
    for scenes in sets:
        for start in range(0, len(scenes), EXTRACT_BATCH):
            samples = list(scenes[start : start + EXTRACT_BATCH])
            samples = [reworded(rng, sample) if rng.random() < REWORDED else sample for sample in samples]
            features = vlm.features([sample.prompt for sample in samples])
            for sample, of_sample, logits in zip(samples, features, vlm.decoder(features), strict=True):
                hidden = tuple(states.half() for states in of_sample.hidden)
                half = replace(of_sample, maps=of_sample.maps.half(), hidden=hidden)
                there = torch.from_numpy(sample.masks.any(axis=(1, 2))).to(logits.coarse.device)
                yield Evidence(half, logits.coarse.half(), there)


def fit_presence(vlm: GroundedVLM, kind: str, scenes: int, epochs: int = EPOCHS) -> GroundedVLM:
    """Learn presence on scenes, and calibrate it on others; the masks stay as they are."""
    torch.manual_seed(0)
    head = PresenceHead.of(vlm.adapter.info, vlm.decoder.unet.config.channels)
    vlm = GroundedVLM(vlm.adapter, MaskDecoder(vlm.decoder.unet, vlm.decoder.request, None, head)).eval()
    vlm.decoder.to(vlm.adapter.info.device)
    learned = list(collect(vlm, data_of(kind, scenes, TRAIN_SEED)))
    _fit(head, learned, epochs)
    del learned
    judged = list(collect(vlm, data_of(kind, CALIBRATION_SCENES, CALIBRATION_SEED)))
    with torch.no_grad():
        logits = torch.cat([head(scene.features, scene.coarse) for scene in judged])
    head.calibration = Calibration.of(
        logits.cpu().numpy(), torch.cat([scene.present for scene in judged]).cpu().numpy()
    )
    print(head.calibration, flush=True)
    return vlm


def _fit(head: PresenceHead, scenes: Sequence[Evidence], epochs: int) -> None:
    optimizer, rng = torch.optim.AdamW(head.parameters(), weight_decay=0.01), np.random.default_rng(0)
    per_epoch = math.ceil(len(scenes) / BATCH)
    for epoch in range(epochs):
        total = 0.0
        for number, batch in enumerate(np.array_split(rng.permutation(len(scenes)), per_epoch)):
            done = (epoch * per_epoch + number) / (epochs * per_epoch)
            rate = LEARNING_RATE * min(1.0, (done + 0.5 / per_epoch) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * done))
            optimizer.param_groups[0]["lr"] = rate
            chosen = [scenes[index] for index in batch]
            logits = torch.cat([head(scene.features, scene.coarse) for scene in chosen])
            loss = presence_loss(logits, torch.cat([scene.present for scene in chosen]))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            total += loss.item()
        print(f"presence, epoch {epoch + 1:2d}  loss {total / per_epoch:.3f}", flush=True)
