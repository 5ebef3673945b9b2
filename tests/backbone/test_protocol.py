"""Frames of coordinates, and answers of the embedded model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_adapters.backbone.protocol import BackboneAdapter, SupportsGeneration, SupportsPointing
from vlm_adapters.data.formats.scenes import COLOURS, HELD_OUT_SEED, SHAPES, Scenes
from vlm_adapters.errors import PromptError
from vlm_adapters.geometry import Box, CoordinateFrame
from vlm_adapters.prompt import DESCRIBE_QUESTION, Message, Prompt
from vlm_adapters.registry.loading import load_adapter
from vlm_adapters.testing.fakes import FakeAdapter

SIDES = st.floats(1, 5000)


@pytest.mark.parametrize(
    ("frame", "box"),
    [
        (CoordinateFrame(1000, 1000), (250, 500, 500, 1000)),
        (CoordinateFrame(644, 476), (161, 238, 322, 476)),
    ],
)
def test_a_box_of_a_frame_in_pixels_by_hand(frame: CoordinateFrame, box: Box) -> None:
    assert frame.to_image(box, (480, 640)) == pytest.approx((160, 240, 320, 480))


@given(SIDES, SIDES, SIDES, SIDES, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_there_and_back_is_the_same_box(width: float, height: float, W: float, H: float, shares: list[float]) -> None:
    frame, size = CoordinateFrame(width, height), (int(H), int(W))
    box = (shares[0] * size[1], shares[1] * size[0], shares[2] * size[1], shares[3] * size[0])
    assert frame.to_image(frame.from_image(box, size), size) == pytest.approx(box)


def test_a_frame_without_an_area_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        CoordinateFrame(0, 5)


def test_abilities_are_distinguished() -> None:
    assert not isinstance(FakeAdapter(), SupportsGeneration)
    assert not isinstance(FakeAdapter(), SupportsPointing)


@pytest.fixture(scope="module")
def adapter() -> BackboneAdapter:
    return load_adapter("tiny-qwen2_5_vl")


def test_the_embedded_model_describes_a_scene(adapter: BackboneAdapter) -> None:
    assert isinstance(adapter, SupportsGeneration)
    scene = Scenes(1, seed=HELD_OUT_SEED)[0]
    prompt = Prompt((Message("user", (scene.image, DESCRIBE_QUESTION)),))
    answer = adapter.generate(prompt, max_new_tokens=60)
    assert set(answer.text.split()) & set(COLOURS)
    assert set(answer.text.split()) & set(SHAPES)
    assert "<|" not in answer.text
    assert adapter.generate(prompt, max_new_tokens=60) == answer
    assert len(adapter.generate(prompt, max_new_tokens=2).text.split()) <= 2


def test_only_a_user_is_answered(adapter: BackboneAdapter) -> None:
    assert isinstance(adapter, SupportsGeneration)
    with pytest.raises(PromptError, match="ends with the turn of the assistant"):
        adapter.generate(Prompt.describe(Scenes(1)[0].image, "a red circle"))
