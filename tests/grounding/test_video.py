"""Phrases in a video: every frame gets the maps of its group, and a refiner looks at each frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from segment_anything.modeling import Sam
from typing_extensions import override

from vlm_adapters.backbone.grids import BackboneInputs, Grids
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import SAMRefiner
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.prompt import Message, Prompt
from vlm_adapters.testing.fakes import FakeAdapter
from vlm_adapters.video import Video

TEXT, WORDS = "a red circle and a blue star", ["a red circle", "a blue star"]
SIZE = (60, 90)


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8))


class PairsFake(FakeAdapter):
    """The fake, shown the first of every two frames as an image."""

    @override
    def preprocess(self, prompts: Sequence[Prompt]) -> BackboneInputs:
        still = [replace(prompt, messages=tuple(map(self._still, prompt.messages))) for prompt in prompts]
        return super().preprocess(still)

    @override
    def extract(self, inputs: BackboneInputs, request: GridRequest | None = None) -> list[list[Grids]]:
        def in_time(grids: Grids) -> Grids:
            first = 2 * grids.grid.image
            return replace(grids, grid=replace(grids.grid, image=0, frames=(first, first + 2)))

        found = super().extract(inputs, request or GridRequest())
        return [[in_time(grids) for grids in of_prompt] for of_prompt in found]

    @staticmethod
    def _still(message: Message) -> Message:
        parts: list[Any] = []
        for part in message.content:
            parts += part.frames[::2] if isinstance(part, Video) else [part]
        return Message(message.role, tuple(parts))


def grounded_vlm(refiner: SAMRefiner | None = None) -> GroundedVLM:
    torch.manual_seed(0)
    plain = GroundedVLM.untrained(PairsFake(), base_width=4)
    return GroundedVLM(PairsFake(), MaskDecoder(plain.decoder.unet, refiner=refiner)).eval()


def test_every_frame_has_the_mask_of_its_group() -> None:
    vlm, frames = grounded_vlm(), [noise(seed) for seed in range(4)]
    found = vlm.ground_video(Video(frames, [0, 1, 2, 3]), TEXT, WORDS)
    assert [grounding.image for grounding in found.frames] == list(found.video.frames)
    for phrase in range(2):
        masks = found.masks(phrase)
        assert masks.shape == (4, *SIZE)
        assert np.array_equal(masks[0], masks[1])
        assert np.array_equal(masks[2], masks[3])
    one, other = (found.frames[frame].phrases[0].map for frame in (1, 2))
    assert not np.array_equal(one, other)


def test_a_refiner_looks_at_every_frame(tiny_sam: Callable[[], Sam]) -> None:
    vlm = grounded_vlm(SAMRefiner(SegmentAnything(tiny_sam()), None, use_text=False))
    masks = vlm.ground_video(Video([noise(seed) for seed in range(4)], [0, 1, 2, 3]), TEXT, WORDS).masks(0)
    assert masks.shape == (4, *SIZE)
    assert not np.array_equal(masks[0], masks[1])
