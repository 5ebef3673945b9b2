"""Maps beside a neutral sentence, with sinks found and taken out, and how reliable they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from typing_extensions import override

from vlm_adapters import GridRequest, load_adapter
from vlm_adapters.backbone.grids import BackboneInputs, Grids
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.data.sample import Sample
from vlm_adapters.heads.attention import Reliability, attention_maps
from vlm_adapters.heads.extraction import listed_prompt, turned_prompt
from vlm_adapters.heads.maps import head_maps, relative_maps
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.fakes import FakeAdapter, load_coarse_fake

if TYPE_CHECKING:
    from vlm_adapters.backbone.protocol import BackboneAdapter

TINY = ("tiny-qwen2_5_vl", "tiny-llava", "tiny-deepseek_vl")


def heads_of(ranking: Any) -> list[tuple[int, int]]:
    return [(head.layer, head.head) for head in ranking]


def test_for_every_phrase_the_head_that_follows_comes_first_and_corners_are_flagged(
    cornered: BackboneAdapter, squares: list[Sample]
) -> None:
    of_prompts = attention_maps(cornered, [sample.prompt for sample in squares])
    for (maps,), sample in zip(of_prompts, squares, strict=True):
        assert maps.phrases == sample.phrases
        assert maps.sinks.nonzero().tolist() == [[0, 0], [10, 15]]
        for ranking in maps.ranking:
            assert heads_of(ranking)[0] == (2, 0)
            assert ranking[0].following > 0.9
            assert [head.following for head in ranking[1:]] == [0, 0, 0]
            assert {str(head) for head in ranking if head.on_sinks > 0.9} == {"0.0", "0.1"}


def test_one_phrase_is_enough(cornered: BackboneAdapter, squares: list[Sample]) -> None:
    for text, mask in (("a red square", squares[0].masks[0]), ("a green square", squares[0].masks[1])):
        ((maps,),) = attention_maps(cornered, [Prompt.describe(squares[0].image, text, [text])])
        assert heads_of(maps.ranking[0])[0] == (2, 0)
        row, column = divmod(int(maps.together(0).argmax()), 16)
        assert mask[row * 10 + 5, column * 10 + 5]


def test_maps_are_what_extract_gives_beside_the_neutral_sentence(
    planted: BackboneAdapter, squares: list[Sample]
) -> None:
    ((maps,),) = attention_maps(planted, [squares[0].prompt], neutral="a picture")
    asked = [squares[0].prompt, Prompt.describe(squares[0].image, "a picture", ["a picture"])]
    own, neutral = (head_maps(grids)[0] for grids in planted.extract(planted.preprocess(asked), GridRequest()))
    torch.testing.assert_close(maps.maps.flatten(1, 2), relative_maps(own, neutral[0]))


def test_raw_maps_are_those_of_extract_and_are_ranked_alike(planted: BackboneAdapter, squares: list[Sample]) -> None:
    ((raw,),) = attention_maps(planted, [squares[0].prompt], raw=True)
    ((grids,),) = planted.extract(planted.preprocess([squares[0].prompt]), GridRequest())
    assert torch.equal(raw.maps, grids.attention)
    ((relative,),) = attention_maps(planted, [squares[0].prompt])
    assert (raw.ranking, raw.reliability) == (relative.ranking, relative.reliability)
    assert (raw.raw, relative.raw) == (True, False)


@pytest.mark.parametrize("name", TINY)
def test_the_image_passes_the_vision_tower_once(name: str) -> None:
    adapter: Any = load_adapter(name)
    seen: list[int] = []
    towers = ("visual", "vision_model", "vision_tower")
    vision = next(module for name, module in adapter.model.named_modules() if name.endswith(towers))

    def note(_: Any, args: Any, kwargs: Any) -> None:
        seen.append(len(args[0] if args else kwargs["pixel_values"]))

    vision.register_forward_pre_hook(note, with_kwargs=True)
    prompt = Scenes(1, seed=6)[0].prompt
    adapter.extract(adapter.preprocess([prompt]), GridRequest())
    of_one_text = seen.copy()
    attention_maps(adapter, [prompt])
    assert seen == of_one_text * 2
    assert len(of_one_text) == 1


def test_every_grid_of_a_prompt_has_its_maps() -> None:
    adapter, scene = load_coarse_fake(), Scenes(1, seed=6)[0]
    (of_prompt,) = attention_maps(adapter, [scene.prompt])
    assert [maps.grid.name for maps in of_prompt] == list(adapter.info.grids)


def test_a_prompt_without_phrases_has_no_maps(planted: BackboneAdapter, squares: list[Sample]) -> None:
    ((maps,),) = attention_maps(planted, [Prompt.describe(squares[0].image, "a red square", [])])
    assert (maps.phrases, len(maps.maps), maps.ranking, maps.reliability) == ((), 0, (), ())
    assert attention_maps(planted, []) == []


SINK = (2, 0)
GIVEN = 0.9


def drained(grids: Grids) -> Grids:
    """The maps of heads that give most of their attention to a cell at the border, all but the first of a layer."""
    kept = grids.attention.clone()
    mass = kept[:, :, 1:].sum(dim=(-2, -1))
    kept[:, :, 1:] *= 1 - GIVEN
    kept[:, :, 1:, SINK[0], SINK[1]] += GIVEN * mass
    return replace(grids, attention=kept)


class Drained(FakeAdapter):
    """The fake with a sink."""

    @override
    def extract(self, inputs: BackboneInputs, request: GridRequest) -> list[list[Grids]]:
        return [[drained(grids) for grids in of_prompt] for of_prompt in super().extract(inputs, request)]


def test_a_planted_sink_is_flagged_and_counted_and_taken_out() -> None:
    prompt = Scenes(1, seed=6)[0].prompt
    ((plain,),), ((sunk,),) = (attention_maps(adapter, [prompt]) for adapter in (FakeAdapter(), Drained()))
    assert not plain.sinks.any()
    assert sunk.sinks.nonzero().tolist() == [list(SINK)]
    for before, after in zip(plain.reliability, sunk.reliability, strict=True):
        assert before.on_sinks == 0
        assert after.on_sinks == pytest.approx(2 / 3 * GIVEN, abs=0.05)
        assert after.value < before.value or before.value == 0
    ratio = (sunk.maps / plain.maps)[..., ~sunk.sinks]
    assert float((ratio / ratio.median() - 1).abs().max()) < 0.3
    assert (sunk.maps[..., 2, 0] <= sunk.maps[..., 1:4, 0:2].amax(dim=(-2, -1))).all()


@pytest.mark.parametrize("name", TINY)
def test_a_sink_in_an_embedded_model_is_taken_out_and_its_maps_peak_where_they_did(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter: Any = load_adapter(name)
    extract, prompts = adapter.extract, [scene.prompt for scene in Scenes(3, seed=6)]
    before = attention_maps(adapter, prompts)
    monkeypatch.setattr(adapter, "extract", lambda *a: [[drained(grids) for grids in some] for some in extract(*a)])
    shown, raw = (attention_maps(adapter, prompts, raw=raw) for raw in (False, True))
    same, peaks = [], []
    for (plain,), (sunk,), (as_extracted,) in zip(before, shown, raw, strict=True):
        assert sunk.sinks.nonzero().tolist() == [list(SINK)]
        assert not plain.sinks.any()
        for phrase, (was, found) in enumerate(zip(plain.reliability, sunk.reliability, strict=True)):
            assert found.on_sinks > 0.7
            assert found.level == "low"
            assert found.value <= was.value
            same.append(bool(plain.together(phrase).argmax() == sunk.together(phrase).argmax()))
            flat = as_extracted.maps[phrase, :, 1:].flatten(-2).argmax(dim=-1)
            peaks.append((flat == SINK[0] * sunk.grid.shape[1] + SINK[1]).float().mean())
    assert sum(same) / len(same) > 0.5
    assert min(peaks) > 0.95


def test_reliability_in_sum() -> None:
    assert Reliability(0.6, 0.0, 0.5).value == pytest.approx(0.6)
    assert Reliability(0.6, 0.5, 0.5).value == pytest.approx(0.3)
    assert Reliability(0.6, 0.0, 0.01).value == pytest.approx(0.3)
    found = [Reliability(agreement, 0.0, 0.5).level for agreement in (0.5, 0.4, 0.25, 0.2)]
    assert found == ["high", "fair", "fair", "low"]
    assert str(Reliability(0.6, 0.5, 0.5)) == "fair (0.30: agreement 0.60, on sinks 50%, difference 0.50)"


def test_heads_that_agree_are_more_reliable_than_one_alone(cornered: BackboneAdapter, squares: list[Sample]) -> None:
    class Agreeing(type(cornered)):  # type: ignore[misc]
        """All four heads look at the colour that is named."""

        def maps(self, *arguments: Any) -> torch.Tensor:
            found: torch.Tensor = super().maps(*arguments)
            return found[1:, :1].expand_as(found).clone()

    ((alone,),), ((together,),) = (attention_maps(adapter, [squares[0].prompt]) for adapter in (cornered, Agreeing()))
    for one, many in zip(alone.reliability, together.reliability, strict=True):
        assert many.agreement == pytest.approx(1, abs=1e-4)
        assert (one.level, many.level) == ("low", "high")


def test_the_phrases_are_listed_in_another_sentence(squares: list[Sample]) -> None:
    listed = listed_prompt(squares[0].prompt, "an image")
    assert listed.text == "an image: a green square, a red square"
    assert [phrase.text for phrase in listed.phrases] == ["a red square", "a green square"]
    assert listed.images == squares[0].prompt.images
    assert listed_prompt(Prompt.describe(squares[0].image, "nothing"), "an image").text == "an image"


def test_an_image_is_turned_upside_down_and_the_sentence_stays(squares: list[Sample]) -> None:
    turned = turned_prompt(squares[0].prompt)
    image = squares[0].image
    assert turned.images[0].getpixel((159 - 25, 109 - 15)) == image.getpixel((25, 15)) == (255, 0, 0)
    assert (turned.text, turned.phrases) == (squares[0].text, squares[0].phrases)
