"""`ground`: from an image, a sentence and a model to masks in one call."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.conversion import as_described
from vlm_adapters.errors import NoDecoderWarning, OptionError
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.grounding.load import load_grounder
from vlm_adapters.grounding.result import Grounding
from vlm_adapters.images import ImageSource
from vlm_adapters.prompt import PhraseLike


def ground(
    image: ImageSource,
    text: str,
    phrases: Sequence[PhraseLike] | None = None,
    *,
    model: str | os.PathLike[str] | Grounder | BackboneAdapter,
    **options: Any,
) -> Grounding:
    """Find the phrases of a sentence in an image.

    A model without a decoder is asked for boxes in words if it can, and else masks are made of the attention of a few
    heads, as `load_grounder` does. `Grounding.method` says which it was, and a warning, unless the method was chosen.

    Args:
        image: An image in any form that `load_image` takes.
        text: The sentence.
        phrases: Strings that occur once in it, or spans `(start, end)` of its characters. None makes one phrase of
            the whole text; `vlm_adapters.grounding.noun_phrases(text)` finds those of an English sentence.
        model: An embedded model, a decoder's folder, a checkpoint's folder or a hub id, which is loaded at every call;
            or what `load_grounder` or `load_adapter` gave.
        options: Options of `load_grounder`, such as `method` and `sam`, and of `load_adapter`, such as `dtype`.

    Raises:
        ImageError: The image cannot be used.
        PromptError: The text or a phrase cannot be used.
        CheckpointError: There is no such model.
        OptionError: An option is unknown, or comes with a model that is loaded already.

    Examples:
        >>> from vlm_adapters import ground, open_dataset
        >>> scene = open_dataset("scenes:count=1,seed=4")[0]
        >>> grounding = ground(scene.image, "a pink star and a pink cross", ["a pink star"], model="tiny-llava")
        >>> grounding["a pink star"].box
        (37, 23, 100, 88)
    """
    prompt = as_described(image, text, phrases)  # before the model: mistakes show at once
    if not isinstance(model, Grounder):
        grounder = load_grounder(model, **options)
        if "method" not in options and not isinstance(grounder, GroundedVLM):
            warnings.warn(
                f"{grounder.adapter.info.checkpoint} has no decoder. What finds the masks: {grounder.description}. "
                "Choose it with method=..., or train a decoder.",
                NoDecoderWarning,
                stacklevel=2,
            )
    elif options:
        raise OptionError(f"The model given is loaded already. Leave {', '.join(options)} out.")
    else:
        grounder = model
    return grounder.ground_all([prompt])[0]
