"""Prompts that are longer than a model takes, refused before anything large is made of their images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from vlm_adapters.backbone.layout import ImageLayout
from vlm_adapters.errors import PromptError
from vlm_adapters.hf.answers import render_with_ids, rendered_part
from vlm_adapters.hf.chat import RenderedPrompt, count_tokens
from vlm_adapters.prompt import Prompt


def check_length(longest: int, model: PreTrainedModel) -> None:
    """Make sure that the longest prompt fits the positions of the language model.

    Raises:
        PromptError: It does not.
    """
    limit = _most_tokens(model)
    if limit is not None and longest > limit:
        raise PromptError(
            f"A prompt has {longest} tokens, images included; {model.config.model_type} takes at most {limit}. "
            "Shorten the text or take a smaller image."
        )


def check_before_pixels(
    prompt: Prompt,
    layouts: Sequence[ImageLayout],
    render: Callable[[Prompt], RenderedPrompt],
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
) -> None:
    """Make sure that a prompt fits, from its text and from the layouts of all its images.

    Raises:
        PromptError: It does not.
    """
    of_images = sum(layout.token_count for layout in layouts)
    letters = sum(len(message.text) for message in prompt.messages)
    part, ids = rendered_part(prompt)
    limit = _most_tokens(model)
    if limit is not None and of_images + letters + len(ids) > limit:  # else there is no need to count
        check_length(of_images + count_tokens(tokenizer, render_with_ids(tokenizer, part, render)) + len(ids), model)


def _most_tokens(model: PreTrainedModel) -> int | None:
    limit: int | None = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return limit
