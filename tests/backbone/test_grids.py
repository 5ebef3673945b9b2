"""The data that cross the protocol, and the rules for choosing layers and heads."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlm_adapters.backbone.grids import BackboneInputs, Grids, ImageGrid
from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.backbone.request import GridRequest, resolve_heads, resolve_layers
from vlm_adapters.errors import RequestError
from vlm_adapters.geometry import Box
from vlm_adapters.prompt import Prompt

HYBRID = (3, 7, 11)
INFO = BackboneInfo("toy", "acme/toy", None, 12, HYBRID, 4, 32, (28, 28), ("overview", "fine"))
GRID = ImageGrid(torch.arange(6).view(2, 3), (0.0, 0.0, 30.0, 10.0))


def grids(**changes: Any) -> Grids:
    fields: dict[str, Any] = {
        "grid": GRID,
        "attention": torch.zeros(2, 3, 4, 2, 3),
        "layers": HYBRID,
        "heads": (0, 1, 2, 3),
        "row_phrases": (0, 1),
        "hidden": torch.zeros(1, 32, 2, 3),
        "hidden_layers": (11,),
    }
    return Grids(**{**fields, **changes})


def test_the_one_rule_chooses_layers_of_a_hybrid() -> None:
    cases: list[tuple[Any, tuple[int, ...]]] = [
        (None, (3, 7, 11)),
        (0, ()),
        (1, (11,)),
        (2, (7, 11)),
        (3, (3, 7, 11)),
        ([], ()),
        ([3], (3,)),
        ([11, 3], (11, 3)),
        ([-1], (11,)),
        ([-3, -1], (3, 11)),
        ((7, -2), (7, 7)),
        (range(3, 12, 4), (3, 7, 11)),
    ]
    for choice, expected in cases:
        assert resolve_layers(choice, HYBRID) == expected, choice


def test_a_layer_without_attention_is_refused_with_those_that_have_it(subtests: pytest.Subtests) -> None:
    cases: list[list[int]] = [[0], [4], [12], [-4], [3, 5]]
    for choice in cases:
        with (
            subtests.test(choice=choice),
            pytest.raises(RequestError, match=rf"Layer {choice[-1]} is not available\. There are layers 3, 7, 11; neg"),
        ):
            resolve_layers(choice, HYBRID)


@pytest.mark.parametrize("choice", [4, -1])
def test_a_wrong_number_of_last_layers_is_refused(choice: int) -> None:
    expected = f"The last {choice} layers were requested; there are 3: layers 3, 7, 11."
    with pytest.raises(RequestError, match=re.escape(expected)):
        resolve_layers(choice, HYBRID)


def test_layers_without_gaps_are_shown_as_a_range() -> None:
    with pytest.raises(RequestError, match="There are layers 0 to 27;"):
        resolve_layers([28], range(28))


@given(st.lists(st.integers(0, 40), unique=True, max_size=8).map(sorted), st.data())
def test_layers_are_chosen_as_python_slices_and_indexes(available: list[int], data: st.DataObject) -> None:
    last = data.draw(st.integers(0, len(available)))
    assert resolve_layers(last, available) == tuple(available)[len(available) - last :]
    places = data.draw(st.lists(st.sampled_from(range(len(available))), max_size=5)) if available else []
    expected = tuple(available[place] for place in places)
    assert resolve_layers(expected, available) == expected
    assert resolve_layers([place - len(available) for place in places], available) == expected


def test_heads_are_chosen_by_index() -> None:
    cases: list[tuple[Sequence[int] | None, tuple[int, ...]]] = [
        (None, (0, 1, 2, 3)),
        ([], ()),
        ([2, 0], (2, 0)),
        ([-1, -4], (3, 0)),
        (range(2), (0, 1)),
    ]
    for choice, expected in cases:
        assert resolve_heads(choice, 4) == expected, choice


@pytest.mark.parametrize("head", [4, -5])
def test_a_head_that_is_not_there_is_refused(head: int) -> None:
    with pytest.raises(RequestError, match=f"Head {head} is out of range: the backbone has heads 0 to 3"):
        resolve_heads([0, head], 4)


def test_the_decoder_is_sized_by_layers_with_attention_heads_and_grids() -> None:
    assert INFO.channels == 3 * 4 * 2


@pytest.mark.parametrize(
    ("cell", "box"),
    [((0, 0), (10.0, -4.0, 15.0, 0.0)), ((1, 2), (20.0, 0.0, 25.0, 4.0)), ((0, 2), (20.0, -4.0, 25.0, 0.0))],
)
def test_a_cell_covers_its_part_of_the_box(cell: tuple[int, int], box: tuple[float, ...]) -> None:
    grid = ImageGrid(torch.arange(6).view(2, 3), (10.0, -4.0, 25.0, 4.0))
    assert grid.cell_box(*cell) == box


def test_the_cells_tile_the_box() -> None:
    grid = ImageGrid(torch.zeros(7, 5, dtype=torch.long), (-3.0, 2.0, 98.0, 79.5))
    areas = 0.0
    for row in range(7):
        for column in range(5):
            left, top, right, bottom = grid.cell_box(row, column)
            areas += (right - left) * (bottom - top)
            if column:
                assert grid.cell_box(row, column - 1)[2] == pytest.approx(left)
            if row:
                assert grid.cell_box(row - 1, column)[3] == pytest.approx(top)
    assert areas == pytest.approx(101 * 77.5)
    assert grid.cell_box(6, 4)[2:] == pytest.approx((98.0, 79.5))


def test_the_shape_of_a_grid_is_rows_then_columns() -> None:
    assert GRID.shape == (2, 3)


def test_a_grid_refuses_tokens_of_another_shape_or_type(subtests: pytest.Subtests) -> None:
    cases: list[torch.Tensor] = [
        torch.arange(6),
        torch.zeros(1, 2, 3, dtype=torch.long),
        torch.zeros(2, 3),
        torch.zeros(2, 3).int(),
    ]
    for tokens in cases:
        with subtests.test(tokens=tokens), pytest.raises(ValueError, match=r"tokens must be a \(h, w\) LongTensor"):
            ImageGrid(tokens, (0, 0, 1, 1))


def test_a_grid_refuses_a_box_without_an_area(subtests: pytest.Subtests) -> None:
    cases: list[Box] = [(0, 0, 0, 5), (0, 5, 5, 5), (5, 0, 0, 5), (0, 5, 5, 0), (0, 0, float("nan"), 1)]
    for box in cases:
        with subtests.test(box=box), pytest.raises(ValueError, match="box must be"):
            ImageGrid(torch.zeros(2, 3, dtype=torch.long), box)


def test_grids_refuse_attention_of_another_shape(subtests: pytest.Subtests) -> None:
    cases: list[tuple[int, ...]] = [
        (2, 3, 4, 3, 2),
        (1, 3, 4, 2, 3),
        (2, 2, 4, 2, 3),
        (2, 3, 1, 2, 3),
        (3, 4, 2, 3),
        (2, 12, 2, 3),
    ]
    for shape in cases:
        with (
            subtests.test(shape=shape),
            pytest.raises(
                ValueError, match=re.escape(f"attention must be (2, 3, 4, 2, 3) (P, L, n, h, w), got {shape}")
            ),
        ):
            grids(attention=torch.zeros(shape))


def test_grids_refuse_hidden_states_of_another_shape(subtests: pytest.Subtests) -> None:
    cases: list[tuple[int, ...]] = [(2, 32, 2, 3), (1, 32, 3, 2), (1, 32, 6), (0, 32, 2, 3)]
    for shape in cases:
        with subtests.test(shape=shape), pytest.raises(ValueError, match="hidden must be"):
            grids(hidden=torch.zeros(shape))


def test_channel_is_layer_times_heads_plus_head() -> None:
    attention = torch.rand(2, 3, 4, 2, 3)
    channels = grids(attention=attention).channels
    for layer in range(3):
        for head in range(4):
            torch.testing.assert_close(channels[:, layer * 4 + head], attention[:, layer, head], rtol=0, atol=0)


@pytest.mark.parametrize(("name", "value"), [("align", "next"), ("reduce", "sum"), ("align", None)])
def test_a_request_refuses_unknown_words_and_lists_those_there_are(name: str, value: object) -> None:
    fields: dict[str, Any] = {name: value}
    with pytest.raises(RequestError, match=f"{name}={value!r} is unknown. Use one of (token, p|mean, max, last, none)"):
        GridRequest(**fields)


def test_inputs_refuse_a_phrase_without_positions() -> None:
    prompt = Prompt.describe(Image.new("RGB", (4, 4)), "a cat", ["cat"])
    with pytest.raises(ValueError, match=re.escape("phrases per prompt are [1], phrase_tokens has [0]")):
        BackboneInputs((prompt,), {}, ((),))
    with pytest.raises(ValueError, match=re.escape("phrases per prompt are [1], phrase_tokens has []")):
        BackboneInputs((prompt,), {}, ())


def test_data_are_frozen(subtests: pytest.Subtests) -> None:
    cases: list[Any] = [INFO, GRID, GridRequest(), grids(), BackboneInputs((), {}, ())]
    for item in cases:
        with subtests.test(item=item), pytest.raises(dataclasses.FrozenInstanceError):
            setattr(item, dataclasses.fields(item)[0].name, None)


LAYER_FIELDS = ("layers", "hidden_layers", "phrase_hidden_layers")


def refused(field: str, choice: object) -> str:
    with pytest.raises(RequestError) as caught:
        GridRequest(**{field: choice})  # type: ignore[arg-type]
    return str(caught.value)


def test_a_choice_that_names_no_layers_is_refused() -> None:
    for choice in ("all", 1.5, [0.5], [None], object()):
        for field in LAYER_FIELDS:
            expected = f"{field}={choice!r} is not a valid choice. Give None for all, a number"
            assert refused(field, choice).startswith(expected)


def test_a_choice_that_names_no_heads_is_refused() -> None:
    for choice in ("all", 3, 1.5, [0.5]):
        expected = f"heads={choice!r} is not a valid choice. Give None for all, or a list"
        assert refused("heads", choice).startswith(expected)


def test_true_and_false_choose_no_layers() -> None:
    for choice in (True, False, np.True_, [True], (0, False), np.array([True, False])):
        for field in LAYER_FIELDS:
            message = refused(field, choice)
            assert message.startswith(f"{field}={choice!r} is not a valid choice. ")
            assert "; True and False do not count as numbers" in message


def test_true_and_false_choose_no_heads() -> None:
    for choice in (True, False, [True], [1, False], torch.tensor([True, False])):
        message = refused("heads", choice)
        assert message.startswith(f"heads={choice!r} is not a valid choice. ")
        assert "; True and False do not count as numbers" in message


def test_whole_numbers_of_any_kind_are_kept_as_plain_ones(subtests: pytest.Subtests) -> None:
    cases: list[Any] = [range(2), (0, 1), np.arange(2), torch.arange(2), iter([0, 1])]
    for choice in cases:
        with subtests.test(choice=choice):
            request = GridRequest(layers=choice)
            assert request.layers == (0, 1)
            assert {type(layer) for layer in request.layers} == {int}
            assert GridRequest(layers=np.int64(2)).layers == 2
