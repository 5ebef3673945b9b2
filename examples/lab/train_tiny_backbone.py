"""Train an embedded tiny backbone from scratch on synthetic scenes, on two processor cores in under an hour.

    python examples/lab/train_tiny_backbone.py tiny-qwen2_5_vl --out SMALL [--resume]

First the vision tower learns, from the truth masks, to name colour, shape and dot at every image token. Then all
weights learn to write the captions. No loss ever touches the attention of the language model: where its words look
is what they needed to see.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Spinning threads starve the process that draws the scenes; OpenMP reads this once, when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from fast_attention import attend_text
from scene_batches import COLOUR_WORDS, DOT_WORDS, IGNORED, REACH, Batch, SceneBatches
from tiny_deepseek_vl import TinyDeepseek
from tiny_family import TinyFamily
from tiny_llava import TinyLlava
from tiny_qwen2_5_vl import TinyQwen
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from vlm_adapters.data.formats.scenes import SHAPES, Scenes

FAMILIES: dict[str, type[TinyFamily]] = {family.name: family for family in (TinyQwen, TinyLlava, TinyDeepseek)}
TRAIN_SEED, WATCH_SEED = 1, 2
LEARNING_RATE = 2e-3
WARM_UP = 100
EASY_STEPS = 200
VISION_BATCH, CAPTION_BATCH = 32, 16
NAMING_WEIGHT = 0.3
REPORT_EVERY, SAVE_EVERY = 20, 100


class Trainee(nn.Module):
    """The stock model, run over batches of equal grids with several answers to one image, and the temporary head."""

    def __init__(self, family: TinyFamily, model: PreTrainedModel) -> None:
        super().__init__()
        self.family = family
        self.model = model
        self.classes = tuple(len(words) + 1 for words in (COLOUR_WORDS, SHAPES, DOT_WORDS))
        self.head = nn.Linear(family.vision_width, sum(self.classes) + (2 * REACH + 1) ** 2)

    def see(self, pixels: Tensor) -> Tensor:
        """Image features `(B, h * w, D)` of equal-sized images, as the stock model has them."""
        return self.family.see(self.model, self.family.normalise(pixels))

    def name(self, features: Tensor) -> tuple[Tensor, ...]:
        """Logits of colour, shape, dot and the cells around, at every image token, each `(B, h * w, classes)`."""
        logits = self.head(features).float()
        return logits.split((*self.classes, logits.shape[-1] - sum(self.classes)), -1)

    def write(self, question: Tensor, answers: Tensor, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """Logits `(B, K, S, V)` of the tokens that follow those of the answers; each answer sees the question alone."""
        text, (B, K, S) = self.model.model.language_model, answers.shape
        Q, image = len(question), question == self.family.processor.image_token_id
        positions = self.family.positions(self.model, image, grid, (K, S))
        asked = text.embed_tokens(question).expand(B, -1, -1)
        asked = asked.masked_scatter(image[None, :, None], features.to(asked.dtype))
        hidden = torch.cat([asked, text.embed_tokens(answers).flatten(1, 2)], 1)
        tables = text.rotary_emb(hidden, positions)
        for number, layer in enumerate(text.layers):
            # What the last layer says of the question is not read.
            start = Q if number + 1 == len(text.layers) else 0
            mixed = attend_text(layer.self_attn, layer.input_layernorm(hidden), tables, (Q, K), start)
            hidden = hidden[:, start:] + mixed
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return self.model.lm_head(text.norm(hidden)).unflatten(1, (K, S))

    def shape_words_right(self, logits: Tensor, shapes: Tensor) -> float:
        """Share of the words after a colour that name a shape of this colour not named before; see `Batch.shapes`."""
        tokens = self.family.processor.tokenizer.convert_tokens_to_ids([f"Ġ{shape}" for shape in SHAPES])
        bits = torch.zeros(logits.shape[-1], dtype=torch.long)
        bits[tokens] = 2 ** torch.arange(len(SHAPES))
        asked = shapes > 0
        return float((bits[logits.argmax(-1)[asked]] & shapes[asked]).bool().float().mean())


def assert_equal_to_stock(trainee: Trainee) -> None:
    """Hold the fast way through the modules against the stock processor and model.

    Raises:
        RuntimeError: They differ.
    """
    family = trainee.family
    for sample in Scenes(3, seed=WATCH_SEED):
        pixels = family.resize(sample.image)
        batch = SceneBatches(family, 0, 1).collate([(sample, pixels)], np.random.default_rng(0))
        with torch.no_grad():
            features = trainee.see(batch.pixels)
            found = trainee.write(batch.question, batch.answers, features, family.grid(pixels))[0]
        for logits, answer, targets in zip(found, batch.answers[0], batch.targets[0], strict=True):
            said = answer[targets != IGNORED]
            text = family.chat(family.processor.decode(said[1:]).strip())
            inputs = family.processor(text=[text], images=[family.present(sample.image)], return_tensors="pt")
            ids = torch.cat([batch.question, said])
            same = torch.equal(ids, inputs["input_ids"][0, : len(ids)])
            with torch.no_grad():
                expected = trainee.model(**inputs).logits[0, len(batch.question) : len(ids)]
            if not same or not torch.allclose(expected, logits[: len(said)], atol=1e-3):
                raise RuntimeError(f"Training differs from the stock modules on {sample.id}.")


@dataclass(frozen=True)
class Losses:
    """What one batch says: losses to descend and accuracies to watch, `nan` where not measured."""

    naming: Tensor
    around: Tensor
    caption: Tensor
    cell_shape: float
    shape_word: float

    @classmethod
    def of(cls, trainee: Trainee, batch: Batch, *, captions: bool) -> Losses:
        """Run the model on a batch, the language model only if `captions`."""
        with torch.autocast("cpu", torch.bfloat16):
            features = trainee.see(batch.pixels)
            names = trainee.name(features)
            colour, shape, dot = (
                F.cross_entropy(logits.flatten(0, 1), batch.cells[:, kind].flatten(), ignore_index=IGNORED)
                for kind, logits in enumerate(names[:3])
            )
            owned = batch.around[..., 0] != IGNORED
            around = F.binary_cross_entropy_with_logits(names[3][owned], batch.around[owned])
            naming = colour + 2 * shape + dot + 2 * around
            truth = batch.cells[:, 1]
            shaped = (truth >= 0) & (truth < len(SHAPES))
            cell_shape = float((names[1].argmax(-1) == truth)[shaped].float().mean())
            if not captions:
                return cls(naming, around, naming.new_zeros(()), cell_shape, math.nan)
            grid = trainee.family.grid(batch.pixels)
            logits = trainee.write(batch.question, batch.answers, features, grid).float()
        caption = F.cross_entropy(logits.flatten(0, 2), batch.targets.flatten(), ignore_index=IGNORED)
        return cls(naming, around, caption, cell_shape, trainee.shape_words_right(logits, batch.shapes))


def learning_rate(family: TinyFamily, step: int) -> float:
    """Warm-up at the start of both stages, flat, and a cosine's fall to nothing in the second half of the captions."""
    caption = step - family.vision_steps
    warm = min(1.0, ((caption if caption >= 0 else step) + 1) / WARM_UP)
    late = max(0.0, 2 * caption / family.caption_steps - 1)
    return LEARNING_RATE * warm * (0.5 + 0.5 * math.cos(math.pi * late))


