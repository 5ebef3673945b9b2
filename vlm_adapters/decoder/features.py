"""What a decoder takes from a backbone, and what it makes of it: all that training needs of a frozen model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vlm_adapters.backbone.grids import Grids
from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.backbone.request import GridRequest, Head, resolve_heads, resolve_layers
from vlm_adapters.decoder.channels import stack_channels
from vlm_adapters.decoder.sam.model import EncodedImage
from vlm_adapters.decoder.sam.refiner import SAMRefiner, UntrainedRefiner
from vlm_adapters.decoder.unet import UNet
from vlm_adapters.errors import DecoderError
from vlm_adapters.geometry import Box


@dataclass(frozen=True)
class FeatureRequest:
    """What a decoder reads of a backbone.

    Attributes:
        grids: Layers and heads whose maps are extracted, and how the rows of a phrase become one.
        heads: Of these maps the `(layer, head)` that are channels, in their order; None takes all.
        hidden: Whether the hidden states of the phrases' tokens are read, too, after every layer.
    """

    grids: GridRequest = field(default_factory=GridRequest)
    heads: tuple[Head, ...] | None = None
    hidden: bool = False

    def __post_init__(self) -> None:
        if self.grids.reduce == "none":
            raise DecoderError('A decoder reads one map per phrase, and reduce="none" gives one per token. Use "mean".')
        layers = None if self.hidden else ()
        object.__setattr__(self, "grids", replace(self.grids, phrase_hidden_layers=layers))

    @classmethod
    def of_heads(cls, heads: Sequence[Head], *, hidden: bool = False) -> FeatureRequest:
        """Read some heads alone: their layers are extracted, and no other."""
        return cls(GridRequest.of_heads(heads), tuple(heads), hidden=hidden)

    def channels(self, info: BackboneInfo) -> int:
        """How many maps of a phrase a decoder of this backbone reads.

        Raises:
            RequestError: The backbone lacks a layer or a head.
        """
        layers = resolve_layers(self.grids.layers, info.attention_layers)
        every = len(layers) * len(resolve_heads(self.grids.heads, info.num_heads))
        return (every if self.heads is None else len(self.heads)) * info.grids_per_image


@dataclass(frozen=True)
class PhraseFeatures:
    """What a decoder reads of the phrases of one image.

    Attributes:
        maps: `(P, C, h, w)` attention, not negative; the scale of a map does not matter to the decoder.
        box: Region of the image that the maps cover, in pixels.
        hidden: For every phrase `(L, T, D)`, the hidden states of its tokens; empty where they were not asked for.
    """

    maps: Tensor = field(repr=False)
    box: Box
    hidden: tuple[Tensor, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, grids: Sequence[Grids], request: FeatureRequest) -> PhraseFeatures:
        """Read the grids of a prompt's first image, extracted by `request.grids`."""
        of_first = [own for own in grids if own.grid.image == 0]
        maps, box = stack_channels(of_first, request.heads)
        return cls(maps, box, tuple(of_first[0].phrase_hidden) if request.hidden else ())

    def to(self, device: torch.device | str) -> PhraseFeatures:
        """The same on a device."""
        return replace(self, maps=self.maps.to(device), hidden=tuple(states.to(device) for states in self.hidden))


@dataclass(frozen=True)
class MaskLogits:
    """What a decoder says of the phrases of one image, with gradient where it was asked for.

    Attributes:
        maps: `(P, C, h, w)` attention that it read.
        coarse: `(P, h', w')` logits of the U-Net.
        box: Region of the image that both cover.
        refined: `(P, H, W)` logits of the refiner at the image's size; None without one.
    """

    maps: Tensor = field(repr=False)
    coarse: Tensor = field(repr=False)
    box: Box
    refined: Tensor | None = field(repr=False)


def decode_masks(
    features: Sequence[PhraseFeatures],
    decoder: UNet,
    refiner: SAMRefiner | UntrainedRefiner | None = None,
    images: Sequence[EncodedImage | None] = (),
) -> list[MaskLogits]:
    """Turn what was read of some images into the logits of their phrases; grids of one shape are decoded together.

    Args:
        features: Of every image, on the decoder's device.
        decoder: The U-Net.
        refiner: Refines its masks; None leaves them coarse.
        images: Each as the refiner's model encoded it.

    Raises:
        DecoderError: Maps, hidden states or images do not fit.
    """
    coarse = _coarse_logits(features, decoder)
    if refiner is None:
        return [MaskLogits(own.maps, logits, own.box, None) for own, logits in zip(features, coarse, strict=True)]
    encoded = [image for image in images if image is not None]
    if len(encoded) != len(features):
        raise DecoderError(
            f"A refiner needs every image as its model encoded it, and has {len(encoded)} of {len(features)}. "
            "Give SegmentAnything.encode(image) of each."
        )
    return [
        MaskLogits(own.maps, logits, own.box, refiner(image, logits, own.box, own.hidden or None))
        for own, logits, image in zip(features, coarse, encoded, strict=True)
    ]


def _coarse_logits(features: Sequence[PhraseFeatures], decoder: UNet) -> list[Tensor]:
    """`(P, h', w')` of every image."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, own in enumerate(features):
        groups.setdefault(tuple(own.maps.shape[1:]), []).append(index)
    found: dict[int, Tensor] = {}
    for group in groups.values():
        maps = [features[index].maps.float() for index in group]
        together = decoder(torch.cat(maps)).split([len(own) for own in maps])
        found |= dict(zip(group, together, strict=True))
    return [found[index] for index in range(len(features))]
