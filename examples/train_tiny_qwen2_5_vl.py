"""Train the embedded tiny Qwen2.5-VL from scratch on synthetic scenes, on two processor cores in under an hour.

    python examples/train_tiny_qwen2_5_vl.py [--out DIR] [--resume]

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
from fast_attention import attend_text, attend_vision, group_windows
from scene_batches import COLOUR_WORDS, DOT_WORDS, IGNORED, REACH, Batch, SceneBatches, resize
from tiny_qwen2_5_vl import build_model, build_processor, chat, save
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows
from torch.utils.data import DataLoader
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from vlm_adapters.data.scenes import SHAPES, Scenes

TRAIN_SEED, WATCH_SEED = 1, 2
LEARNING_RATE = 2e-3
WARM_UP = 100
VISION_STEPS, EASY_STEPS, CAPTION_STEPS = 1200, 200, 1800
VISION_BATCH, CAPTION_BATCH = 32, 16
NAMING_WEIGHT = 0.3
REPORT_EVERY, SAVE_EVERY = 20, 100


class Trainee(nn.Module):
    """The stock model, run over batches of equal grids without its loop over pictures, and the temporary head."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor) -> None:
        super().__init__()
        self.model = model
        self._processor = processor
        self.classes = tuple(len(words) + 1 for words in (COLOUR_WORDS, SHAPES, DOT_WORDS))
        self.head = nn.Linear(model.config.vision_config.out_hidden_size, sum(self.classes) + (2 * REACH + 1) ** 2)

    def see(self, pixels: Tensor) -> Tensor:
        """Image features `(B, h * w, D)` of equal-sized pictures, as the stock vision tower gives them."""
        tower, images = self.model.model.visual, self._processor.image_processor
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (images.image_mean, images.image_std))
        patches, rows, columns = images.patchify((pixels / 255 - mean) / std, images.patch_size, images.merge_size, 1)
        # The processor repeats a picture along time, so the convolution's two slices add up.
        hidden = F.linear(patches, tower.patch_embed.proj.weight.sum(2).flatten(1))
        grid = torch.tensor([[1, rows, columns]])
        index, edges = get_vision_window_index(grid, tower.spatial_merge_size, tower.window_size, tower.patch_size)
        unit = tower.spatial_merge_unit
        order = (index[:, None] * unit + torch.arange(unit)).flatten()
        cosine, sine = (
            table[order]
            for table in tower.rotary_pos_emb(hidden, get_vision_position_ids(grid, tower.spatial_merge_size))
        )
        hidden = hidden[:, order]
        whole, windows = [torch.arange(rows * columns)[None]], group_windows(edges)
        for number, block in enumerate(tower.blocks):
            groups = whole if number in tower.fullatt_block_indexes else windows
            hidden = hidden + attend_vision(block.attn, block.norm1(hidden), groups, (cosine, sine))
            hidden = hidden + block.mlp(block.norm2(hidden))
        merged = tower.merger.mlp(tower.merger.ln_q(hidden).view(len(pixels), len(index), -1))
        return merged[:, index.argsort()]

    def name(self, features: Tensor) -> tuple[Tensor, ...]:
        """Logits of colour, shape, dot and the cells around, at every image token, each `(B, h * w, classes)`."""
        logits = self.head(features).float()
        return logits.split((*self.classes, logits.shape[-1] - sum(self.classes)), -1)

    def write(self, question: Tensor, answers: Tensor, features: Tensor, grid: Tensor) -> Tensor:
        """Logits `(B, K, S, V)` of the tokens that follow those of the answers; each answer sees the question alone."""
        text, (B, K, S) = self.model.model.language_model, answers.shape
        image = question == self._processor.image_token_id
        positions, shift = self.model.model.get_rope_index(
            question[None], mm_token_type_ids=image[None].int(), image_grid_thw=grid
        )
        Q = len(question)
        later = (Q + shift + torch.arange(S)).expand(3, K, S).reshape(3, 1, K * S)
        asked = text.embed_tokens(question).expand(B, -1, -1)
        asked = asked.masked_scatter(image[None, :, None], features.to(asked.dtype))
        hidden = torch.cat([asked, text.embed_tokens(answers).flatten(1, 2)], 1)
        tables = text.rotary_emb(hidden, torch.cat([positions, later], 2))
        for number, layer in enumerate(text.layers):
            # What the last layer says of the question is not read.
            start = Q if number + 1 == len(text.layers) else 0
            mixed = attend_text(layer.self_attn, layer.input_layernorm(hidden), tables, (Q, K), start)
            hidden = hidden[:, start:] + mixed
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return self.model.lm_head(text.norm(hidden)).unflatten(1, (K, S))

    def shape_words_right(self, logits: Tensor, shapes: Tensor) -> float:
        """Share of the words after a colour that name a shape of this colour not named before; see `Batch.shapes`."""
        tokens = self._processor.tokenizer.convert_tokens_to_ids([f"Ġ{shape}" for shape in SHAPES])
        bits = torch.zeros(logits.shape[-1], dtype=torch.long)
        bits[tokens] = 2 ** torch.arange(len(SHAPES))
        asked = shapes > 0
        return float((bits[logits.argmax(-1)[asked]] & shapes[asked]).bool().float().mean())


