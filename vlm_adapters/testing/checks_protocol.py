"""Checks of the protocol: info, prompts to inputs, phrases to tokens, errors for wrong requests."""

from __future__ import annotations

import socket
from dataclasses import replace
from functools import partial
from typing import NoReturn
from unittest import mock

import torch

from vlm_adapters.backbone.protocol import BackboneAdapter, BackboneInfo
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.errors import AdapterError, PromptError, RequestError
from vlm_adapters.testing.case import AdapterCase
from vlm_adapters.testing.support import PHRASES, different_prompts, prompt, require, require_equal, require_error, run

HOSTILE_TEXTS = (
    "<|image_pad|>",
    "<|image_pad|><|image_pad|>",
    "<|vision_start|><|image_pad|><|vision_end|>",
    "<|im_end|>\n<|im_start|>user\n",
    "<image>",
    "<image_placeholder>",
    "</s>",
    "[/INST]",
    "\u202e\x00",
)
"""Control tokens of well-known families, and characters that break careless code."""


def check_protocol(case: AdapterCase) -> None:
    """The adapter has all members of the protocol."""
    adapter = case.load()
    require(
        isinstance(adapter, BackboneAdapter),
        f"expected a BackboneAdapter, found that {type(adapter).__name__} lacks a member of it",
    )
    require(isinstance(adapter.info, BackboneInfo), f"info: expected a BackboneInfo, found {adapter.info!r}")
    require_equal(adapter.name, adapter.info.model_type, "name, which must be info.model_type")


def check_info(case: AdapterCase) -> None:
    """`info` states the layers, heads and width that the model has in a forward pass."""
    adapter = case.load(attention="eager")
    reference = case.reference.run(adapter, adapter.preprocess([prompt()]))
    require_equal(adapter.info.num_layers, len(reference.hidden), "info.num_layers")
    require_equal(adapter.info.attention_layers, tuple(sorted(reference.attention)), "info.attention_layers")
    require_equal({adapter.info.num_heads}, {rows.shape[1] for rows in reference.attention.values()}, "info.num_heads")
    require_equal(
        {adapter.info.hidden_size}, {states.shape[-1] for states in reference.hidden.values()}, "info.hidden_size"
    )


def check_phrases_spell_themselves(case: AdapterCase) -> None:
    """The tokens of a phrase decode to the phrase, at the start, in the middle and at the end of the text."""
    adapter = case.load()
    phrases = ("a red circle", "blue star", "the top left")
    inputs = adapter.preprocess([prompt(phrases=phrases)])
    for phrase, tokens in zip(phrases, inputs.phrase_tokens[0], strict=True):
        spelled = case.reference.spell(adapter, inputs, 0, tokens)
        require_equal(spelled.strip(), phrase, f"text of the tokens {tokens.tolist()} of the phrase {phrase!r}")


def check_phrase_among_other_scripts(case: AdapterCase) -> None:
    """Characters of several bytes before and in a phrase do not shift it."""
    adapter = case.load()
    text = "\u7ea2\u8272\u5706\u5f62 \U0001f534 caf\u00e9 a red circle na\u00efve \u661f and more text after"
    inputs = adapter.preprocess([prompt(text=text, phrases=("a red circle", "na\u00efve \u661f"))])
    plain, foreign = (case.reference.spell(adapter, inputs, 0, tokens) for tokens in inputs.phrase_tokens[0])
    require_equal(plain.strip(), "a red circle", "text of the tokens of a phrase after other scripts")
    require(
        "circle" not in foreign and "after" not in foreign and "na" in foreign,
        f"text of the tokens of the phrase 'na\u00efve \u661f': expected no other words, found {foreign!r}",
    )


def check_repeated_words(case: AdapterCase) -> None:
    """For a word that occurs twice in the text, the span decides which occurrence is meant."""
    adapter = case.load()
    text = "a star beside a star"
    inputs = adapter.preprocess([prompt(text=text, phrases=[(2, 6), (16, 20)])])
    first, second = inputs.phrase_tokens[0]
    for tokens in (first, second):
        require_equal(
            case.reference.spell(adapter, inputs, 0, tokens).strip(), "star", "text of a repeated word's tokens"
        )
    require(int(first.max()) < int(second.min()), f"'star' twice: expected {first.tolist()} before {second.tolist()}")


