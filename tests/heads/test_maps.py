"""From the maps of heads to the map of a phrase, computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vlm_adapters.backbone.grids import Grids, ImageGrid
from vlm_adapters.errors import DecoderError
from vlm_adapters.geometry import Box
from vlm_adapters.heads.maps import (
    MAX_PROMINENCE,
    combine,
    find_sinks,
    head_maps,
    heights,
    keep_large_parts,
    label_parts,
    prominence,
    relative_maps,
    smooth,
    turn_back,
)


def drawn(*rows: str) -> Tensor:
    """`(1, h, w)` floats, one digit a cell; a dot is 0."""
    return torch.tensor([[0.0 if letter == "." else float(letter) for letter in row] for row in rows])[None]


def grids_of(maps: Tensor, box: Box) -> Grids:
    phrases, layers, heads, h, w = maps.shape
    return Grids(
        grid=ImageGrid(torch.arange(h * w).view(h, w), box),
        attention=maps,
        layers=tuple(range(layers)),
        heads=tuple(range(heads)),
        row_phrases=tuple(range(phrases)),
        hidden=torch.zeros(0, 8, h, w),
    )


def test_each_head_has_one_map_with_sum_one_whatever_its_mass() -> None:
    maps = torch.rand(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    shares, box = head_maps([grids_of(maps * 1e-3, (0, 0, 60, 50))])
    assert box == (0, 0, 60, 50)
    torch.testing.assert_close(shares.sum((2, 3)), torch.ones(2, 12))
    torch.testing.assert_close(shares[1, 7], maps[1, 1, 3] / maps[1, 1, 3].sum())


def test_the_map_of_a_head_is_the_mean_of_its_shares_in_all_grids() -> None:
    coarse, fine = torch.tensor([[[[[1.0, 3.0]]]]]), torch.tensor([[[[[8.0, 0.0]]]]])
    shares, _ = head_maps([grids_of(coarse, (0, 0, 2, 1)), grids_of(fine, (0, 0, 2, 1))])
    torch.testing.assert_close(shares[0, 0], torch.tensor([[(0.25 + 1) / 2, (0.75 + 0) / 2]]))


def test_the_maps_of_chosen_heads_are_those_of_all_heads_in_their_order() -> None:
    maps = torch.rand(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    both = [grids_of(maps, (0, 0, 60, 50)), grids_of(maps.flip(0), (0, 0, 60, 50))]
    (every, box), (chosen, same_box) = head_maps(both), head_maps(both, [(2, 1), (0, 3)])
    assert torch.equal(chosen, every[:, [9, 3]])
    assert box == same_box


def test_an_image_without_grids_is_refused() -> None:
    with pytest.raises(DecoderError, match="no grids"):
        head_maps([])


def test_where_the_phrase_looks_as_the_neutral_sentence_does_nothing_stands_out() -> None:
    maps = torch.full((1, 1, 2, 2), 0.25)
    # A share of 1/4, divided by the neutral 1/4 and the even 1/4.
    torch.testing.assert_close(relative_maps(maps, maps[0]), torch.full((1, 1, 2, 2), 0.5))


def test_maps_are_divided_by_hand() -> None:
    maps, neutral = torch.tensor([[[[2.0, 2.0, 0.0, 0.0]]]]), torch.tensor([[[1.0, 0.0, 0.0, 3.0]]])
    expected = torch.tensor([[[[0.5 / 0.5, 0.5 / 0.25, 0.0, 0.0]]]])
    torch.testing.assert_close(relative_maps(maps, neutral), expected)


def test_the_scale_of_a_map_does_not_matter() -> None:
    maps, neutral = torch.rand(2, 3, 4, 5), torch.rand(3, 4, 5)
    torch.testing.assert_close(relative_maps(maps * 7, neutral * 0.01), relative_maps(maps, neutral))


def test_a_sink_is_where_half_of_the_heads_put_ten_times_the_even_share() -> None:
    neutral = torch.ones(4, 5, 8)
    neutral[:2, 2, 3] = 40  # 40 / 79 of the map; ten times the even share is 10 / 40
    neutral[:1, 4, 4] = 40
    assert find_sinks(neutral).nonzero().tolist() == [[2, 3]]


def test_a_sink_is_also_where_a_quarter_of_the_heads_put_half_of_all_they_have() -> None:
    neutral = torch.ones(8, 5, 8)
    neutral[:2, 0, 0] = 40  # 40 of 79, and ten times the even share
    neutral[2:4, 4, 7] = 30  # 30 of 69
    neutral[4:5, 2, 2] = 999  # one head of eight
    assert find_sinks(neutral).nonzero().tolist() == [[0, 0]]


def test_on_few_cells_half_of_a_map_in_one_is_no_sink() -> None:
    assert not find_sinks(torch.tensor([[[9.0, 1.0], [1.0, 1.0]]])).any()


def test_maps_of_an_image_upside_down_are_turned_back() -> None:
    maps = torch.rand(2, 3, 4, 5)
    turned = turn_back(maps.flip((-2, -1)), (0, 0, 50, 40), (40, 50), (0, 0, 50, 40), (4, 5))
    torch.testing.assert_close(turned, maps)


def test_what_is_padded_at_one_side_is_turned_back_to_its_place() -> None:
    """The grid reaches beyond the right side of an image of two cells by one."""
    maps = torch.tensor([[[[1.0, 2.0, 0.0]]]])
    turned = turn_back(maps, (0, 0, 30, 10), (10, 20), (0, 0, 30, 10), (1, 3))
    assert turned[0, 0, 0, :2].tolist() == [2, 1]


def test_a_sink_gets_the_mean_of_its_neighbours_and_takes_nothing_from_the_others() -> None:
    clean = torch.rand(1, 1, 5, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    neutral = torch.ones(1, 5, 8)
    with_sink, neutral_with_sink = clean.clone(), neutral.clone()
    with_sink[0, 0, 2, 3], neutral_with_sink[0, 2, 3] = 900, 300
    found = relative_maps(with_sink, neutral_with_sink)[0, 0]
    around = [found[r, c] for r in (1, 2, 3) for c in (2, 3, 4) if (r, c) != (2, 3)]
    assert float(found[2, 3]) == pytest.approx(float(torch.stack(around).mean()))
    others = torch.ones(5, 8, dtype=torch.bool)
    others[2, 3] = False
    ratio = (found / clean[0, 0])[others]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_a_sink_in_the_corner_looks_at_the_neighbours_it_has() -> None:
    maps, neutral = torch.ones(1, 1, 5, 8), torch.ones(1, 5, 8)
    maps[0, 0, 0, 0], neutral[0, 0, 0] = 500, 500
    found = relative_maps(maps, neutral)[0, 0]
    torch.testing.assert_close(found, found[1, 1].expand_as(found))


def test_smoothing_keeps_an_even_map_and_the_sum_of_a_spot() -> None:
    torch.testing.assert_close(smooth(torch.full((2, 6, 7), 0.3), 1.5), torch.full((2, 6, 7), 0.3))
    spot = torch.zeros(1, 15, 15)
    spot[0, 7, 7] = 1
    spread = smooth(spot, 1.0)
    assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
    # A Gaussian cut at three cells.
    line = [math.exp(-(x**2) / 2) for x in range(-3, 4)]
    assert float(spread[0, 7, 7]) == pytest.approx(1 / sum(line) ** 2, abs=1e-6)
    assert torch.equal(smooth(spot, 0), spot)


def test_smoothing_takes_maps_smaller_than_its_reach() -> None:
    assert smooth(torch.ones(1, 1, 2), 2.0).tolist() == [[[pytest.approx(1), pytest.approx(1)]]]


def test_heads_are_weighed() -> None:
    relative = torch.stack([drawn("84"), drawn("04")], dim=1)
    torch.testing.assert_close(combine(relative, [3.0, 1.0], 0), drawn("64"))


def test_prominence_by_hand() -> None:
    assert float(prominence(drawn("1111", "1111"))) == 0
    # median 2, deviations from it 1 1 1 0 0 0 1 7: their lower median is 1
    assert float(prominence(drawn("1112", "2239"))) == pytest.approx(7)
    assert float(prominence(drawn("0000", "0009"))) == pytest.approx(MAX_PROMINENCE)


def test_prominence_does_not_depend_on_scale_or_offset() -> None:
    maps = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prominence(maps * 5 + 2), prominence(maps), rtol=1e-3, atol=0)


def test_heights_run_from_the_median_to_the_peak() -> None:
    torch.testing.assert_close(heights(drawn("1224", "2226")), drawn(".000", "0000") + drawn("...2", "...4") / 4)
    assert heights(drawn("33", "33")).tolist() == [[[0, 0], [0, 0]]]


def test_parts_touch_at_sides_and_corners() -> None:
    labels = label_parts(drawn("11..1", "..1..", "....1", "1...1") > 0)[0]
    assert len(set(labels[labels > 0].tolist())) == 4
    assert labels[0, 0] == labels[1, 2]
    assert labels[2, 4] == labels[3, 4] != labels[0, 4]
    assert label_parts(torch.zeros(0, 3, 3, dtype=torch.bool)).shape == (0, 3, 3)


def test_parts_are_not_mixed_between_maps() -> None:
    masks = torch.cat([drawn("1.1"), drawn("111")]) > 0
    first, second = label_parts(masks).tolist()
    assert first[0][0] != first[0][2]
    assert second[0][0] == second[0][2]


def test_small_parts_are_left_out_and_what_is_below_the_threshold_stays() -> None:
    maps = drawn("88..3", "88..5", ".....", "66...", "66...") / 10
    kept = keep_large_parts(maps, 0.4)
    torch.testing.assert_close(kept, drawn("88..3", "88...", ".....", "66...", "66...") / 10)


def test_a_map_of_zeros_stays_zero() -> None:
    assert not keep_large_parts(torch.zeros(2, 3, 4), 0.4).any()
    assert keep_large_parts(torch.zeros(0, 3, 4), 0.4).shape == (0, 3, 4)
