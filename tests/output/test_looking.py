"""`look` in one call: where phrases look, as a sequence that shows itself."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vlm_adapters import load_adapter, load_grounder, look, open_dataset
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import CheckpointError, OptionError
from vlm_adapters.heads.attention import attention_maps
from vlm_adapters.output.attention import attention_sheet


@pytest.fixture(scope="module")
def scene() -> Sample:
    return open_dataset("scenes:count=1,seed=6")[0]


@pytest.fixture(scope="module")
def adapter() -> BackboneAdapter:
    return load_adapter("tiny-llava")


def test_it_is_the_attention_maps_of_every_phrase(scene: Sample, adapter: BackboneAdapter) -> None:
    found = look(scene.image, scene.text, [phrase.text for phrase in scene.phrases], model=adapter)
    ((maps,),) = attention_maps(adapter, [scene.prompt])
    assert [one.phrase.text for one in found] == [phrase.text for phrase in maps.phrases]
    assert [one.reliability for one in found] == list(maps.reliability)
    for index, one in enumerate(found):
        placed = maps.grid.place(maps.together(index), scene.masks.shape[1:]).numpy()
        np.testing.assert_allclose(one.map, placed / placed.max(), atol=1e-6)


def test_a_planted_head_is_looked_through(planted: BackboneAdapter, squares: list[Sample]) -> None:
    sample = squares[0]
    found = look(sample.image, sample.text, [phrase.text for phrase in sample.phrases], model=planted)
    for one, mask in zip(found, sample.masks, strict=True):
        assert mask[np.unravel_index(one.map.argmax(), one.map.shape)]


def test_names_adapters_and_grounders_give_the_same(scene: Sample, adapter: BackboneAdapter) -> None:
    maps = [look(scene.image, "a pink star", model=model)[0].map for model in (adapter, "tiny-llava")]
    maps.append(look(scene.image, "a pink star", model=load_grounder(adapter))[0].map)
    assert all(np.array_equal(one, maps[0]) for one in maps)


def test_the_figure_has_a_row_for_a_phrase_and_a_phrase_has_its_sheet(scene: Sample, adapter: BackboneAdapter) -> None:
    one, two = (look(scene.image, scene.text, words, model=adapter) for words in (["a pink star"], ["a pink star"] * 2))
    assert one.figure().width == two.figure().width
    assert 1.6 < two.figure().height / one.figure().height < 2.1
    shown = Image.open(io.BytesIO(one[0]._repr_png_()))
    expected = attention_sheet(one.prompt, one.finest, 0, 5)
    assert shown.convert("RGB").tobytes() == expected.tobytes()


def test_it_is_one_line_with_the_reliability_of_every_phrase(scene: Sample, adapter: BackboneAdapter) -> None:
    found = look(scene.image, "a pink star", model=adapter)
    level = found[0].reliability.level
    expected = f"Attention('a pink star' by tiny-llava on 16 x 16 cells; reliability: 'a pink star' {level})"
    assert (repr(found), len(found)) == (expected, 1)
    assert repr(found[0]).startswith(f"PhraseAttention('a pink star': reliability {level} (")


def test_a_model_that_cannot_be_used_is_refused(scene: Sample, adapter: BackboneAdapter) -> None:
    with pytest.raises(OptionError, match=r"is loaded already\. Leave dtype out"):
        look(scene.image, "a pink star", model=adapter, dtype="float32")
    with pytest.raises(CheckpointError, match="The name of a model is None"):
        look(scene.image, "a pink star", model=None)  # type: ignore[arg-type]
