"""The task of transformers' pipelines: it gives what the grounder itself gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import pipeline

from vlm_adapters import GroundedVLM, Grounding, load_grounder, open_dataset
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import ImageError, OptionError, PhraseError
from vlm_adapters.grounding.pipeline import GroundingModel, VisualGroundingPipeline

if TYPE_CHECKING:
    from conftest import Hub


pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own


@pytest.fixture(scope="module")
def vlm() -> GroundedVLM:
    return GroundedVLM.from_pretrained("tiny-llava")


@pytest.fixture(scope="module")
def ground(vlm: GroundedVLM) -> VisualGroundingPipeline:
    return pipeline("visual-grounding", model=GroundingModel(vlm))


@pytest.fixture(scope="module")
def scenes() -> list[Sample]:
    return list(open_dataset("scenes:count=3,seed=4"))


def given(scene: Sample) -> dict[str, Any]:
    return {"image": scene.image, "text": scene.text, "phrases": [phrase.text for phrase in scene.phrases]}


def assert_equal(found: list[dict[str, Any]], expected: Grounding) -> None:
    assert len(found) == len(expected.phrases)
    for one, other in zip(found, expected.phrases, strict=True):
        assert set(one) == {"phrase", "score", "box", "mask"}
        assert one["phrase"] == other.phrase.text
        assert one["score"] == pytest.approx(other.score, abs=1e-4)
        assert (one["box"] and tuple(one["box"].values())) == other.box
        assert (one["mask"].mode, one["mask"].size) == ("L", expected.image.size)
        assert np.array_equal(np.array(one["mask"]), other.mask * np.uint8(255))


def test_an_image_gives_what_the_grounder_gives(
    ground: VisualGroundingPipeline, vlm: GroundedVLM, scenes: list[Sample]
) -> None:
    scene = given(scenes[0])
    assert_equal(ground(scene["image"], text=scene["text"], phrases=scene["phrases"]), vlm.ground(**scene))
    assert_equal(ground(scene), vlm.ground(**scene))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_many_give_what_each_gives(
    ground: VisualGroundingPipeline, vlm: GroundedVLM, scenes: list[Sample], batch_size: int
) -> None:
    many = [given(scene) for scene in scenes]
    listed = ground(many, batch_size=batch_size)
    streamed = list(ground((scene for scene in many), batch_size=batch_size))
    for found in (listed, streamed):
        for of_scene, scene in zip(found, many, strict=True):
            assert_equal(of_scene, vlm.ground(**scene))


def test_a_batch_is_one_pass(ground: VisualGroundingPipeline, vlm: GroundedVLM, scenes: list[Sample]) -> None:
    sizes: list[int] = []
    handle = vlm.decoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    try:
        ground([given(scene) for scene in scenes], batch_size=2)
    finally:
        handle.remove()
    assert sizes == [2, 1]


def test_a_text_without_phrases_is_one_phrase(ground: VisualGroundingPipeline, scenes: list[Sample]) -> None:
    (found,) = ground(scenes[0].image, text="a pink cross")
    assert found["phrase"] == "a pink cross"
    images = [scene.image for scene in scenes[:2]]
    assert [len(of_image) for of_image in ground(images, text="a pink cross")] == [1, 1]


def test_what_is_not_found_has_an_empty_mask_and_no_box(scenes: list[Sample]) -> None:
    vlm = load_grounder("tiny-llava")
    assert isinstance(vlm, GroundedVLM)
    torch.nn.init.constant_(list(vlm.decoder.unet.parameters())[-1], -1e4)
    (found,) = pipeline("visual-grounding", model=GroundingModel(vlm))(scenes[0].image, text="a pink cross")
    assert (found["box"], found["score"], found["mask"].getbbox()) == (None, 0.0, None)


def test_a_decoder_is_found_by_its_id_and_by_its_folder(
    hub: Hub, vlm: GroundedVLM, scenes: list[Sample], tmp_path: Path
) -> None:
    vlm.save_pretrained(tmp_path / "decoder")
    vlm.push_to_hub("me/masks")
    expected = vlm.ground(**given(scenes[0]))
    for name in ("me/masks", str(tmp_path / "decoder")):
        assert_equal(pipeline("visual-grounding", model=name, device="cpu")(given(scenes[0])), expected)
    assert any("/resolve/" in request for request in hub.requests)


def test_it_works_with_the_heads_of_a_model_without_a_decoder(scenes: list[Sample]) -> None:
    model = GroundingModel.from_pretrained("tiny-llava", method="heads")
    assert_equal(pipeline("visual-grounding", model=model)(given(scenes[0])), model.grounder.ground(**given(scenes[0])))


def test_mistakes_are_typed(ground: VisualGroundingPipeline, scenes: list[Sample]) -> None:
    image = scenes[0].image
    with pytest.raises(OptionError, match="needs an image and a text"):
        ground(image)
    with pytest.raises(OptionError, match=r"has no option 'phrase'\. Its options are text and phrases"):
        ground(image, text="a cross", phrase="a cross")
    with pytest.raises(OptionError, match=r"has the key 'label'\. Give image, text and phrases"):
        ground({"image": image, "label": "a cross"})
    with pytest.raises(PhraseError):
        ground(image, text="a cross", phrases=["a dog"])
    with pytest.raises(ImageError, match="URL"):
        ground("https://example.org/cat.png", text="a cat")


def test_only_a_grounding_model_is_taken() -> None:
    with pytest.raises(OptionError, match=r"takes no Linear\. Give it GroundingModel\.from_pretrained"):
        VisualGroundingPipeline(torch.nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"stays on cpu\. Load it on meta"):
        VisualGroundingPipeline(GroundingModel.from_pretrained("tiny-llava", method="heads"), device="meta")
