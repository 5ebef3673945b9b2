"""Train an embedded backbone further, on hard scenes, in other words, and on questions; on two processor cores.

    python examples/lab/train_on_hard_scenes.py tiny-llava --state FOLDER [--vision-steps 2000] [--text-steps 6000]
        [--out DIR]

Not finished: the embedded models are those of `train_tiny_backbone.py`. An earlier form of this script ran 1,400 steps
of the vision stage for tiny-llava (91 % of the cells of training scenes then named their shape), and 20 of the other.

It begins with the weights of the embedded model, in one with more layers and a finer image, which at first does what
the smaller one did. Then:

1. **Vision stage.** The tower names colour, shape, dot, texture and size at every image token, from the truth masks.
2. **Text stage.** The tower stands still, so its features are computed once. The language model learns to write
   descriptions and answers, and temporary heads over its hidden states learn which image tokens a phrase refers to,
   where a relation starts from, and whether the thing is there. No loss touches its attention.

Scenes, features and both stages' states are kept in FOLDER: the same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

# Spinning threads starve the process that writes the texts; OpenMP reads this once, when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import scene_texts
import torch
from dense_labels import DenseHead
from fast_attention import attend_text
from packed_scenes import PackedScene, packed
from text_batches import IGNORED, TextBatch, TextBatches, TextEncoder
from tiny_deepseek_vl import TinyDeepseek
from tiny_family import TinyFamily
from tiny_llava import TinyLlava
from tiny_qwen2_5_vl import TinyQwen
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from warm_start import warm_start

from vlm_adapters.embedded import embedded_checkpoints

TRAIN_SEED = 21
HARD, EASY = 12_000, 4_000
LEARNING_RATE, WARM_UP = 1e-3, 100
VISION_BATCH, TEXT_BATCH, TEXTS = 32, 16, 24
WHERE_WIDTH = 64
REPORT_EVERY, SAVE_EVERY = 20, 100


class LargerLlava(TinyLlava):
    """With more layers, and patches that show more of small things at no more tokens."""

    side, patch, tower_layers, language_layers = 192, 12, 6, 6
    words = scene_texts.corpus()


class LargerDeepseek(TinyDeepseek):
    """With more layers, and patches that show more of small things at no more tokens."""

    side, patch, tower_layers, language_layers = 192, 12, 5, 6
    words = scene_texts.corpus()


class LargerQwen(TinyQwen):
    """With more layers."""

    tower_layers, language_layers = 5, 6
    words = scene_texts.corpus()


FAMILIES: dict[str, type[TinyFamily]] = {family.name: family for family in (LargerLlava, LargerDeepseek, LargerQwen)}


class Trainee(nn.Module):
    """The stock model and the temporary heads."""

    def __init__(self, family: TinyFamily, model: PreTrainedModel) -> None:
        super().__init__()
        self.family, self.model = family, model
        self.dense = DenseHead(family.vision_width)
        self.query = nn.Linear(family.vision_width, 2 * WHERE_WIDTH)
        self.key = nn.Linear(2 * family.vision_width, 2 * WHERE_WIDTH)
        self.bias = nn.Parameter(torch.full((2,), -2.0))
        self.presence = nn.Linear(family.vision_width, 1)

    def see(self, scenes: Sequence[PackedScene]) -> Tensor:
        """Image features `(B, h * w, D)` of scenes of one size."""
        return self.family.see(self.model, self.family.normalise(torch.stack([scene.pixels for scene in scenes])))

    def read(self, question: Tensor, texts: Tensor, features: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Hidden states of texts `(B, K, S, D)` after the last layer, of image tokens `(B, h * w, D)` before it."""
        text, (B, K, S), Q = self.model.model.language_model, texts.shape, len(question)
        image = question == self.family.processor.image_token_id
        asked = text.embed_tokens(question).expand(B, -1, -1).masked_scatter(image[None, :, None], features.float())
        hidden = torch.cat([asked, text.embed_tokens(texts).flatten(1, 2)], 1)
        tables = text.rotary_emb(hidden, self.family.positions(self.model, image, grid, (K, S)))
        late = hidden
        for number, layer in enumerate(text.layers):
            # What the last layer says of the image is not read.
            start, late = (Q, hidden[:, :Q][:, image]) if number + 1 == len(text.layers) else (0, late)
            mixed = attend_text(layer.self_attn, layer.input_layernorm(hidden), tables, (Q, K), start)
            hidden = hidden[:, start:] + mixed
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return text.norm(hidden).unflatten(1, (K, S)), late

    def text_losses(
        self, batch: TextBatch, features: Tensor, question: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch of texts, and figures to watch."""
        hidden, late = self.read(question, batch.ids, features, grid)
        answers = batch.targets != IGNORED
        writing = F.cross_entropy(self.model.lm_head(hidden[answers]).float(), batch.targets[answers])
        rows, columns, positions = batch.at.unbind(1)
        referring = hidden[rows, columns, positions]
        seen = torch.cat([features.to(late.dtype), F.layer_norm(late.float(), late.shape[-1:]).to(late.dtype)], -1)
        queries, keys = (x.float().unflatten(-1, (2, -1)) for x in (self.query(referring), self.key(seen)))
        logits = torch.einsum("mcw,mncw->mcn", queries, keys[rows]) / math.sqrt(WHERE_WIDTH) + self.bias[:, None]
        where, anchor = logits.unbind(1)
        cells, anchored = batch.cells, batch.anchors[:, 0] != IGNORED
        found = where.sigmoid()
        dice = 1 - (2 * (found * cells).sum(1) + 1) / (found.sum(1) + cells.sum(1) + 1)
        losses = {
            "writing": writing,
            "where": 4 * F.binary_cross_entropy_with_logits(where, cells) + dice.mean(),
            "anchor": 2
            * F.binary_cross_entropy_with_logits(anchor, batch.anchors, anchored[:, None].float())
            / anchored.float().mean().clamp(min=0.01),
            "presence": 0.3
            * F.binary_cross_entropy_with_logits(self.presence(referring)[:, 0].float(), batch.present.float()),
        }
        watched = {name: float(loss.detach()) for name, loss in losses.items()}
        both, either = (where > 0) & (cells > 0.5), (where > 0) | (cells > 0.5)
        overlap = both.sum(1) / either.sum(1).clamp(min=1)
        whole = batch.final & batch.present
        for name, chosen in (("IoU of names", whole & ~anchored), ("IoU of relations", whole & anchored)):
            if chosen.any():
                watched[name] = float(overlap[chosen].mean())
        return torch.stack(list(losses.values())).sum(), watched


def rate_at(step: int, steps: int) -> float:
    """Warm-up, flat, and a cosine's fall to nothing over the last 60 %."""
    late = max(0.0, (step / steps - 0.4) / 0.6)
    return LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, late)))


