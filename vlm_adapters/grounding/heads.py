"""Masks without training: from the attention of the few heads of a profile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from PIL import Image
from torch import Tensor
from typing_extensions import override

from vlm_adapters.backbone.fingerprint import json_fingerprint, weights_fingerprint
from vlm_adapters.backbone.grids import Grids
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.conversion import PromptLike, PromptsLike, as_prompt, as_prompts
from vlm_adapters.decoder.presence import least_probabilities
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import RefinedLogits, refine_untrained
from vlm_adapters.geometry import Box, place_map, region_of
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.points import height_logits
from vlm_adapters.grounding.result import Grounding, PhraseMap, grounded_phrase
from vlm_adapters.heads.extraction import (
    extract_images_with_neutral,
    extract_with_neutral,
    maps_beside_neutral,
    phrase_heights,
)
from vlm_adapters.heads.profile import HeadProfile
from vlm_adapters.prompt import Prompt

_ROUNDING = 1e-6
"""How far a map that is placed may lie above its cells."""


class HeadGrounder(Grounder):
    """A frozen backbone, and the profile of its heads that show where things are.

    The maps of a phrase are divided by those of a neutral sentence on the same image, averaged by weight, smoothed and
    cut off at the profile's threshold. Where no peak stands out, nothing is found. Every prompt costs two sequences.

    Attributes:
        adapter: The backbone.
        profile: The heads, and how a mask is made of their maps.
        sam: A Segment Anything model that refines the masks, untrained; None leaves them unrefined.
    """

    def __init__(self, adapter: BackboneAdapter, profile: HeadProfile, sam: SegmentAnything | None = None) -> None:
        profile.check_fits(adapter.info)
        profile.check_has_heads()
        self.adapter = adapter
        self.profile = profile
        self.sam = sam

    @property
    @override
    def description(self) -> str:
        heads = ", ".join(map(str, self.profile.heads))
        chosen = f"chosen by {self.profile.criterion} on {self.profile.samples} images from {self.profile.source}"
        refined = ", refined by Segment Anything as it is" if self.sam else ""
        return f"heads, without training: {heads} (layer.head), {chosen}{refined}"

    @override
    def fingerprint(self) -> dict[str, str]:
        found = {"head_profile": json_fingerprint(self.profile.model_dump(mode="json"))}
        return found | ({"sam": weights_fingerprint(self.sam.state_dict())} if self.sam else {})

    @override
    def ground_all(self, prompts: PromptsLike) -> list[Grounding]:
        prompts = as_prompts(prompts)
        extracted = extract_with_neutral(self.adapter, prompts, self.profile.neutral, self._request)
        return [
            self._grounding(prompt, prompt.first_image, *grids)
            for prompt, grids in zip(prompts, extracted, strict=True)
        ]

    @override
    def ground_images(self, prompt: PromptLike) -> list[Grounding]:
        prompt = as_prompt(prompt)
        extracted = extract_images_with_neutral(self.adapter, prompt, self.profile.neutral, self._request)
        return [self._grounding(prompt, image, *grids) for image, grids in zip(prompt.images, extracted, strict=True)]

    @property
    def _request(self) -> GridRequest:
        return replace(GridRequest.of_heads(self.profile.indices), phrase_log_probabilities=True)

    def _grounding(
        self, prompt: Prompt, image: Image.Image, grids: Sequence[Grids], neutral: Sequence[Grids]
    ) -> Grounding:
        size = image.height, image.width
        relative, box = maps_beside_neutral(grids, neutral, self.profile.indices)
        found = phrase_heights(relative, self.profile)
        threshold = self.profile.threshold if self.sam is None else 0.5
        phrases = tuple(
            grounded_phrase(phrase, probability.cpu().numpy(), PhraseMap(on_grid, box, size), threshold, corner)
            for phrase, (probability, corner), on_grid in zip(
                prompt.phrases, self._probabilities(image, found, box), found.cpu().numpy(), strict=True
            )
        )
        if said := grids[0].phrase_log_probabilities:
            presence = least_probabilities(said).tolist()
            phrases = tuple(replace(found, presence=of) for found, of in zip(phrases, presence, strict=True))
        return self.result(prompt, image, phrases, "heads")

    def _probabilities(self, image: Image.Image, found: Tensor, box: Box) -> Iterator[tuple[Tensor, tuple[int, int]]]:
        """Yield for every map of `found (P, h, w)` a rectangle of the image, in which its mask is, and its corner."""
        size = image.height, image.width
        if self.sam is None:
            for on_grid in found:
                cells = on_grid > self.profile.threshold - _ROUNDING
                region = region_of(cells, box, size) or (0, 0, 0, 0)
                yield place_map(on_grid, box, size, region=region), region[:2]
            return
        for one, refined in zip(found, self._refined(self.sam, image, found, box), strict=True):
            probability = refined.at_image_size()[0].sigmoid()
            yield probability * (one.amax() > 0).to(probability.device), (0, 0)

    def _refined(self, sam: SegmentAnything, image: Image.Image, found: Tensor, box: Box) -> Iterator[RefinedLogits]:
        logits = height_logits(found, self.profile.threshold)
        refined = refine_untrained(sam, sam.encode(image), logits, box)
        return map(refined.of_phrase, range(len(found)))
