"""The embedded models with more layers, and what their cards say of their training on hard scenes."""

from __future__ import annotations

import scene_texts
from tiny_deepseek_vl import TinyDeepseek
from tiny_family import TinyFamily
from tiny_llava import TinyLlava
from tiny_qwen2_5_vl import TinyQwen

HOW_MADE = """\
`python examples/lab/train_tiny_backbone.py {name} --out SMALL` made a smaller model from random weights and
`vlm_adapters.data.formats.scenes`, nothing else; `examples/lab/train_on_hard_scenes.py {name} --small SMALL` went on
from it in one with more layers, on `vlm_adapters.data.formats.hard_scenes`, too.

1. **Vision stage.** The vision tower learns at every image token to name the colour, the shape, the dot, the texture
   and the size of the thing there, which cells around belong to it, and its own row and column. **These dense labels
   come from the truth masks of the scenes.**
2. **Text stage.** The language model learns to write descriptions and answers by next-token loss. Beside it, heads that
   are thrown away afterwards read from its hidden states which image tokens a phrase refers to and an answer is about,
   which a relation starts from (**labels from the truth masks, too**), whether the thing is there, and what it is like.

So the hidden states have learned where things are. **No loss touches the attention of the language model**: no target
says where a word should look. That its words look at what they name was not asked for, and is what the decoder
reads.

The runs of `train_on_hard_scenes.py`, each after the first with `--weights` of the one before:

{runs}"""
LIMITS = """\
Scenes of up to eight shapes that overlap, in six colours, two textures and several sizes; phrases by name, relation,
number and clauses; the questions of `examples/lab/scene_texts.py`; {cells} image tokens. Anything else is outside what
it has seen."""


def with_runs(*runs: str) -> str:
    """How a model was made, with the runs of its training."""
    return HOW_MADE.replace("{runs}", "\n".join(f"{number}. {run}" for number, run in enumerate(runs, 1)))


class LargerLlava(TinyLlava):
    """With more layers, and patches that show more of small things at no more tokens."""

    side, patch, tower_layers, language_layers = 192, 12, 6, 6
    words, limits = scene_texts.corpus(), LIMITS
    how_made = with_runs(
        "`--vision-steps 2600 --text-steps 2600` on 2 cores",
        "`--vision-steps 0 --text-steps 2600` on 2 cores",
        "`--vision-steps 0 --text-steps 600` on 2 cores, with half of the texts questions",
        "`--vision-steps 0 --text-steps 250` on 2 cores, with more captions: they alone teach how to describe",
        "`--device cuda --workers 5 --vision-steps 0 --text-steps 1730` on an H200",
    )


class LargerDeepseek(TinyDeepseek):
    """With more layers, and patches that show more of small things at no more tokens."""

    side, patch, tower_layers, language_layers = 192, 12, 5, 6
    words, limits = scene_texts.corpus(), LIMITS
    how_made = with_runs(
        "`--teacher` tiny-llava, `--device cuda --workers 5 --vision-minutes 1 --text-minutes 3.1` on an H200",
        "`--vision-steps 0 --text-steps 600` on 2 cores, with half of the texts questions",
        "`--vision-steps 0 --text-steps 250` on 2 cores, with more captions: they alone teach how to describe",
        "`--device cuda --workers 5 --vision-steps 0 --text-steps 1719` on an H200",
    )


class LargerQwen(TinyQwen):
    """With more layers."""

    tower_layers, language_layers = 5, 6
    words, limits = scene_texts.corpus(), LIMITS
    how_made = with_runs(
        "`--teacher` tiny-llava, `--device cuda --workers 5 --vision-minutes 1 --text-minutes 3.1` on an H200",
        "`--teacher` tiny-llava, `--device cuda --workers 5 --vision-steps 700 --text-minutes 1.2` on an H200",
        "`--teacher` tiny-llava, `--vision-steps 1500 --text-steps 1000` on 2 cores",
        "`--vision-steps 0 --text-steps 700` on 2 cores, with half of the texts questions",
        "`--vision-steps 0 --text-steps 400` on 2 cores, with more captions: they alone teach how to describe",
        "`--device cuda --workers 5 --vision-steps 0 --text-steps 1660` on an H200",
    )


FAMILIES: dict[str, type[TinyFamily]] = {family.name: family for family in (LargerLlava, LargerDeepseek, LargerQwen)}