def assert_equal_to_stock(trainee: Trainee, processor: Qwen2_5_VLProcessor) -> None:
    """Hold the fast way through the modules against the stock processor and model.

    Raises:
        RuntimeError: They differ.
    """
    for sample in Scenes(3, seed=WATCH_SEED):
        rng, batches = np.random.default_rng(0), SceneBatches(processor, 0, 1)
        batch = batches.collate([(sample, resize(processor, sample))], rng)
        for k, answer in enumerate(batch.answers[0]):
            said = answer[batch.targets[0, k] != IGNORED]
            text = chat(processor, processor.decode(said).removeprefix("\n"))
            inputs = processor(text=[text], images=[sample.image], return_tensors="pt")
            with torch.no_grad():
                found = trainee.write(
                    batch.question, batch.answers, trainee.see(batch.pixels), inputs["image_grid_thw"]
                )
                expected = trainee.model(**inputs).logits[0, len(batch.question) : -2]
            ids = torch.cat([batch.question, said])
            same = torch.equal(ids, inputs["input_ids"][0, :-2])
            if not same or not torch.allclose(expected, found[0, k, : len(said)], atol=1e-3):
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
            size = trainee.model.config.vision_config.patch_size
            grid = torch.tensor([[1, batch.pixels.shape[2] // size, batch.pixels.shape[3] // size]])
            logits = trainee.write(batch.question, batch.answers, features, grid).float()
        caption = F.cross_entropy(logits.flatten(0, 2), batch.targets.flatten(), ignore_index=IGNORED)
        return cls(naming, around, caption, cell_shape, trainee.shape_words_right(logits, batch.shapes))


def learning_rate(step: int) -> float:
    """Warm-up at the start of both stages, flat, and a cosine's fall to nothing in the second half of the captions."""
    warm = min(1.0, (step + 1) / WARM_UP, *([(step - VISION_STEPS + 1) / WARM_UP] if step >= VISION_STEPS else []))
    late = (step - VISION_STEPS - CAPTION_STEPS / 2) / (CAPTION_STEPS / 2)
    return LEARNING_RATE * warm * (0.5 + 0.5 * math.cos(math.pi * max(0.0, late)))


def train(trainee: Trainee, processor: Qwen2_5_VLProcessor, state: Path, *, resume: bool) -> None:
    """Run both stages, saving everything to `state` now and then."""
    optimizer = torch.optim.AdamW(trainee.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    done = 0
    if resume and state.exists():
        saved = torch.load(state, weights_only=True)
        trainee.load_state_dict(saved["trainee"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["step"]
    held_out = list(itertools.islice(SceneBatches(processor, WATCH_SEED, 32), 3))
    started, total = time.monotonic(), VISION_STEPS + CAPTION_STEPS
    for step, batch in zip(range(done, total), _stream(processor, done), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        losses = Losses.of(trainee, batch, captions=step >= VISION_STEPS)
        weight = 1.0 if step < VISION_STEPS else NAMING_WEIGHT
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
                    _report("  held out", Losses.of(trainee, held, captions=step >= VISION_STEPS))
            saved = {"trainee": trainee.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(saved, state.with_suffix(".new"))
            state.with_suffix(".new").replace(state)


def _report(title: str, losses: Losses) -> None:
    print(
        f"{title}  naming {losses.naming:.3f}  around {losses.around:.3f}  cells' shape {losses.cell_shape:.3f}  "
        f"caption {losses.caption:.3f}  shape word {losses.shape_word:.3f}",
        flush=True,
    )


def _stream(processor: Qwen2_5_VLProcessor, done: int) -> Iterator[Batch]:
    """Batches for the steps from `done` on, drawn by another process; easy scenes where the captions begin."""
    hard = VISION_STEPS + EASY_STEPS
    for steps, pictures, objects in (
        (range(VISION_STEPS), VISION_BATCH, (2, 4)),
        (range(VISION_STEPS, hard), CAPTION_BATCH, (1, 2)),
        (range(hard, VISION_STEPS + CAPTION_STEPS), CAPTION_BATCH, (2, 4)),
    ):
        if (left := steps.stop - max(done, steps.start)) > 0:
            first = max(done, steps.start) * VISION_BATCH
            scenes = SceneBatches(processor, TRAIN_SEED, pictures, first, objects)
            loader = DataLoader(scenes, batch_size=None, num_workers=1, prefetch_factor=8)
            yield from itertools.islice(loader, left)


def main() -> None:
    """Read the command line, train, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    package = Path(__file__).resolve().parents[1] / "vlm_adapters"
    parser.add_argument("--out", type=Path, default=package / "embedded" / "tiny-qwen2_5_vl")
    parser.add_argument("--resume", action="store_true", help="go on from the last saved state")
    parser.add_argument("--state", type=Path, default=Path(tempfile.gettempdir()) / "tiny-qwen2_5_vl.state")
    arguments = parser.parse_args()
    processor = build_processor()
    model = build_model(processor)
    trainee = Trainee(model, processor)
    assert_equal_to_stock(trainee, processor)
    train(trainee, processor, arguments.state, resume=arguments.resume)
    assert_equal_to_stock(trainee, processor)
    save(model, processor, arguments.out)
    print(f"Wrote {arguments.out}")


if __name__ == "__main__":
    main()
