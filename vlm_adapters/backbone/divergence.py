"""How far the text of an answer is from what a model says itself, where the answer's tokens are not known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.errors import PromptError
from vlm_adapters.prompt import Phrase, Prompt


@dataclass(frozen=True)
class Divergence:
    """How far a text is from what a model says itself.

    A text that the same model wrote, each token the likeliest, differs nowhere if it is read by the tokens that it was
    written with. Sampled text, and text by others, also differs where it is less likely.

    Attributes:
        tokens: Number of tokens of the text.
        differing: Number of tokens in whose place the model finds another one likelier.
        first: Characters `(start, end)` of the first word that has such a token; None where no word has.
        largest_gap: The largest difference between the log probabilities of the likeliest token and the one that is
            there. In half precision, a small one can come from rounding.

    Examples:
        >>> from vlm_adapters import Message, Prompt, load_adapter, open_dataset
        >>> from vlm_adapters.backbone import measure_divergence
        >>> adapter, image = load_adapter("tiny-qwen2_5_vl"), open_dataset("scenes:count=1")[0].image
        >>> question = Prompt.chat([Message("user", (image, "Please give me a description of the image."))])
        >>> text = adapter.generate(question).text
        >>> measure_divergence(adapter, question.answered(text)).differing
        0
        >>> measure_divergence(adapter, question.answered(text.replace("circle", "bird"))).differing > 0
        True
    """

    tokens: int
    differing: int
    first: tuple[int, int] | None
    largest_gap: float


def measure_divergence(adapter: BackboneAdapter, prompt: Prompt) -> Divergence | None:
    """Measure, in one pass, how far the text of a prompt is from what a model says itself.

    Args:
        adapter: The backbone.
        prompt: A prompt that ends with an answer.

    Returns:
        The divergence; None where the adapter does not give the log probabilities of tokens.

    Raises:
        PromptError: The text is blank.
    """
    words = [Phrase.at(prompt.text, *word.span()) for word in re.finditer(r"\S+", prompt.text)]
    if not words:
        raise PromptError("The answer is blank, so that there is nothing to measure. Give its text.")
    inputs = adapter.preprocess([replace(prompt, phrases=tuple(words))])
    grids = adapter.extract(inputs, GridRequest(layers=(), phrase_log_probabilities=True))[0]
    if not grids or not grids[0].phrase_gaps:
        return None
    gaps = [of_word.cpu() for of_word in grids[0].phrase_gaps]
    first = next((word.span for word, of_word in zip(words, gaps, strict=True) if bool((of_word > 0).any())), None)
    by_token = _once(inputs.phrase_tokens[0], gaps)
    return Divergence(len(by_token), sum(gap > 0 for gap in by_token), first, max(by_token))


def answer_divergence(adapter: BackboneAdapter, prompt: Prompt) -> Divergence | None:
    """The divergence of an answer whose tokens are not known; None for every other prompt, which takes no pass."""
    if prompt.answer is None or prompt.answer.ids is not None:
        return None
    return measure_divergence(adapter, prompt)


def _once(places: Sequence[torch.Tensor], gaps: Sequence[torch.Tensor]) -> list[float]:
    """The gap of every token once: a token can spell parts of two words."""
    pairs = zip(torch.cat(list(places)).tolist(), torch.cat(list(gaps)).tolist(), strict=True)
    return list(dict(pairs).values())
