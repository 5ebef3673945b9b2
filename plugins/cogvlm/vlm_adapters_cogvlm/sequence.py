"""Which tokens of a sequence belong to an image, and what follows: their positions and their expert.

A sequence is `[begin] [begin of image, patches, end of image] [text]`. Token types are 1 within an image, 0 elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

VISION = 1
"""Type of the tokens of an image."""


def takes_vision_expert(token_types: Tensor) -> Tensor:
    """A mask `(B, S)` of the tokens of the vision expert: those of an image that another one of the image follows.

    So the end of an image is a token of language, and so is a token that passes alone.
    """
    is_image = token_types == VISION
    return is_image & _next(is_image)


def position_ids_of(token_types: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Positions `(B, S)`: all patches of an image share one; tokens of padding count for nothing.

    Args:
        token_types: `(B, S)`.
        attention_mask: `(B, S)`, 0 on padding.
    """
    is_image = token_types == VISION
    is_patch = is_image & _previous(is_image) & _next(is_image)
    steps = (~(is_patch & _previous(is_patch))).long()
    if attention_mask is not None:
        steps = steps * (attention_mask != 0)
    positions: Tensor = (steps.cumsum(dim=1) - 1).clamp(min=0)
    return positions


class Routing(NamedTuple):
    """Where the tokens of a batch are computed, as indices into its `B * S` tokens.

    Attributes:
        vision: `(V,)`: those of the vision expert.
        language: `(T,)`: all others.
        places: `(B * S,)`: the index of every token among both, the first before the second.
    """

    vision: Tensor
    language: Tensor
    places: Tensor

    @classmethod
    def of(cls, token_types: Tensor) -> Routing:
        """Find the indices; this waits for the device once per pass."""
        is_vision = takes_vision_expert(token_types).flatten()
        vision, language = is_vision.nonzero().flatten(), (~is_vision).nonzero().flatten()
        return cls(vision, language, torch.cat([vision, language]).argsort())


def by_expert(
    states: Tensor,
    routing: Routing | None,
    vision: Callable[[Tensor], Tensor],
    language: Callable[[Tensor], Tensor],
) -> Tensor:
    """Compute `(B, S, D)` by two experts, each over its own tokens only; without a routing, all are of language."""
    if routing is None:
        return language(states)
    flat = states.flatten(0, 1)
    computed = torch.cat([vision(flat[routing.vision]), language(flat[routing.language])])
    ordered: Tensor = computed[routing.places].unflatten(0, states.shape[:2])
    return ordered


def _previous(mask: Tensor) -> Tensor:
    return torch.nn.functional.pad(mask[:, :-1], (1, 0))


def _next(mask: Tensor) -> Tensor:
    return torch.nn.functional.pad(mask[:, 1:], (0, 1))