def check_phrase_tokens_are_text(case: AdapterCase) -> None:
    """Phrase tokens are at least one, ascending, within the sequence, and not image tokens."""
    adapter = case.load()
    inputs = adapter.preprocess(different_prompts())
    image = case.reference.image_positions(adapter, inputs)
    for index, phrases in enumerate(inputs.phrase_tokens):
        for tokens in phrases:
            what = f"phrase tokens of prompt {index}"
            require(
                tokens.dtype == torch.long and tokens.ndim == 1, f"{what}: expected a 1-D LongTensor, found {tokens}"
            )
            positions = tokens.tolist()
            require(
                positions == sorted(set(positions)) != [], f"{what}: expected ascending positions, found {positions}"
            )
            inside = positions[0] >= 0 and positions[-1] < image.shape[1]
            require(inside, f"{what}: expected positions in a sequence of {image.shape[1]}, found {positions}")
            require(not image[index, tokens].any(), f"{what}: expected no image tokens, found some in {positions}")


def check_control_tokens_are_text(case: AdapterCase) -> None:
    """A control token in the user's text moves no image token, or is a typed error."""
    adapter = case.load()
    for text in (*HOSTILE_TEXTS, *case.reference.special_tokens(adapter)):
        check_text_moves_no_image(case, f"a red {text} circle", adapter)


def check_text_moves_no_image(case: AdapterCase, text: str, adapter: BackboneAdapter | None = None) -> None:
    """The image tokens have the same positions as with a harmless text, or the text is a typed error.

    This is not one of `ALL_CHECKS`; call it with your own texts, such as from a property test.
    """
    adapter = adapter or case.load()
    harmless = adapter.preprocess([prompt(text="circle", phrases=["circle"])])
    try:
        inputs = adapter.preprocess([prompt(text=text, phrases=[(0, len(text))])])
        found = adapter.locate_image_tokens(inputs)[0]
    except AdapterError:
        return
    expected = adapter.locate_image_tokens(harmless)[0]
    require_equal([g.shape for g in found], [g.shape for g in expected], f"grid shapes with the text {text!r}")
    for index, (grid, other) in enumerate(zip(found, expected, strict=True)):
        moved = (grid.tokens - other.tokens).abs().max().item()
        require(
            moved == 0, f"image tokens of grid {index} with the text {text!r}: expected no move, found one by {moved}"
        )
    images = [int(case.reference.image_positions(adapter, some).sum()) for some in (inputs, harmless)]
    require_equal(images[0], images[1], f"number of image tokens in the input with the text {text!r}")


def check_prompt_without_phrases(case: AdapterCase) -> None:
    """A prompt without phrases has maps of zero phrases, and still has hidden states."""
    adapter = case.load()
    _, grids = run(adapter, prompt(phrases=()), GridRequest(hidden_layers=1))
    info = adapter.info
    for grid in grids:
        expected = (0, len(info.attention_layers), info.num_heads, *grid.grid.shape)
        require_equal(tuple(grid.attention.shape), expected, "shape of attention without phrases")
        require_equal(grid.hidden.shape[1], info.hidden_size, "width of hidden states without phrases")


def check_no_prompt_is_an_error(case: AdapterCase) -> None:
    """An empty batch is a `PromptError`."""
    adapter = case.load()
    require_error(PromptError, lambda: adapter.preprocess([]), "preprocess([])")


def check_wrong_requests_are_errors(case: AdapterCase) -> None:
    """A request for layers or heads that the backbone does not have is a `RequestError`."""
    adapter = case.load()
    inputs = adapter.preprocess([prompt()])
    layers, heads = adapter.info.num_layers, adapter.info.num_heads
    for request in (
        GridRequest(layers=[layers]),
        GridRequest(layers=layers + 1),
        GridRequest(layers=[-layers - 1]),
        GridRequest(heads=[heads]),
        GridRequest(heads=[-heads - 1]),
        GridRequest(hidden_layers=[layers]),
        GridRequest(phrase_hidden_layers=[layers]),
    ):
        what = f"{request} of {layers} layers and {heads} heads"
        require_error(RequestError, partial(adapter.extract, inputs, request), what)


def check_predictor_of_first_token(case: AdapterCase) -> None:
    """A request for the row that predicts the first token of a sequence is a `RequestError`."""
    adapter = case.load()
    inputs = adapter.preprocess([prompt(phrases=PHRASES[:1])])
    first = replace(inputs, phrase_tokens=((torch.tensor([0]),),))
    request = GridRequest(align="predictor")
    require_error(RequestError, lambda: adapter.extract(first, request), 'align="predictor" of the first token')


def check_preprocess_uses_no_network(case: AdapterCase) -> None:
    """`preprocess` opens no network connection."""
    adapter = case.load()

    attempts: list[object] = []

    def refuse(*arguments: object, **_: object) -> NoReturn:
        attempts.append(arguments)
        raise OSError("no network here")

    with mock.patch.object(socket.socket, "connect", refuse), mock.patch.object(socket, "getaddrinfo", refuse):
        adapter.preprocess([prompt()])
    require(not attempts, f"preprocess: expected no use of the network, found attempts to reach {attempts}")
