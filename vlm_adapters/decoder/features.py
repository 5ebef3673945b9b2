"""What a decoder reads of a backbone: all that training needs of a frozen model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vlm_adapters.backbone.grids import Grids
from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.backbone.request import GridRequest, Head, resolve_heads, resolve_layers
from vlm_adapters.decoder.channels import stack_channels
from vlm_adapters.errors import DecoderError, NoGridError
from vlm_adapters.geometry import Box


@dataclass(frozen=True)
class FeatureRequest:
    """What a decoder reads of a backbone.

    Attributes:
        grids: Layers and heads whose maps are extracted, and how the rows of a phrase become one.
        heads: The `(layer, head)` pairs whose maps are channels, in this order; None takes all.
        hidden: Whether the hidden states of the phrases' tokens are read, too, of every layer.
        grid_names: Names of the grids whose maps are channels, in this order; of an image that lacks one, its finest
            takes the place. Empty for all of `BackboneInfo.grids`.
        log_probabilities: Whether the log probabilities of the phrases' tokens are read, too.
    """

    grids: GridRequest = field(default_factory=GridRequest)
    heads: tuple[Head, ...] | None = None
    hidden: bool = False
    grid_names: tuple[str, ...] = ()
    log_probabilities: bool = False

    def __post_init__(self) -> None:
        if self.grids.reduce == "none":
            raise DecoderError('A decoder reads one map per phrase, and reduce="none" gives one per token. Use "mean".')
        layers = None if self.hidden else ()
        extracted = replace(self.grids, phrase_hidden_layers=layers, phrase_log_probabilities=self.log_probabilities)
        object.__setattr__(self, "grids", extracted)

    @classmethod
    def of_heads(
        cls, heads: Sequence[Head], *, hidden: bool = False, log_probabilities: bool = False
    ) -> FeatureRequest:
        """Read some heads only: their layers are extracted, and no others."""
        return cls(GridRequest.of_heads(heads), tuple(heads), hidden=hidden, log_probabilities=log_probabilities)

    def channels(self, info: BackboneInfo) -> int:
        """How many maps of a phrase a decoder of this backbone reads.

        Raises:
            RequestError: The backbone lacks a layer or a head.
            NoGridError: Its image tokens have no places in the image.
            DecoderError: It has no grid of such a name.
        """
        names = self.names_of(info)
        layers = resolve_layers(self.grids.layers, info.attention_layers)
        every = len(layers) * len(resolve_heads(self.grids.heads, info.num_heads))
        return (every if self.heads is None else len(self.heads)) * len(names)

    def names_of(self, info: BackboneInfo) -> tuple[str, ...]:
        """The names of the grids that are read of a backbone.

        Raises:
            NoGridError: Its image tokens have no places in the image.
            DecoderError: It has no grid of such a name.
        """
        if not info.grids:
            raise NoGridError
        if missing := sorted(set(self.grid_names) - set(info.grids)):
            raise DecoderError(
                f"The decoder reads grids named {', '.join(missing)}, and {info.model_type} has "
                f"{', '.join(info.grids)}. Give the backbone that it was trained on."
            )
        return self.grid_names or info.grids


@dataclass(frozen=True)
class PhraseFeatures:
    """What a decoder reads of the phrases of one image.

    Attributes:
        maps: `(P, C, h, w)` attention, not negative; the scale of a map does not matter to the decoder.
        box: Region of the image that the maps cover, in pixels.
        hidden: For every phrase `(L, T, D)`, the hidden states of its tokens; empty where they were not requested.
        log_probabilities: For every phrase `(T,)`, as in `Grids.phrase_log_probabilities`; empty where they were not
            requested, or the model gives none.
    """

    maps: Tensor = field(repr=False)
    box: Box
    hidden: tuple[Tensor, ...] = field(default=(), repr=False)
    log_probabilities: tuple[Tensor, ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls, grids: Sequence[Grids], request: FeatureRequest, info: BackboneInfo, *, image: int = 0
    ) -> PhraseFeatures:
        """Read the grids of one of a prompt's images, the first, extracted by `request.grids` from a backbone."""
        of_image = [of_grid for of_grid in grids if of_grid.grid.image == image]
        if len({of_grid.grid.frames for of_grid in of_image}) > 1:
            raise DecoderError(
                "The grids are those of a video, and a decoder reads an image or one group of frames. Ground the "
                "phrases of a video with GroundedVLM.ground_video."
            )
        maps, box = stack_channels(of_image, request.heads, request.names_of(info))
        hidden = tuple(of_image[0].phrase_hidden) if request.hidden else ()
        return cls(maps, box, hidden, tuple(of_image[0].phrase_log_probabilities))

    def to(self, device: torch.device | str) -> PhraseFeatures:
        """The same on a device."""
        hidden, log_probabilities = (
            tuple(of_phrase.to(device) for of_phrase in tensors) for tensors in (self.hidden, self.log_probabilities)
        )
        return replace(self, maps=self.maps.to(device), hidden=hidden, log_probabilities=log_probabilities)
