"""An adapter and a decoder: from an image and a sentence to a mask for every phrase."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from vlm_adapters.backbone.fingerprint import weights_fingerprint
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.decoder.channels import agreeing_maps
from vlm_adapters.decoder.checkpoint import (
    REFINER_FILE,
    WEIGHTS_FILE,
    StoredDecoder,
    build_refiner,
    folder_of,
    read_stored,
    saved_refiner,
    sha256_of,
    trained_weights,
)
from vlm_adapters.decoder.features import FeatureRequest, MaskLogits, PhraseFeatures, decode_masks
from vlm_adapters.decoder.sam.checkpoint import load_sam
from vlm_adapters.decoder.sam.model import EncodedImage, SegmentAnything, encoding_once
from vlm_adapters.decoder.sam.refiner import SAMRefiner, UntrainedRefiner
from vlm_adapters.decoder.saved import SavedDecoder
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.errors import DecoderError, OptionError
from vlm_adapters.geometry import place_map
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.result import Grounding, grounded_phrase
from vlm_adapters.prompt import Prompt
from vlm_adapters.registry.loading import load_adapter


class GroundedVLM(Grounder):
    """A frozen backbone, the decoder that reads its attention, and what refines its masks.

    Attributes:
        adapter: Gives the grids.
        decoder: U-Net over the channels of `request`.
        request: What the decoder reads; a `GridRequest` alone is taken with all its heads.
        refiner: Refines the masks; None takes them as they are.
    """

    def __init__(
        self,
        adapter: BackboneAdapter,
        decoder: UNet,
        request: FeatureRequest | GridRequest | None = None,
        refiner: SAMRefiner | UntrainedRefiner | None = None,
    ) -> None:
        self.adapter = adapter
        self.decoder = decoder
        request = request if isinstance(request, FeatureRequest) else FeatureRequest(request or GridRequest())
        self.request = replace(request, hidden=refiner is not None and refiner.use_text)
        self.refiner = refiner

    @classmethod
    def untrained(
        cls, adapter: BackboneAdapter, request: FeatureRequest | None = None, *, base_width: int = 64
    ) -> Self:
        """Give an adapter a decoder of its size, with random weights, to be trained.

        Args:
            adapter: Its `info` says how many channels the decoder reads.
            request: What the decoder reads; None is the maps of all heads.
            base_width: Channels of the decoder's first stage; 64 is the paper's.
        """
        request = request or FeatureRequest()
        return cls(adapter, UNet(UNetConfig(request.channels(adapter.info), base_width=base_width)), request)

    @property
    @override
    def description(self) -> str:
        refined = {
            SAMRefiner: ", refined by Segment Anything",
            UntrainedRefiner: ", refined by Segment Anything as it is",
        }
        return f"decoder, trained on {self.adapter.info.model_type}{refined.get(type(self.refiner), '')}"

    def mask_logits(self, prompts: Sequence[Prompt], images: Sequence[EncodedImage] | None = None) -> list[MaskLogits]:
        """Compute the logits of all phrases, each prompt's in its first image; gradient flows where it is enabled.

        Args:
            prompts: A batch.
            images: The first images as the refiner's model encoded them, where that was done before.
        """
        place = next(self.decoder.parameters()).device
        if self.refiner is not None and images is None:
            images = [self.refiner.sam.encode(prompt.images[0]) for prompt in prompts]
        features = [own.to(place) for own in self.features(prompts)]
        return decode_masks(features, self.decoder, self.refiner, images or ())

    def features(self, prompts: Sequence[Prompt]) -> list[PhraseFeatures]:
        """Run the backbone: what the decoder reads of every prompt's first image."""
        extracted = self.adapter.extract(self.adapter.preprocess(prompts), self.request.grids)
        return [PhraseFeatures.of(grids, self.request) for grids in extracted]

    @override
    def fingerprint(self) -> dict[str, str]:
        found = {f"decoder/{WEIGHTS_FILE}": sha256_of(self.decoder.state_dict())}
        if isinstance(self.refiner, SAMRefiner):
            found[f"decoder/{REFINER_FILE}"] = sha256_of(trained_weights(self.refiner))
        return found | ({"sam": weights_fingerprint(self.refiner.sam.state_dict())} if self.refiner else {})

    @override
    @torch.no_grad()
    def masks(self, prompts: Sequence[Prompt], *, batch_size: int = 8) -> list[dict[str, NDArray[np.bool_]]]:
        encode = None if self.refiner is None else encoding_once(self.refiner.sam)
        found = []
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            images = [encode(prompt.images[0]) for prompt in batch] if encode else None
            for prompt, logits in zip(batch, self.mask_logits(batch, images), strict=True):
                size = prompt.images[0].height, prompt.images[0].width
                placed = {"mask": place_map(logits.coarse, logits.box, size, outside=float("-inf"))}
                if logits.refined is not None:
                    placed = {"coarse": placed["mask"], "refined": logits.refined}
                found.append({name: (each.sigmoid() > 0.5).cpu().numpy() for name, each in placed.items()})
        return found

    @override
    def ground_all(self, prompts: Sequence[Prompt]) -> list[Grounding]:
        with torch.no_grad():
            logits = self.mask_logits(prompts)
            return [self._grounding(prompt, own) for prompt, own in zip(prompts, logits, strict=True)]

    def _grounding(self, prompt: Prompt, logits: MaskLogits) -> Grounding:
        image = prompt.images[0]
        size = image.height, image.width
        placed = logits.refined
        if placed is None:
            placed = place_map(logits.coarse, logits.box, size, outside=float("-inf"))
        heat = place_map(agreeing_maps(logits.maps, logits.coarse.sigmoid()), logits.box, size).cpu().numpy()
        return Grounding(
            image,
            prompt.text,
            tuple(
                grounded_phrase(phrase, probability, attention)
                for phrase, probability, attention in zip(
                    prompt.phrases, placed.sigmoid().cpu().numpy(), heat, strict=True
                )
            ),
        )

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the trained tensors and `config.json`, which names the backbone and its revision.

        Of a refiner's Segment Anything model the image encoder is not written: it is not trained.
        """
        refiner = self.refiner if isinstance(self.refiner, SAMRefiner) else None
        config = SavedDecoder.of(self.adapter.info, self.decoder.config, self.request)
        if refiner:
            config = config.model_copy(update={"refiner": saved_refiner(refiner)})
        StoredDecoder(config, self.decoder.state_dict(), trained_weights(refiner) if refiner else {}).write(
            Path(folder)
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        adapter: BackboneAdapter | None = None,
        sam: str | os.PathLike[str] | SegmentAnything | None = None,
        device: str | int | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        **options: Any,
    ) -> Self:
        """Load a decoder and, unless it is given, the backbone that it was trained on.

        Args:
            name_or_path: A folder written by `save_pretrained`, or a backbone's folder or embedded backbone that has
                such a folder `decoder` in it.
            adapter: A backbone that is loaded already, with which no options go.
            sam: A Segment Anything model or its checkpoint file. A decoder that was trained with a refiner needs the
                one of its training; masks of another decoder are refined by it untrained.
            device: Where the backbone and the decoder live, as `load_adapter` takes it.
            dtype: Precision of the backbone, as `load_adapter` takes it.
            options: What else `load_adapter` takes: `device_map`, `quantization_config`, `attn_implementation`,
                `token`, ..., and the family's own.

        Raises:
            CheckpointError: The folder holds no decoder.
            OptionError: An option is unknown, or its value cannot be used, or it comes with an adapter.
            DecoderError: The decoder or the refiner does not fit the backbone or the Segment Anything model.
        """
        options |= {name: value for name, value in (("device", device), ("dtype", dtype)) if value != "auto"}
        if adapter is not None and options:
            raise OptionError(f"The adapter given is loaded already. Leave {', '.join(options)} out.")
        folder = folder_of(Path(name_or_path))
        stored = read_stored(folder)
        backbone = stored.config.backbone
        if stored.config.refiner and sam is None:
            raise DecoderError(
                f"The decoder in {folder} was trained with a refiner on {stored.config.refiner.encoder}. Give that "
                "Segment Anything checkpoint: sam=FILE, or --sam FILE."
            )
        if adapter is None:
            adapter = load_adapter(
                backbone.checkpoint, **{"revision": backbone.revision, **backbone.options, **options}
            )
        if adapter.info.model_type != backbone.model_type:
            raise DecoderError(
                f"The decoder in {folder} was trained on {backbone.model_type} ({backbone.checkpoint}), and "
                f"the backbone given is {adapter.info.model_type} ({adapter.info.checkpoint}). Give its own."
            )
        decoder = UNet(stored.config.decoder)
        try:
            decoder.load_state_dict(dict(stored.decoder))
        except RuntimeError as error:
            told = " ".join(str(error).split())  # torch tells every tensor on a line of its own
            told = told if len(told) <= 300 else told[:300] + "..."
            raise DecoderError(f"The weights in {folder} do not fit its config: {told}") from error
        place = torch.device(adapter.info.device)
        refiner = None if sam is None else _refiner(stored, adapter, sam).to(place).eval()
        return cls(adapter, decoder.to(place).eval(), stored.config.features(), refiner)


def _refiner(
    stored: StoredDecoder, adapter: BackboneAdapter, sam: str | os.PathLike[str] | SegmentAnything
) -> SAMRefiner | UntrainedRefiner:
    model = sam if isinstance(sam, SegmentAnything) else load_sam(sam)
    if stored.config.refiner is None:
        return UntrainedRefiner(model)
    return build_refiner(
        stored.config.refiner, stored.refiner, model, (adapter.info.hidden_size, adapter.info.num_layers)
    )
