"""From a prompt to a token sequence, with the position of every phrase.

The chat template decides what stands where; the user's text never does. Text that looks like a control token
(`<|image_pad|>`, `<|im_end|>`) is encoded as ordinary text, so it can neither move the image span nor end a turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vlm_adapters.errors import PhraseError, PromptError
from vlm_adapters.hf.template import Turn, apply_template
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, shown
from vlm_adapters.message import Part
from vlm_adapters.prompt import Phrase, Prompt
from vlm_adapters.video import Video

Span = tuple[int, int]
Expansion = tuple[Sequence[int], Sequence[int]]
"""Token ids that the processor expands an image or video to, and their types."""
_THINKING_END = "</think>"
_PRIVATE_USE = range(0xF0000, 0xFFFFE)


@dataclass
class TokenSequence:
    """An encoded prompt.

    Attributes:
        ids: Token ids.
        types: 1 for image tokens, 2 for those of videos, 0 for text: the processor's `mm_token_type_ids`. If the
            rendered prompt has a suffix, 1 for the tokens of the suffix, 0 for all others.
        offsets: Characters `[start, end)` of the rendered template for every token; (-1, -1) for image tokens.
        images: Positions of the tokens of every image and video.
    """

    ids: list[int] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    offsets: list[Span] = field(default_factory=list)
    images: list[range] = field(default_factory=list)

    def append(self, ids: Sequence[int], types: Sequence[int], offsets: Sequence[Span]) -> None:
        """Append tokens with their types and offsets."""
        self.ids += ids
        self.types += types
        self.offsets += offsets


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt rendered by its chat template.

    Attributes:
        text: The rendered template, in which every image is one placeholder.
        user_spans: Characters of `text` that came from the prompt's texts, one span per text, in order.
        slots: Characters of `text` that are placeholders of images and videos, in order.
        has_start: Whether the text already contains the start token; else the tokenizer adds it.
        suffix: Where the suffix begins, which is encoded apart from what stands before it and whose tokens see only
            earlier ones, in families in which those before it see each other both ways; None in other families.
        by_ids: Characters of `text` that stand for tokens whose ids are known, and these ids.
    """

    text: str
    user_spans: tuple[Span, ...]
    slots: tuple[Span, ...]
    has_start: bool = False
    suffix: int | None = None
    by_ids: Mapping[Span, Sequence[int]] = field(default_factory=dict)


