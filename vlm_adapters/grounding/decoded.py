"""An adapter and a mask decoder: from an image and a sentence to a mask for every phrase."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby, tee
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from typing_extensions import override

from vlm_adapters.backbone.copying import CopyStream, DeviceInputs
from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.backbone.protocol import BackboneAdapter, HasModel
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.conversion import PromptLike, PromptsLike, as_prompt, as_prompts
from vlm_adapters.data.ahead import map_ahead
from vlm_adapters.data.image_order import divide_by_runs
from vlm_adapters.decoder.channels import agreeing_maps
from vlm_adapters.decoder.features import FeatureRequest, PhraseFeatures
from vlm_adapters.decoder.logits import MASK_THRESHOLD, MaskLogits, binary_masks
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.sam.model import EncodedImage, encoding_once
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.result import Grounding, PhraseMap, grounded_phrase
from vlm_adapters.grounding.stored import StoredVLM
from vlm_adapters.grounding.video import VideoGrounding
from vlm_adapters.hf.placement import is_fixed
from vlm_adapters.prompt import PhraseLike, Prompt
from vlm_adapters.video import Video


class GroundedVLM(Grounder, StoredVLM):
    """A frozen backbone and the decoder that reads its attention.

    As a module it is the decoder alone: parameters, state and mode of the backbone are not part of it. The backbone
    follows the decoder to another device, unless it is mapped over devices or quantised.

    Attributes:
        adapter: Gives the grids.
        decoder: Turns them into masks.

    Examples:
        >>> from vlm_adapters import GroundedVLM, open_dataset
        >>> scene = open_dataset("scenes:count=1,seed=4")[0]
        >>> vlm = GroundedVLM.from_pretrained("tiny-llava")
        >>> grounding = vlm.ground(scene.image, scene.text, [scene.phrases[0].text])
        >>> grounding.phrases[0].mask.shape == scene.masks[0].shape
        True
    """

    def __init__(self, adapter: BackboneAdapter, decoder: MaskDecoder) -> None:
        super().__init__()
        object.__setattr__(self, "adapter", adapter)  # past torch: an adapter that is a module stays outside, too
        self.decoder = decoder

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
        return cls(adapter, MaskDecoder.untrained(adapter.info, request, base_width=base_width))

    @property
    @override
    def description(self) -> str:
        refiner = self.decoder.refiner
        refined = f", {refiner.description}" if refiner else ""
        return f"decoder, trained on {self.adapter.info.model_type}{refined}"

    @override
    def forward(self, prompts: Sequence[Prompt], images: Sequence[EncodedImage] | None = None) -> list[MaskLogits]:
        """Compute logits as `mask_logits` does: trainers call a module."""
        return self.mask_logits(prompts, images)

    def mask_logits(self, prompts: Sequence[Prompt], images: Sequence[EncodedImage] | None = None) -> list[MaskLogits]:
        """Compute the logits of all phrases, each prompt's in its first image; gradient flows where it is enabled.

        Args:
            prompts: A batch.
            images: The first images as the refiner's model encoded them, where that was done before.
        """
        return self._logits(prompts, images, self.decoder.request.grids)

    def _logits(
        self, prompts: Sequence[Prompt], images: Sequence[EncodedImage] | None, asked: GridRequest
    ) -> list[MaskLogits]:
        refiner = self.decoder.refiner
        if refiner is not None and images is None:
            encode = refiner.sam.encode if len(prompts) == 1 else encoding_once(refiner.sam)
            images = [encode(prompt.first_image) for prompt in prompts]
        features = self._features(self.adapter.preprocess(prompts), asked)
        found: list[MaskLogits] = self.decoder(features, images or ())
        return found

    def features(self, prompts: Sequence[Prompt]) -> list[PhraseFeatures]:
        """Run the backbone: what the decoder reads of every prompt's first image."""
        return self._features(self.adapter.preprocess(prompts), self.decoder.request.grids)

    def _features(self, inputs: BackboneInputs, asked: GridRequest) -> list[PhraseFeatures]:
        request, info = self.decoder.request, self.adapter.info
        return [PhraseFeatures.of(grids, request, info) for grids in self.adapter.extract(inputs, asked)]

    @property
    def _with_presence(self) -> GridRequest:
        """What is asked for where presence is reported: all layers run, for the probabilities of the phrases' words."""
        return replace(self.decoder.request.grids, phrase_log_probabilities=True)

    @override
    def fingerprint(self) -> dict[str, str]:
        return self.decoder.fingerprint()

    @override
    def masks(self, prompts: Sequence[Prompt], *, batch_size: int = 8) -> list[dict[str, NDArray[np.bool_]]]:
        return next(self.masks_of_batches([prompts], batch_size=batch_size))

    @override
    @torch.no_grad()
    def masks_of_batches(
        self, batches: Iterable[Sequence[Prompt]], *, batch_size: int = 8
    ) -> Iterator[list[dict[str, NDArray[np.bool_]]]]:
        refiner, stream = self.decoder.refiner, CopyStream(str(self.decoder.device))
        batches, ahead = tee(batches)
        parts = ([batch[place] for place in part] for batch in ahead for part in _parts(batch, batch_size))

        def prepared(prompts: Sequence[Prompt]) -> DeviceInputs:
            return stream.copied(lambda: self.adapter.preprocess(prompts))

        with closing(map_ahead(prepared, parts, workers=1, most=1)) as inputs:
            for batch in batches:
                encode = None if refiner is None else encoding_once(refiner.sam)
                of_parts = (next(inputs).ready() for _ in _parts(batch, batch_size))
                yield [masks for part in of_parts for masks in self._masks(part, encode)]
            next(inputs, None)  # raises the error that ended the batches, if it came while they were taken ahead

    def _masks(
        self, inputs: BackboneInputs, encode: Callable[[Image.Image], EncodedImage] | None
    ) -> Iterator[dict[str, NDArray[np.bool_]]]:
        images = [encode(prompt.first_image) for prompt in inputs.prompts] if encode else ()
        features = self._features(inputs, self.decoder.request.grids)
        for prompt, logits in zip(inputs.prompts, self.decoder(features, images), strict=True):
            size = prompt.first_image.height, prompt.first_image.width
            absent = self._absent(logits)
            names = ["coarse", "refined"] if encode else ["mask"]
            masks = {name: np.empty((len(prompt.phrases), *size), np.bool_) for name in names}
            for index, of_phrase in enumerate(logits.by_phrase()):
                masks[names[0]][index] = binary_masks(of_phrase.coarse_at_image_size(size))[0].cpu().numpy()
                if encode:
                    masks["refined"][index] = binary_masks(of_phrase.at_image_size(size))[0].cpu().numpy()
            for of_name in masks.values():
                of_name[absent & (not self.keeps_absent_masks)] = False
            yield masks

    def _absent(self, logits: MaskLogits) -> NDArray[np.bool_]:
        """Whether each phrase counts as absent, `(P,)`; where presence was not learned, none does."""
        head = self.decoder.presence
        if head is None or logits.presence is None:
            return np.zeros(len(logits.coarse), np.bool_)
        absent: NDArray[np.bool_] = head.calibration.absent(logits.presence).cpu().numpy()
        return absent

    def _presence(self, logits: MaskLogits) -> list[float | None]:
        """The presence of each phrase: learned and calibrated, else the backbone's own; None where there is neither."""
        head, found = self.decoder.presence, logits.least_probabilities
        if head is not None and logits.presence is not None:
            found = head.calibration.probabilities(logits.presence)
        return [None] * len(logits.coarse) if found is None else list(found.tolist())

    @override
    @torch.no_grad()
    def ground_all(self, prompts: PromptsLike) -> list[Grounding]:
        logits = self._logits(prompts := as_prompts(prompts), None, self._with_presence)
        return [self.grounding_of(prompt, of_prompt) for prompt, of_prompt in zip(prompts, logits, strict=True)]

    @override
    @torch.no_grad()
    def ground_images(self, prompt: PromptLike) -> list[Grounding]:
        request, info, refiner = self.decoder.request, self.adapter.info, self.decoder.refiner
        prompt = as_prompt(prompt)
        (extracted,) = self.adapter.extract(self.adapter.preprocess([prompt]), self._with_presence)
        found = []
        for index, image in enumerate(prompt.media):
            if isinstance(image, Video):
                continue
            features = PhraseFeatures.of(extracted, request, info, image=index)
            (logits,) = self.decoder([features], [refiner.sam.encode(image)] if refiner else ())
            found.append(self.grounding_of(prompt, logits, image))
        return found

    @torch.no_grad()
    def ground_video(self, video: Video, text: str, phrases: Sequence[PhraseLike]) -> VideoGrounding:
        """Find the phrases of a sentence in every frame of a video.

        Frames that the model sees together share their maps; each has masks of its own where a refiner looks at it.

        Args:
            video: The frames and their times.
            text: The sentence.
            phrases: Strings that occur once in it, or spans `(start, end)` of its characters.

        Raises:
            PromptError: The text or a phrase cannot be used, or the backbone takes no video.
            DecoderError: The decoder does not fit the maps of the backbone.
        """
        prompt, refiner = Prompt.describe(video, text, phrases), self.decoder.refiner
        request, info = self.decoder.request, self.adapter.info
        extracted = self.adapter.extract(self.adapter.preprocess([prompt]), self._with_presence)[0]
        found: list[Grounding] = []
        for (first, end), together in groupby(extracted, key=lambda grids: grids.grid.frames):
            features = PhraseFeatures.of(list(together), request, info)
            for frame in video.frames[first:end]:
                if refiner is not None or frame is video.frames[first]:
                    (logits,) = self.decoder([features], [refiner.sam.encode(frame)] if refiner else ())
                found.append(self.grounding_of(prompt, logits, frame))
        return VideoGrounding(video, text, tuple(found))

    @torch.no_grad()
    def grounding_of(self, prompt: Prompt, logits: MaskLogits, image: Image.Image | None = None) -> Grounding:
        """Place the logits of a prompt's phrases over an image, one phrase after the other, and cut them off.

        Args:
            prompt: The prompt.
            logits: Those of its phrases.
            image: A frame of the prompt's video; None for its first image.
        """
        image = image or prompt.first_image
        size = image.height, image.width
        attention = agreeing_maps(logits.maps, logits.coarse.sigmoid()).cpu().numpy()
        presence, absent = self._presence(logits), self._absent(logits)
        phrases = []
        for index, (phrase, of_phrase) in enumerate(zip(prompt.phrases, logits.by_phrase(), strict=True)):
            found, region = of_phrase.where_positive(size)
            on_image = PhraseMap(attention[index], logits.box, size)
            probability = found[0].sigmoid().cpu().numpy()
            if absent[index] and not self.keeps_absent_masks:
                probability = np.zeros_like(probability)
            grounded = grounded_phrase(phrase, probability, on_image, MASK_THRESHOLD, region[:2])
            phrases.append(replace(grounded, presence=presence[index], absent=bool(absent[index])))
        return self.result(prompt, image, phrases, "decoder")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's
        """Move or cast the decoder, and let the backbone follow it to its device; it keeps its precision."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if isinstance(self.adapter, HasModel) and not is_fixed(self.adapter.model):
            self.adapter.model.to(self.decoder.device)
        return self


def _parts(prompts: Sequence[Prompt], most: int) -> list[range]:
    """Divide prompts into parts that are computed at once; neighbours about one image stay together where they fit."""
    return divide_by_runs([id(prompt.images[0]) for prompt in prompts], most)