class Stage:
    """A stage of training whose state is kept in a file.

    Args:
        trainee: What is trained.
        parameters: Which of its parameters.
        file: The state.
        steps: How many in all.
    """

    def __init__(self, trainee: Trainee, parameters: Sequence[nn.Parameter], file: Path, steps: int) -> None:
        self._trainee, self._parameters, self._file, self._steps = trainee, parameters, file, steps
        self._optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.01)
        self.done = 0
        if file.exists():
            saved = torch.load(file, weights_only=True)
            trainee.load_state_dict(saved["trainee"])
            self._optimizer.load_state_dict(saved["optimizer"])
            self.done = saved["step"]

    def run(self, batches: Iterator[tuple[Tensor, dict[str, float]]]) -> None:
        """Descend the losses that an iterator computes, one step each."""
        watched: dict[str, float] = {}
        started = time.monotonic()
        for step in range(self.done, self._steps):
            for group in self._optimizer.param_groups:
                group["lr"] = rate_at(step, self._steps)
            with torch.autocast("cpu", torch.bfloat16):
                loss, figures = next(batches)
            loss.backward()
            nn.utils.clip_grad_norm_(self._parameters, 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad()
            watched |= {name: 0.95 * watched.get(name, value) + 0.05 * value for name, value in figures.items()}
            if (step + 1) % REPORT_EVERY == 0:
                pace = (time.monotonic() - started) / (step + 1 - self.done)
                line = "  ".join(f"{name} {value:.3f}" for name, value in watched.items())
                print(f"{step + 1:5d} {pace:.2f} s  {line}", flush=True)
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == self._steps:
                saved = {
                    "trainee": self._trainee.state_dict(),
                    "optimizer": self._optimizer.state_dict(),
                    "step": step + 1,
                }
                torch.save(saved, self._file.with_suffix(".new"))
                self._file.with_suffix(".new").replace(self._file)


def vision_losses(
    trainee: Trainee, scenes: Sequence[PackedScene], seed: int
) -> Iterator[tuple[Tensor, dict[str, float]]]:
    """Losses of the vision stage on batches of scenes of one size."""
    rng, sizes = np.random.default_rng(seed), defaultdict(list)
    for scene in scenes:
        sizes[scene.pixels.shape].append(scene)
    groups = list(sizes.values())
    shares = np.array([len(group) for group in groups]) / len(scenes)
    while True:
        group = groups[int(rng.choice(len(groups), p=shares))]
        batch = [group[index] for index in rng.integers(len(group), size=VISION_BATCH)]
        loss, right = trainee.dense.losses(trainee.see(batch), batch)
        yield loss, {"loss": float(loss.detach()), "shapes of cells": right}


def text_losses(
    trainee: Trainee, scenes: Sequence[PackedScene], features: Sequence[Tensor], seed: int
) -> Iterator[tuple[Tensor, dict[str, float]]]:
    """Losses of the text stage; another process writes the texts."""
    texts = TextBatches(trainee.family, scenes, TEXT_BATCH, TEXTS, seed)
    encoder = TextEncoder(trainee.family)
    for batch in DataLoader(texts, batch_size=None, num_workers=1, prefetch_factor=4):
        numbers = batch.scenes.tolist()
        seen = torch.stack([features[number] for number in numbers])
        rows, columns = scenes[numbers[0]].cover.shape[1:]
        yield trainee.text_losses(batch, seen, encoder.question(rows * columns), (rows, columns))


def all_features(trainee: Trainee, scenes: Sequence[PackedScene]) -> list[Tensor]:
    """What the tower says of every scene, `(h * w, D)` bfloat16."""
    sizes = defaultdict(list)
    for number, scene in enumerate(scenes):
        sizes[scene.pixels.shape].append(number)
    found: dict[int, Tensor] = {}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for numbers in sizes.values():
            for start in range(0, len(numbers), VISION_BATCH):
                part = numbers[start : start + VISION_BATCH]
                found |= zip(part, trainee.see([scenes[number] for number in part]).bfloat16(), strict=True)
    return [found[number].clone() for number in range(len(scenes))]


def main() -> None:
    """Read the command line, train, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=FAMILIES)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--vision-steps", type=int, default=2000)
    parser.add_argument("--text-steps", type=int, default=6000)
    parser.add_argument("--out", type=Path, help="where the checkpoint is written")
    arguments = parser.parse_args()
    family_class = FAMILIES[arguments.name]
    scenes = [
        *packed(family_class, "hard", TRAIN_SEED, HARD, arguments.state / "scenes"),
        *packed(family_class, "easy", TRAIN_SEED, EASY, arguments.state / "scenes"),
    ]
    family = family_class()
    trainee = Trainee(family, family.build_model())
    warm_start(trainee.model, family.processor.tokenizer, embedded_checkpoints()[arguments.name])
    vision = Stage(trainee, list(trainee.parameters()), arguments.state / "vision.pt", arguments.vision_steps)
    vision.run(vision_losses(trainee, scenes, vision.done))
    features = all_features(trainee, scenes)
    tower = {*trainee.dense.parameters(), *trainee.model.parameters()} - {
        *trainee.model.model.language_model.parameters()
    }
    learning = [parameter for parameter in trainee.parameters() if parameter not in tower]
    for parameter in tower:
        parameter.requires_grad_(requires_grad=False)
    text = Stage(trainee, learning, arguments.state / "text.pt", arguments.text_steps)
    text.run(text_losses(trainee, scenes, features, text.done))
    if arguments.out:
        family.save(trainee.model, arguments.out)
        print(f"Wrote {arguments.out}")


if __name__ == "__main__":
    main()