def train(trainee: Trainee, state: Path, *, resume: bool) -> None:
    """Run both stages, saving everything to `state` now and then."""
    family = trainee.family
    optimizer = torch.optim.AdamW(trainee.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    done = 0
    if resume and state.exists():
        saved = torch.load(state, weights_only=True)
        trainee.load_state_dict(saved["trainee"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["step"]
    held_out = list(itertools.islice(SceneBatches(family, WATCH_SEED, 32), 3))
    started, total = time.monotonic(), family.vision_steps + family.caption_steps
    for step, batch in zip(range(done, total), _stream(family, done), strict=False):
        captions = step >= family.vision_steps
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(family, step)
        losses = Losses.of(trainee, batch, captions=captions)
        weight = NAMING_WEIGHT if captions else 1.0
        (losses.caption + weight * losses.naming).backward()
        nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % REPORT_EVERY == 0:
            pace = (time.monotonic() - started) / (step + 1 - done)
            _report(f"{step + 1:5d} {pace:.2f} s", losses)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == total:
            with torch.no_grad():
                for held in held_out:
                    _report("  held out", Losses.of(trainee, held, captions=captions))
            saved = {"trainee": trainee.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(saved, state.with_suffix(".new"))
            state.with_suffix(".new").replace(state)


def _report(title: str, losses: Losses) -> None:
    print(
        f"{title}  naming {losses.naming:.3f}  around {losses.around:.3f}  cells' shape {losses.cell_shape:.3f}  "
        f"caption {losses.caption:.3f}  shape word {losses.shape_word:.3f}",
        flush=True,
    )


def _stream(family: TinyFamily, done: int) -> Iterator[Batch]:
    """Batches for the steps from `done` on, drawn by another process; easy scenes where the captions begin."""
    vision, total = family.vision_steps, family.vision_steps + family.caption_steps
    for steps, images, objects in (
        (range(vision), VISION_BATCH, (2, 4)),
        (range(vision, vision + EASY_STEPS), CAPTION_BATCH, (1, 2)),
        (range(vision + EASY_STEPS, total), CAPTION_BATCH, (2, 4)),
    ):
        if (left := steps.stop - max(done, steps.start)) > 0:
            first = max(done, steps.start) * VISION_BATCH
            scenes = SceneBatches(family, TRAIN_SEED, images, first, objects)
            loader = DataLoader(scenes, batch_size=None, num_workers=1, prefetch_factor=8)
            yield from itertools.islice(loader, left)


def main() -> None:
    """Read the command line, train, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=FAMILIES)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the checkpoint")
    parser.add_argument("--resume", action="store_true", help="go on from the last saved state")
    parser.add_argument("--state", type=Path, help="where the state is saved; by default, a temporary file")
    parser.add_argument("--threads", type=int, help="processor threads, fewer where two train beside each other")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    family = FAMILIES[arguments.name]()
    trainee = Trainee(family, family.build_model())
    assert_equal_to_stock(trainee)
    train(
        trainee,
        arguments.state or Path(tempfile.gettempdir()) / f"{family.name}.state",
        resume=arguments.resume,
    )
    assert_equal_to_stock(trainee)
    family.save(trainee.model, arguments.out)
    print(f"Wrote {arguments.out}")


if __name__ == "__main__":
    main()
