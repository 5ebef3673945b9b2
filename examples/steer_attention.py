"""Steer an answer by attention: raise what a few heads give to a region, and the model says what is there.

    python examples/steer_attention.py [MODEL]

In a scene of two shapes of one colour, "a red ..." can go on with either. `steered_attention` adds a number to the
attention scores of the image tokens in a box, in chosen heads, while the block runs; below 0 it lowers them. Here the
heads are found on one scene, each by what it does alone; `examples/lab/measure_steering.py` chooses them properly.
"""

from __future__ import annotations

import sys

import torch

from vlm_adapters import Prompt, TransformersBackbone, load_adapter, open_dataset
from vlm_adapters.data import Sample
from vlm_adapters.grounding import PackedMask
from vlm_adapters.hf import steered_attention

STRENGTH, HEADS = 4.0, 4


class Steered:
    """A scene, the beginning of a sentence about it, and the likeliest next word."""

    def __init__(self, adapter: TransformersBackbone, scene: Sample) -> None:
        begun = " ".join(scene.phrases[0].text.split()[:2])
        self.adapter, self.begun = adapter, begun
        self.inputs = adapter.preprocess([Prompt.describe(scene.image, begun, [begun])])
        self.boxes = [PackedMask.of(mask).box for mask in scene.masks]
        self.shapes = [phrase.text.split()[2] for phrase in scene.phrases]

    @torch.no_grad()
    def scores(self) -> torch.Tensor:
        """Log probabilities of the next token."""
        last = int(self.inputs.phrase_tokens[0][0][-1])
        return self.adapter.model(**self.inputs.tensors).logits[0, last].log_softmax(0)

    def scores_for(self, index: int, heads: list[tuple[int, int]]) -> torch.Tensor:
        """The same, with these heads steered to one of the shapes."""
        with steered_attention(self.adapter, self.inputs, self.boxes[index], heads, STRENGTH):
            return self.scores()

    def word(self, scores: torch.Tensor) -> str:
        """The likeliest next word."""
        return self.adapter.processor.tokenizer.decode(scores.argmax()).strip()


def main() -> None:
    """Choose heads on one scene, and steer in others."""
    adapter = load_adapter(sys.argv[1] if len(sys.argv) > 1 else "tiny-llava")
    scenes = open_dataset("scenes:count=40,seed=71,fewest=2,most=2")
    alike = [scene for scene in scenes if len({phrase.text.split()[1] for phrase in scene.phrases}) == 1]
    first, *others = (Steered(adapter, scene) for scene in alike)

    ids = adapter.processor.tokenizer.convert_tokens_to_ids([f"Ġ{shape}" for shape in first.shapes])
    gains = {}
    for head in ((layer, head) for layer in adapter.info.attention_layers for head in range(adapter.info.num_heads)):
        to_first, to_second = (first.scores_for(index, [head])[ids] for index in range(2))
        gains[head] = float((to_first - to_second) @ torch.tensor([1.0, -1.0], device=to_first.device))
    heads = sorted(gains, key=gains.__getitem__, reverse=True)[:HEADS]
    print("heads:", ", ".join(f"{layer}.{head}" for layer, head in heads))

    followed = []
    for scene in others:
        words = [scene.word(scene.scores_for(index, heads)) for index in range(2)]
        followed += [word == shape for word, shape in zip(words, scene.shapes, strict=True)]
        print(
            f"{scene.begun} {scene.word(scene.scores())}; steered to the {' and to the '.join(scene.shapes)}:", *words
        )
    print(f"followed {sum(followed) / len(followed):.2f}")


if __name__ == "__main__":
    main()
