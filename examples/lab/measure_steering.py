"""Measure whether an answer follows the region that chosen heads are steered to.

    python examples/lab/measure_steering.py [--model NAME ...] [--count 100] [--choosing 24] [--report FILE]

Scenes of two shapes of one colour: the answer begins with "a red", and either shape would be right. Scores of the image
tokens in the box of one of them are raised in chosen heads, and the likeliest next word should be its shape; each shape
of a scene is steered to in turn. Heads, their number and the strength are chosen on scenes of another seed: heads by
what each alone does to the log probability of the shape in the region, then the number and strength that hit most.
Controls: as many random heads at the same strength, and no steering.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from report import table, write_report
from torch import Tensor

from vlm_adapters import Prompt, TransformersBackbone, load_adapter
from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.data import Sample
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.geometry import Box
from vlm_adapters.grounding import PackedMask
from vlm_adapters.hf import steered_attention

MODELS = ("tiny-qwen2_5_vl", "tiny-llava", "tiny-deepseek_vl")
CHOOSING_SEED = 71
STRENGTHS = (2.0, 4.0, 8.0)
COUNTS = (2, 4, 8, 16)
Heads = Sequence[tuple[int, int]]


class TwoCandidates:
    """A scene of two shapes of one colour, and the beginning of an answer that fits both."""

    def __init__(self, adapter: TransformersBackbone, sample: Sample) -> None:
        self.adapter = adapter
        colour = sample.phrases[0].text.split()[1]
        self.shapes = [phrase.text.split()[2] for phrase in sample.phrases]
        self.boxes: list[Box] = [box for mask in sample.masks if (box := PackedMask.of(mask).box)]
        self.inputs: BackboneInputs = adapter.preprocess(
            [Prompt.describe(sample.image, f"a {colour}", ["a " + colour])]
        )
        self.last = int(self.inputs.phrase_tokens[0][0][-1])

    def word(self, steered: int, heads: Heads, strength: float) -> Tensor:
        """Log probabilities `(V,)` of the next token, with the heads steered to one of the shapes."""
        steering = steered_attention(self.adapter, self.inputs, self.boxes[steered], heads, strength)
        with torch.no_grad(), steering if heads else nullcontext():
            logits: Tensor = self.adapter.model(**self.inputs.tensors).logits[0, self.last]
        return logits.log_softmax(0)

    def follows(self, heads: Heads, strength: float) -> list[bool]:
        """Whether the likeliest word is the shape in the region, for each shape in turn."""
        decode = self.adapter.processor.tokenizer.decode
        words = [decode(self.word(index, heads, strength).argmax()).strip() for index in range(2)]
        return [word == shape for word, shape in zip(words, self.shapes, strict=True)]

    def gains(self, heads: Heads, strength: float) -> float:
        """By how much more the heads favour the shape in the region than they do when steered to the other."""
        token = self.adapter.processor.tokenizer.convert_tokens_to_ids
        ids = [token(f"Ġ{shape}") for shape in self.shapes]
        first, second = (self.word(index, heads, strength)[ids] for index in range(2))
        return float((first[0] - first[1]) - (second[0] - second[1]))


def two_candidates(adapter: TransformersBackbone, count: int, seed: int) -> Iterator[TwoCandidates]:
    """Scenes of two shapes of one colour."""
    found, number = 0, 0
    while found < count:
        sample = Scenes(1, seed=seed, first=number, objects=(2, 2))[0]
        names = [phrase.text.split() for phrase in sample.phrases]
        number += 1
        if names[0][1] == names[1][1]:
            found += 1
            yield TwoCandidates(adapter, sample)


def rate(scenes: Sequence[TwoCandidates], heads: Heads, strength: float) -> float:
    """How often the answer follows the region."""
    return float(np.mean([scene.follows(heads, strength) for scene in scenes]))


def measure(model: str, count: int, choosing: int) -> dict[str, Any]:
    """Choose heads on scenes of one seed, and steer them on scenes of another."""
    adapter = load_adapter(model)
    everything = [(layer, head) for layer in adapter.info.attention_layers for head in range(adapter.info.num_heads)]
    scenes = list(two_candidates(adapter, choosing, CHOOSING_SEED))
    ranked = sorted(everything, key=lambda head: -float(np.mean([s.gains([head], STRENGTHS[1]) for s in scenes[:8]])))
    tried = {(n, strength): rate(scenes, ranked[:n], strength) for n in COUNTS for strength in STRENGTHS}
    number, strength = max(tried, key=lambda key: tried[key])
    held_out = list(two_candidates(adapter, count, HELD_OUT_SEED))
    drawn = np.random.default_rng(0)
    random = [[everything[i] for i in drawn.choice(len(everything), number, replace=False)] for _ in range(3)]
    return {
        "heads": [f"{layer}.{head}" for layer, head in ranked[:number]],
        "heads in all": len(everything),
        "strength": strength,
        "chosen heads, scenes of the choice": round(tried[number, strength], 4),
        "chosen heads": round(rate(held_out, ranked[:number], strength), 4),
        "random heads": round(float(np.mean([rate(held_out, heads, strength) for heads in random])), 4),
        "all heads": round(rate(held_out, everything, strength), 4),
        "no steering": round(rate(held_out, [], 0.0), 4),
        "chosen heads, lowered instead of raised": round(rate(held_out, ranked[:number], -strength), 4),
    }


def main() -> None:
    """Read the command line, measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=MODELS, help="embedded checkpoints, or directories")
    parser.add_argument("--count", type=int, default=100, help="scenes that are reported on")
    parser.add_argument("--choosing", type=int, default=24, help="scenes that heads are chosen on")
    parser.add_argument("--report", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    found = {model: measure(model, arguments.count, arguments.choosing) for model in arguments.model}
    names = list(next(iter(found.values())))
    print(table(("", *found), [(name, *(numbers[name] for numbers in found.values())) for name in names]))
    if arguments.report:
        write_report(arguments.report, {"scenes": arguments.count, "choosing": arguments.choosing, "models": found})


if __name__ == "__main__":
    main()
