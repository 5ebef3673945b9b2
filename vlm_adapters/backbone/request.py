"""Requests for extraction: layers, heads and rows, known before the forward pass starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal, Self, SupportsIndex, cast

from vlm_adapters.errors import RequestError

Head = tuple[int, int]
"""`(layer, head)`: true layer index, head index; written `layer.head`."""

LayerChoice = int | Sequence[int] | None
"""A choice of layers: None for all, an int for the last n, a list for these, negatives counted from the end."""


@dataclass(frozen=True)
class GridRequest:
    """A choice of attention maps and hidden states to extract.

    Attributes:
        layers: Layers whose attention is extracted.
        heads: Heads extracted from each of these layers; None for all.
        align: `"token"` takes the row of the phrase's token itself, `"predictor"` the row before, which predicts it.
        reduce: How the rows of a phrase's tokens become one map: `"mean"`, `"max"`, `"last"` (that of the last token,
            where a causal model has read the whole phrase), or `"none"` (every row is a map).
        hidden_layers: Layers whose hidden states are extracted as grids. Layer i means the output of layer i; that
            of the last layer is after the final norm.
        phrase_hidden_layers: Layers whose hidden states are extracted at the tokens of the phrases.
        phrase_log_probabilities: Whether the log probabilities of the phrases' tokens are computed, which takes all
            layers.
        gradient: Whether the results carry gradient, if torch has it enabled, into the parameters of the backbone that
            require it. The model keeps its mode: in training mode its dropout applies, though a row always holds the
            weights before dropout. Gradient checkpointing of the language model is refused.

    Examples:
        >>> from vlm_adapters import GridRequest
        >>> request = GridRequest(layers=[0, -1], heads=[2], align="predictor", hidden_layers=1)
        >>> request.layers, request.reduce
        ((0, -1), 'mean')
    """

    layers: LayerChoice = None
    heads: Sequence[int] | None = None
    align: Literal["token", "predictor"] = "token"
    reduce: Literal["mean", "max", "last", "none"] = "mean"
    hidden_layers: LayerChoice = ()
    phrase_hidden_layers: LayerChoice = ()
    phrase_log_probabilities: bool = False
    gradient: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("align", ("token", "predictor")), ("reduce", ("mean", "max", "last", "none"))):
            if getattr(self, name) not in allowed:
                raise RequestError(f"{name}={getattr(self, name)!r} is unknown. Use one of {', '.join(allowed)}.")
        for name in ("layers", "heads", "hidden_layers", "phrase_hidden_layers"):
            # Plain values, so that requests compare equal and can be saved.
            object.__setattr__(self, name, _plain(name, getattr(self, name), count=name != "heads"))

    @classmethod
    def of_heads(cls, heads: Sequence[Head]) -> Self:
        """Request the maps of some heads: their layers and their head indices, both ascending."""
        return cls(layers=sorted({layer for layer, _ in heads}), heads=sorted({head for _, head in heads}))


def _plain(name: str, choice: object, *, count: bool) -> int | tuple[int, ...] | None:
    """A choice as None, an int or a tuple of ints, from integers of any library."""
    try:
        if choice is None:
            return None
        if count and not isinstance(choice, Iterable):
            return _whole(choice)
        if not isinstance(choice, str):
            return tuple(_whole(entry) for entry in cast("Iterable[object]", choice))
    except TypeError:
        pass
    number = "a number (the last n, 0 for none), " if count else ""
    raise RequestError(
        f"{name}={choice!r} is not a valid choice. Give None for all, {number}or a list of whole numbers; True and "
        "False do not count as numbers."
    )


def _whole(value: object) -> int:
    """A whole number as an int; `TypeError` for everything else, including booleans of Python and torch."""
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        raise TypeError
    return index(cast("SupportsIndex", value))


def resolve_layers(choice: LayerChoice, available: Sequence[int]) -> tuple[int, ...]:
    """Turn a choice of layers into layer indices.

    Args:
        choice: None for all, an int for the last n, a list for these; negatives count from the end of `available`.
        available: Indices of the layers to choose from, ascending.

    Raises:
        RequestError: The choice names more layers than exist, or an index that is not available.
    """
    if choice is None:
        return tuple(available)
    if isinstance(choice, int):
        if not 0 <= choice <= len(available):
            raise RequestError(
                f"The last {choice} layers were requested; there are {len(available)}: {_listed(available)}. "
                "Request fewer."
            )
        return tuple(available[len(available) - choice :])
    for layer in choice:
        if (layer >= 0 and layer not in available) or layer < -len(available):
            raise RequestError(
                f"Layer {layer} is not available. There are {_listed(available)}; negatives count from the end."
            )
    return tuple(layer if layer >= 0 else available[layer] for layer in choice)


def resolve_heads(choice: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Turn a choice of heads into head indices: None for all, negatives count from the end.

    Raises:
        RequestError: An index is out of range.
    """
    if choice is None:
        return tuple(range(count))
    for head in choice:
        if not -count <= head < count:
            raise RequestError(f"Head {head} is out of range: the backbone has heads 0 to {count - 1}.")
    return tuple(head % count for head in choice)


def _listed(layers: Sequence[int]) -> str:
    if list(layers) == list(range(len(layers))):
        return f"layers 0 to {len(layers) - 1}"
    return f"layers {', '.join(map(str, layers))}"