def render(processor: Any, prompt: Prompt, limits: Limits = DEFAULT_LIMITS) -> RenderedPrompt:
    """Render a prompt with the processor's chat template.

    A prompt that ends with the user's turn is rendered with the opening of the assistant's turn.

    Args:
        processor: A transformers processor with a chat template and an `image_token`.
        prompt: The prompt to render.
        limits: How long the template may take.

    Raises:
        PromptError: The template refuses the conversation, drops a text or an image of it, or takes too long.
    """
    messages = [(message.role, message.content) for message in prompt.messages]
    pieces = _marked_pieces(processor, messages, limits)
    if pieces[1::2] != _texts(messages):
        pieces = _marked_pieces(processor, _as_shown(processor, messages, len(pieces) // 2, limits), limits)
    user_spans = []
    position = 0
    for index, piece in enumerate(pieces):
        if index % 2:
            user_spans.append((position, position + len(piece)))
        position += len(piece)
    text = "".join(pieces)
    image, video = processor.image_token, getattr(processor, "video_token", None)
    pattern = "|".join(re.escape(token) for token in (image, video) if token)
    found = [match for match in re.finditer(pattern, text) if not _touches(match.span(), user_spans)]
    expected = [video if isinstance(part, Video) else image for part in prompt.media]
    if [match.group() for match in found] != expected:
        kind, token = ("videos", video) if prompt.videos else ("images", image)
        raise PromptError(
            f"The chat template of {type(processor).__name__} has {len(found)} placeholders {token!r} for "
            f"{len(expected)} {kind}. Use the chat template that belongs to the checkpoint."
        )
    return RenderedPrompt(text, tuple(user_spans), tuple(match.span() for match in found))


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    rendered: RenderedPrompt,
    images: Sequence[Expansion],
) -> TokenSequence:
    """Encode a rendered prompt, each placeholder replaced by its image's tokens.

    Args:
        tokenizer: A fast tokenizer, which gives offsets.
        rendered: The prompt as `render` gives it.
        images: Token ids that the processor expands the image or video of every slot to, and their types.

    Raises:
        PromptError: The text cannot be encoded, or the tokenizer reads it as an image token.
    """
    image_ids = {id_ for ids, types in images for id_, type_ in zip(ids, types, strict=True) if type_}
    control_tokens = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    control_tokens += tokenizer.convert_ids_to_tokens(sorted(image_ids))
    placeholders = {rendered.text[slice(*slot)] for slot in rendered.slots}
    known = {token.content for token in tokenizer.added_tokens_decoder.values()}
    # Some processors replace a placeholder in the text, and their tokenizers do not know it.
    unknown = tuple(slot for slot in rendered.slots if rendered.text[slice(*slot)] not in known)
    sequence = TokenSequence()
    remaining = list(images)
    for piece in _pieces(rendered, control_tokens, unknown):
        if piece in rendered.by_ids:
            ids = rendered.by_ids[piece]
            sequence.append(ids, [0] * len(ids), [(-1, -1)] * len(ids))
            continue
        for id_, span in [(-1, piece)] if piece in unknown else _encode(tokenizer, rendered, piece):
            words = rendered.text[slice(*span)]
            if _touches(span, rendered.slots):
                # By its position, not its id: a family may expand the placeholder to other tokens.
                if words.strip() not in placeholders or not remaining:
                    raise PromptError(
                        f"The tokenizer does not read the placeholder of an image as one token: found {shown(words)}. "
                        "Use the tokenizer of the checkpoint."
                    )
                ids, types = remaining.pop(0)
                sequence.images.append(range(len(sequence.ids), len(sequence.ids) + len(ids)))
                sequence.append(ids, types, [(-1, -1)] * len(ids))
            elif id_ in image_ids:
                raise PromptError(
                    f"The tokenizer reads ordinary text as an image token: {shown(words)}. Remove it from the text."
                )
            else:
                sequence.append([id_], [0], [span])
    if remaining:
        raise PromptError(
            f"The tokenizer makes {len(remaining)} image tokens too few. Use the tokenizer of the checkpoint."
        )
    if rendered.suffix is not None:
        sequence.types = [int(start >= rendered.suffix) for start, _ in sequence.offsets]
    return sequence


def count_tokens(tokenizer: PreTrainedTokenizerBase, rendered: RenderedPrompt) -> int:
    """Number of tokens of a rendered prompt without those of its images."""
    return len(tokenize(tokenizer, rendered, [((), ())] * len(rendered.slots)).ids)


def phrase_positions(sequence: TokenSequence, rendered: RenderedPrompt, prompt: Prompt, phrase: Phrase) -> list[int]:
    """Find the tokens that spell a phrase: every token that shares a character with it.

    Raises:
        PhraseError: The tokenizer drops all its characters.
    """
    parts = [part for part in prompt.messages[-1].content if isinstance(part, str)]
    spans = rendered.user_spans[len(rendered.user_spans) - len(parts) :]
    phrase_spans: list[Span] = []
    offset = 0
    for part, (begin, _) in zip(parts, spans, strict=True):
        start, end = max(phrase.start - offset, 0), min(phrase.end - offset, len(part))
        if start < end:
            phrase_spans.append((begin + start, begin + end))
        offset += len(part)
    positions = [index for index, span in enumerate(sequence.offsets) if _touches(span, phrase_spans)]
    if not positions:
        raise PhraseError(
            f"The tokenizer drops the phrase {shown(phrase.text)}, so it cannot be grounded. Choose other words."
        )
    return positions


def _encode(tokenizer: PreTrainedTokenizerBase, rendered: RenderedPrompt, piece: Span) -> list[tuple[int, Span]]:
    """Encode the characters `piece` of a prompt: ids and their spans. The first piece gets the start token."""
    words = rendered.text[slice(*piece)]
    if piece[0] == 0:
        start = not (rendered.has_start or (tokenizer.bos_token and words.startswith(tokenizer.bos_token)))
        return _tokens(tokenizer, words, 0, add_special_tokens=start)
    # After a line break: some tokenizers put a space before the first word of a text.
    tokens = _tokens(tokenizer, "\n" + words, piece[0] - 1, add_special_tokens=False)
    if any(begin < piece[0] < end for _, (begin, end) in tokens):
        return _tokens(tokenizer, words, piece[0], add_special_tokens=False)
    return [(id_, span) for id_, span in tokens if span[1] > piece[0]]


def _tokens(
    tokenizer: PreTrainedTokenizerBase, words: str, shift: int, *, add_special_tokens: bool
) -> list[tuple[int, Span]]:
    try:
        encoded = tokenizer(
            words,
            add_special_tokens=add_special_tokens,
            return_offsets_mapping=True,
            verbose=False,  # a text that is too long is our error, without a warning of theirs before it
        )
    except Exception as error:  # such as lone surrogates; tokenizers raises plain exceptions
        raise PromptError(
            f"The text cannot be encoded: {shown(words)} ({type(error).__name__}: {str(error)[:200]})."
        ) from error
    spans = [(begin + shift, end + shift) for begin, end in encoded["offset_mapping"]]
    return list(zip(encoded["input_ids"], spans, strict=True))


def _pieces(rendered: RenderedPrompt, control_tokens: Sequence[str], slots: Sequence[Span]) -> Iterator[Span]:
    """Cut the text around slots and tokens that are known, before its suffix, and inside control tokens of the user.

    So none of these is recognised.
    """
    pattern = re.compile(
        "|".join(re.escape(token) for token in sorted(control_tokens, key=len, reverse=True)) or "(?!)"
    )
    found = (match.span() for match in pattern.finditer(rendered.text))
    cuts = {start + 1 for start, end in found if _touches((start, end), rendered.user_spans)}
    cuts -= {cut for start, end in rendered.by_ids for cut in range(start, end)}
    cuts |= {side for span in (*slots, *rendered.by_ids) for side in span}
    cuts |= set() if rendered.suffix is None else {rendered.suffix}
    # Before a slot at the very beginning stands an empty piece, which gets the start token.
    return pairwise([0, *sorted(cuts), len(rendered.text)])


def _texts(messages: Sequence[Turn]) -> list[str]:
    return [part for _, content in messages for part in content if isinstance(part, str)]


def _marked_pieces(processor: Any, messages: Sequence[Turn], limits: Limits) -> list[str]:
    """The rendered messages, cut around their texts, which are the pieces with odd indices."""
    begin, end = _unused_characters("".join(_texts(messages)))
    return re.split(f"{begin}(.*?){end}", apply_template(processor, messages, limits, (begin, end)), flags=re.DOTALL)


def _as_shown(processor: Any, messages: Sequence[Turn], found: int, limits: Limits) -> list[Turn]:
    """The messages without the thinking that the template cuts from earlier ones.

    Raises:
        PromptError: It changes the messages in another way.
    """
    name = type(processor).__name__
    shorter = [(role, tuple(map(_without_thinking, content))) for role, content in messages]
    if _texts(shorter) == _texts(messages):
        raise PromptError(
            f"The chat template of {name} changes the order or wording of the messages' texts "
            f"({found} of {len(_texts(messages))} found). Give each message the order of images and texts that the "
            "template expects, usually images first."
        )
    is_kept = shorter[-1] == messages[-1]
    if not is_kept or apply_template(processor, shorter, limits) != apply_template(processor, messages, limits):
        raise PromptError(
            f"The chat template of {name} changes the thinking (what ends with {_THINKING_END}) in a message of the "
            "assistant. Give the messages without their thinking."
        )
    return shorter


def _without_thinking(part: Part) -> Part:
    return part.split(_THINKING_END)[-1].lstrip("\n") if isinstance(part, str) else part


def _unused_characters(text: str) -> tuple[str, str]:
    """Two private-use characters that are not in the text, to mark its place in the rendered template."""
    used = set(text)
    unused = list(islice((character for character in map(chr, _PRIVATE_USE) if character not in used), 2))
    if len(unused) < 2:
        raise PromptError("The text contains every private-use character of Unicode. Remove some of them.")
    return unused[0], unused[1]


def _touches(span: Span, spans: Sequence[Span]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in spans)


def pad(
    sequences: Sequence[TokenSequence], tokenizer: PreTrainedTokenizerBase, type_name: str
) -> tuple[dict[str, Tensor], list[int]]:
    """Pad sequences to one length on the tokenizer's side.

    Args:
        sequences: At least one.
        tokenizer: Says which token pads, and on which side.
        type_name: What the model calls the types of its tokens.

    Returns:
        The tensors of the batch, and how many positions each sequence moved to the right.
    """
    longest = max(len(sequence.ids) for sequence in sequences)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    ids = torch.full((len(sequences), longest), padding)
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    shifts = [longest - len(sequence.ids) if tokenizer.padding_side == "left" else 0 for sequence in sequences]
    for row, (sequence, shift) in enumerate(zip(sequences, shifts, strict=True)):
        place = slice(shift, shift + len(sequence.ids))
        ids[row, place] = torch.tensor(sequence.ids)
        types[row, place] = torch.tensor(sequence.types)
        mask[row, place] = 1
    return {"input_ids": ids, "attention_mask": mask, type_name: types}, shifts
