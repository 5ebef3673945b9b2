"""Answers by their tokens: a prompt's text up to the answer, then exactly the ids that were generated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import takewhile

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from vlm_adapters.answer import Answer
from vlm_adapters.errors import PromptError
from vlm_adapters.hf.chat import Expansion, RenderedPrompt, Span, TokenSequence, tokenize
from vlm_adapters.limits import shown
from vlm_adapters.prompt import Prompt

_UNDECODED = "\ufffd"
"""What a decoder writes for bytes that are a part of a character."""


def rendered_part(prompt: Prompt) -> tuple[Prompt, Sequence[int]]:
    """The part of a prompt that its chat template renders, and the ids that follow it: those of an answer."""
    if prompt.answer is None or prompt.answer.ids is None:
        return prompt, ()
    return prompt.question, prompt.answer.ids


def _all_ids(prompt: Prompt) -> set[int]:
    """The ids of all answers in a prompt."""
    return {*rendered_part(prompt)[1]}.union(*(message.ids or () for message in prompt.messages))


def check_ids(prompt: Prompt, model: PreTrainedModel) -> None:
    """Make sure that a model knows the ids of a prompt's answers.

    Raises:
        PromptError: One is beyond its vocabulary.
    """
    size = getattr(model.config.get_text_config(decoder=True), "vocab_size", None)
    largest = max(_all_ids(prompt), default=0)
    if size is not None and largest >= size:
        raise PromptError(
            f"The answer has the token id {largest}, and {model.config.model_type} has {size} tokens. Give ids of the "
            "same vocabulary, or the text alone."
        )


def render_with_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, render: Callable[[Prompt], RenderedPrompt]
) -> RenderedPrompt:
    """Render a prompt; answers within it stand there by their ids, so that the model reads what it wrote.

    An answer stays a text where the template writes another one in its place, such as one without thinking, or writes
    other characters before it than those after which it was generated.

    Raises:
        PromptError: The text cannot be rendered, or the ids of an answer do not spell its text.
    """
    rendered, spans = render(prompt), dict[Span, Sequence[int]]()
    control = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    for index, message in enumerate(prompt.messages):
        if message.ids is None or rendered.suffix is not None:
            continue
        ids = list(message.ids)
        while ids and ids[-1] in control:  # the template ends the turn
            ids.pop()
        spelled = decode(tokenizer, ids)
        _check_spelled(spelled, message.text)
        earlier = prompt.messages[:index]
        texts = sum(isinstance(part, str) for before in earlier for part in before.content)
        start, end = rendered.user_spans[texts]
        if spelled.strip() != message.text.strip() or rendered.text[start:end] != message.text:
            continue
        if any(before.media for before in earlier):
            question = render(Prompt(earlier)).text
            if rendered.text[:start].startswith(question) and not rendered.text[len(question) : start].strip():
                spans[len(question), end] = ids
    return replace(rendered, by_ids=spans)


def _check_spelled(spelled: str, text: str) -> None:
    if text not in spelled:
        raise PromptError(
            f"The token ids of the answer spell {shown(spelled, 300)}, and its text is {shown(text, 300)}. "
            "Give the text that its ids spell, or the text alone."
        )


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    render: Callable[[Prompt], RenderedPrompt],
    images: Sequence[Expansion],
    refused: Collection[int],
) -> tuple[TokenSequence, RenderedPrompt]:
    """Render and encode a prompt; its answers by their ids, where they are known.

    Args:
        tokenizer: A fast tokenizer.
        prompt: The prompt.
        render: Renders a prompt in the format of the family.
        images: Token ids that the image or video of every slot expands to, and their types.
        refused: Ids that an answer may not hold: those of image tokens.

    Returns:
        The sequence, and the rendered text that its offsets count.

    Raises:
        PromptError: The text cannot be encoded, or the ids of an answer do not spell its text.
    """
    part, ids = rendered_part(prompt)
    if found := sorted(_all_ids(prompt) & set(refused)):
        raise PromptError(
            f"The answer holds the token {tokenizer.convert_ids_to_tokens(found[0])!r}, which stands for a part of an "
            "image. Generate it with suppress_tokens, or ground its text alone: prompt.answered(answer.text)."
        )
    rendered = render_with_ids(tokenizer, part, render)
    sequence = tokenize(tokenizer, rendered, images)
    if prompt.answer is None or prompt.answer.ids is None:
        return sequence, rendered
    start = len(rendered.text)
    sequence.append(ids, [int(rendered.suffix is not None)] * len(ids), _offsets(tokenizer, prompt.answer, ids, start))
    answer = (start, start + len(prompt.answer.text))
    text = rendered.text + prompt.answer.text
    return sequence, replace(rendered, text=text, user_spans=(*rendered.user_spans, answer))


def _offsets(tokenizer: PreTrainedTokenizerBase, answer: Answer, ids: Sequence[int], start: int) -> list[Span]:
    """Characters of the rendered text that every token of an answer spells; (-1, -1) for those that spell none."""
    spelled, spans = token_spans(tokenizer, ids)
    _check_spelled(spelled, answer.text)
    before = spelled.find(answer.text)
    return [
        (begin - before + start, end - before + start)
        if before <= begin < end <= before + len(answer.text)
        else (-1, -1)
        for begin, end in spans
    ]


def token_spans(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, list[Span]]:
    """Decode tokens, and find which of them spells what.

    Returns:
        Their text without control tokens, and for every token the characters `[start, end)` of it that it spells.
        Tokens that are parts of one character get all of it; control tokens get none.
    """
    text = decode(tokenizer, ids)
    steps, spelled = _decoded_in_steps(tokenizer, ids)
    if spelled != text:  # some decoders give up whole runs of bytes that end within a character
        steps = _decoded_by_prefixes(tokenizer, ids, text)
    special, spans, begin = set(tokenizer.all_special_ids), list[Span](), 0
    for last, end in steps:
        spans += [(begin, begin) if id_ in special else (begin, end) for id_ in ids[len(spans) : last]]
        begin = end
    return text, spans


def _decoded_in_steps(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[list[tuple[int, int]], str]:
    """Decode tokens one after the other, those of a character together.

    Returns:
        After every step the number of tokens and of characters so far; and the text.
    """
    text, steps = "", list[tuple[int, int]]()
    earlier, first = 0, 0  # the tokens from `earlier` to `first` are decoded with those after them, for their spaces
    for last in range(1, len(ids) + 1):
        before, found = decode(tokenizer, ids[earlier:first]), decode(tokenizer, ids[earlier:last])
        if found.endswith(_UNDECODED) and last < len(ids):
            continue
        added = found[len(before) :]
        text += added
        steps.append((last, len(text)))
        earlier, first = (first if added else earlier), last
    return steps, text


def _decoded_by_prefixes(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> list[tuple[int, int]]:
    """The same by what the text has in common with every beginning of the tokens, which takes quadratic time."""
    steps = [(0, 0)]
    for last in range(1, len(ids)):
        pairs = zip(decode(tokenizer, ids[:last]), text, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if shared > steps[-1][1]:
            steps.append((last, shared))
    return [*steps, (len(ids), len(text))]


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of tokens without control tokens."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))
