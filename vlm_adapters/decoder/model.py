"""The mask decoder: from a phrase's attention maps to its mask, coarse by a U-Net, fine by Segment Anything."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from vlm_adapters.backbone.fingerprint import json_fingerprint, weights_fingerprint
from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.decoder.checkpoint import (
    PRESENCE_FILE,
    REFINER_FILE,
    WEIGHTS_FILE,
    BackboneReference,
    DecoderCheckpoint,
    DecoderConfig,
    PresenceConfig,
    RefinerConfig,
    RequestConfig,
    plugin_of,
    sha256_of,
)
from vlm_adapters.decoder.features import FeatureRequest, PhraseFeatures
from vlm_adapters.decoder.logits import MaskLogits
from vlm_adapters.decoder.presence import PresenceHead, least_probabilities
from vlm_adapters.decoder.sam.checkpoint import load_sam
from vlm_adapters.decoder.sam.model import EncodedImage, SegmentAnything
from vlm_adapters.decoder.sam.refiner import RefinedLogits, SAMRefiner, UntrainedRefiner
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.errors import DecoderError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits


class MaskDecoder(nn.Module):
    """Turns what a frozen backbone gives into the masks of phrases.

    Attributes:
        unet: Maps `(B, C, h, w)` to logits `(B, h', w')` of the same region. A `UNet`, or a module of another class.
        request: What the decoder reads of a backbone.
        refiner: Makes the masks fine; None leaves them coarse.
        presence: Says whether a phrase is in the image; None where that was not learned.

    Examples:
        >>> from vlm_adapters import GroundedVLM, MaskDecoder, load_adapter
        >>> adapter = load_adapter("tiny-llava")
        >>> decoder = MaskDecoder.untrained(adapter.info, base_width=8)
        >>> GroundedVLM(adapter, decoder).decoder is decoder
        True
    """

    def __init__(
        self,
        unet: nn.Module,
        request: FeatureRequest | None = None,
        refiner: SAMRefiner | UntrainedRefiner | None = None,
        presence: PresenceHead | None = None,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.refiner = refiner
        self.presence = presence
        reads_words = presence is not None or (refiner is not None and refiner.use_text)
        self.request = replace(request or FeatureRequest(), hidden=reads_words, log_probabilities=presence is not None)

    @classmethod
    def untrained(
        cls, info: BackboneInfo, request: FeatureRequest | None = None, *, base_width: int = 64, depth: int = 4
    ) -> Self:
        """Build a decoder of a backbone's size, with random weights and without a refiner.

        Args:
            info: Description of the backbone, which gives the number of channels.
            request: What the decoder reads; None is the maps of all heads.
            base_width: Channels of the U-Net's first stage; 64 is the paper's.
            depth: Stages of the U-Net.
        """
        request = request or FeatureRequest()
        request = replace(request, grid_names=request.names_of(info))
        return cls(UNet(UNetConfig(request.channels(info), base_width, depth)), request)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((weight.device for weight in self.parameters()), torch.device("cpu"))

    @property
    def trained_refiner(self) -> SAMRefiner | None:
        """The refiner, if it is one that is trained with the U-Net."""
        return self.refiner if isinstance(self.refiner, SAMRefiner) else None

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name: all but those of the refiner's image encoder."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}

    def forward(
        self, features: Sequence[PhraseFeatures], images: Sequence[EncodedImage | None] = ()
    ) -> list[MaskLogits]:
        """Compute the logits of the phrases of some images; grids of one shape are decoded together.

        Args:
            features: What was read of every image, on any device.
            images: Every image as the refiner's model encoded it; not read without a refiner.

        Raises:
            DecoderError: Maps, hidden states or images do not fit.
        """
        features = [of_image.to(self.device) for of_image in features]
        coarse = self._coarse(features)
        if self.refiner is None:
            refined: list[RefinedLogits | None] = [None] * len(features)
        else:
            encoded = [image for image in images if image is not None]
            if len(encoded) != len(features):
                raise DecoderError(
                    f"A refiner needs every image as its model encoded it, and has {len(encoded)} of {len(features)}. "
                    "Give SegmentAnything.encode(image) of every image."
                )
            refined = [
                self.refiner.refine(image, logits, of_image.box, of_image.hidden or None)
                for image, logits, of_image in zip(encoded, coarse, features, strict=True)
            ]
        return [
            MaskLogits(of_image.maps, logits, of_image.box, fine, *self._presence(of_image, logits))
            for of_image, logits, fine in zip(features, coarse, refined, strict=True)
        ]

    def _presence(self, features: PhraseFeatures, coarse: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What is learned of the presence of the phrases, and what the backbone says of it; each None where it is not.

        Args:
            features: What was read of an image.
            coarse: `(P, h', w')` logits of its masks.
        """
        learned = None if self.presence is None else self.presence(features, coarse)
        return learned, least_probabilities(features.log_probabilities) if features.log_probabilities else None

    def fingerprint(self) -> dict[str, str]:
        """Digests of the weights, by the name of their file."""
        found = {f"decoder/{WEIGHTS_FILE}": sha256_of(self.unet.state_dict())}
        if self.trained_refiner:
            found[f"decoder/{REFINER_FILE}"] = sha256_of(self.trained_refiner.trained_weights())
        if self.presence:
            found[f"decoder/{PRESENCE_FILE}"] = sha256_of(self.presence.state_dict())
            found["decoder/presence"] = json_fingerprint(asdict(self.presence.calibration))
        return found | ({"sam": weights_fingerprint(self.refiner.sam.state_dict())} if self.refiner else {})

    def save(self, folder: str | os.PathLike[str], info: BackboneInfo) -> None:
        """Write the trained tensors and `config.json`; the refiner's image encoder, which is not trained, is left out.

        Args:
            folder: Where to write.
            info: Description of the backbone that the decoder was trained on.

        Raises:
            DecoderError: `unet` is not a `UNet`, whose sizes a config could hold.
        """
        if not isinstance(self.unet, UNet):
            raise DecoderError(
                f"A {type(self.unet).__name__} in the place of the U-Net cannot be described by a decoder's config. "
                "Save its state_dict(), and build it with your own class."
            )
        refiner = self.trained_refiner
        config = DecoderConfig(
            plugin=plugin_of(info.model_type),
            backbone=BackboneReference.of(info),
            unet=self.unet.config,
            request=RequestConfig.of(replace(self.request, grid_names=self.request.names_of(info))),
            refiner=RefinerConfig(image_encoder=refiner.sam.image_encoder, **refiner.prompts) if refiner else None,
            presence=PresenceConfig.of(self.presence) if self.presence else None,
        )
        weights = refiner.trained_weights() if refiner else {}
        presence = self.presence.state_dict() if self.presence else {}
        DecoderCheckpoint(config, self.unet.state_dict(), weights, presence).write(Path(folder))

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        info: BackboneInfo,
        sam: str | os.PathLike[str] | SegmentAnything | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Self:
        """Load a decoder, in eval mode.

        Args:
            folder: Written by `save`.
            info: Description of the backbone that it will read.
            sam: A Segment Anything model or its checkpoint file. A decoder that was trained with a refiner needs the
                one of its training; masks of another decoder are refined by it untrained.
            limits: What of its config is accepted.

        Raises:
            CheckpointError: The folder holds no decoder.
            DecoderError: The decoder or its refiner does not fit the backbone or the Segment Anything model.
        """
        checkpoint = DecoderCheckpoint.read(Path(folder), limits)
        config = checkpoint.config
        if info.model_type != config.backbone.model_type:
            raise DecoderError(
                f"The decoder in {folder} was trained on {config.backbone.model_type} ({config.backbone.checkpoint}), "
                f"and the backbone given is {info.model_type} ({info.checkpoint}). Give its own."
            )
        check_sam(folder, config, sam)
        unet = UNet(config.unet)
        unet.load_state_dict(dict(checkpoint.unet))
        refiner = None if sam is None else _refiner(checkpoint, info, sam)
        return cls(unet, config.request.to_request(), refiner, _presence(checkpoint, info)).eval()

    def _coarse(self, features: Sequence[PhraseFeatures]) -> list[Tensor]:
        """Logits `(P, h', w')` of every image."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, of_image in enumerate(features):
            groups.setdefault(tuple(of_image.maps.shape[1:]), []).append(index)
        found: dict[int, Tensor] = {}
        for group in groups.values():
            maps = [features[index].maps.float() for index in group]
            logits = self.unet(maps[0] if len(maps) == 1 else torch.cat(maps)).split(
                [len(of_image) for of_image in maps]
            )
            found |= dict(zip(group, logits, strict=True))
        return [found[index] for index in range(len(features))]


def check_sam(folder: str | os.PathLike[str], config: DecoderConfig, sam: object) -> None:
    """Check that the Segment Anything model is there that a decoder was trained with.

    Raises:
        DecoderError: It is not.
    """
    if config.refiner and sam is None:
        raise DecoderError(
            f"The decoder in {folder} was trained with a refiner on {config.refiner.image_encoder}. Give that Segment "
            "Anything checkpoint: sam=FILE, or --sam FILE."
        )


def _presence(checkpoint: DecoderCheckpoint, info: BackboneInfo) -> PresenceHead | None:
    config = checkpoint.config.presence
    if config is None:
        return None
    head = PresenceHead.of(info, checkpoint.config.unet.channels, config.width, config.calibration)
    check_tensors("The weights of the presence head", head.state_dict(), checkpoint.presence)
    head.load_state_dict(dict(checkpoint.presence))
    return head


def _refiner(
    checkpoint: DecoderCheckpoint, info: BackboneInfo, sam: str | os.PathLike[str] | SegmentAnything
) -> SAMRefiner | UntrainedRefiner:
    model = sam if isinstance(sam, SegmentAnything) else load_sam(sam)
    config = checkpoint.config.refiner
    if config is None:
        return UntrainedRefiner(model)
    if model.image_encoder != config.image_encoder:
        raise DecoderError(
            f"The refiner was trained with the image encoder {config.image_encoder}, and the Segment Anything model "
            f"given has {model.image_encoder}. Give the checkpoint that it was trained with."
        )
    refiner = SAMRefiner.of(model, info, **config.model_dump(exclude={"image_encoder"}))
    check_tensors("The refiner's weights", refiner.trained_weights(), checkpoint.refiner)
    refiner.load_state_dict(dict(checkpoint.refiner), strict=False)  # the image encoder's are the model's own
    return refiner


def check_tensors(what: str, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Check that tensors have the names and shapes of a module's.

    Raises:
        DecoderError: They do not.
    """
    shapes = [{name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (expected, given)]
    if differing := sorted(name for name in {*expected, *given} if shapes[0].get(name) != shapes[1].get(name)):
        first = differing[0]
        raise DecoderError(
            f"{what} do not fit: {len(differing)} tensors differ, the first is {first}, expected "
            f"{shapes[0].get(first, 'none')}, found {shapes[1].get(first, 'none')}. Give the backbone that it was "
            "trained on."
        )
