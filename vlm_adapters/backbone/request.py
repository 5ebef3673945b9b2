"""What to extract: which layers, heads and rows. Known before the forward pass starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal, Self, SupportsIndex, cast

from vlm_adapters.errors import RequestError

Head = tuple[int, int]
"""`(layer, head)`: true layer index, head index; written `layer.head`."""

LayerChoice = int | Sequence[int] | None
"""Which layers: none = all, an int = the last n, a list = these, negatives counted from the end."""


@dataclass(frozen=True)
class GridRequest:
    """What to extract. Known before the forward pass starts.

    Attributes:
        layers: Layers whose attention is wanted.
        heads: Heads wanted of each of them; none = all.
        align: `"token"` takes the row of the phrase's token itself, `"predictor"` the row before, which predicts it.
        reduce: How the rows of a phrase's tokens become one map: `"mean"`, `"max"`, or `"none"` (all rows are kept).
        hidden_layers: Layers whose hidden states are wanted as grids. Layer i means the output of layer i; the last
            one is after the final norm.
        phrase_hidden_layers: Layers whose hidden states are wanted at the phrase's own tokens.
        gradient: Let all of it carry gradient, where torch has it enabled, into those parameters of the backbone that
            require it. The model stays in the mode that it is in: in training mode its dropout applies, though a row
            is always the weights before they are dropped. Gradient checkpointing of the language model is refused.
    """

    layers: LayerChoice = None
    heads: Sequence[int] | None = None
    align: Literal["token", "predictor"] = "token"
    reduce: Literal["mean", "max", "none"] = "mean"
    hidden_layers: LayerChoice = ()
    phrase_hidden_layers: LayerChoice = ()
    gradient: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("align", ("token", "predictor")), ("reduce", ("mean", "max", "none"))):
            if getattr(self, name) not in allowed:
                raise RequestError(f"{name}={getattr(self, name)!r} is unknown. Use one of {', '.join(allowed)}.")
        for name in ("layers", "heads", "hidden_layers", "phrase_hidden_layers"):
            # Plain values, so that a request compares and is saved as it was meant.
            object.__setattr__(self, name, _plain(name, getattr(self, name), count=name != "heads"))

    @classmethod
    def of_heads(cls, heads: Sequence[Head]) -> Self:
        """Request the maps of some heads: their layers and their head indices, both ascending."""
        return cls(layers=sorted({layer for layer, _ in heads}), heads=sorted({head for _, head in heads}))


def _plain(name: str, choice: object, *, count: bool) -> int | tuple[int, ...] | None:
    """A choice as None, int or tuple of ints, whatever whole numbers it came as."""
    try:
        if choice is None:
            return None
        if count and not isinstance(choice, Iterable):
            return _whole(choice)
        if not isinstance(choice, str):
            return tuple(_whole(entry) for entry in cast("Iterable[object]", choice))
    except TypeError:
        pass
    number = "a number (the last so many, 0 for none), " if count else ""
    raise RequestError(
        f"{name}={choice!r} names nothing. Give None for all, {number}or a list of whole numbers; True and False are "
        "not numbers here."
    )


def _whole(value: object) -> int:
    """A whole number as an int; `TypeError` for all else, truth values of Python and of torch included."""
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        raise TypeError
    return index(cast("SupportsIndex", value))


def resolve_layers(choice: LayerChoice, available: Sequence[int]) -> tuple[int, ...]:
    """Apply the one rule for choosing layers.

    Args:
        choice: None = all, an int = the last n, a list = these; negatives count from the end of `available`.
        available: True indices of the layers there are, ascending.

    Raises:
        RequestError: More layers than there are, or an index that is not available.
    """
    if choice is None:
        return tuple(available)
    if isinstance(choice, int):
        if not 0 <= choice <= len(available):
            raise RequestError(
                f"The last {choice} layers were asked for; there are {len(available)}: {_listed(available)}."
            )
        return tuple(available[len(available) - choice :])
    for layer in choice:
        if (layer >= 0 and layer not in available) or layer < -len(available):
            raise RequestError(
                f"Layer {layer} is not available. There are {_listed(available)}; negatives count from the end."
            )
    return tuple(layer if layer >= 0 else available[layer] for layer in choice)


def resolve_heads(choice: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Head indices for a choice: none = all, negatives count from the end.

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
