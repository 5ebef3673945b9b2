"""Measures of heads, computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vlm_adapters.backbone.grids import Grids, ImageGrid
from vlm_adapters.heads.ranking import rank_heads, spatial_entropy

SHARP = [[0.0, 0.4, 0.0], [0.0, 0.0, 0.0]]
NARROW = [[0.0, 0.2, 0.0], [0.0, 0.2, 0.0]]
FLAT = [[0.4 / 6] * 3] * 2
DIM = [[0.0, 0.0, 0.01], [0.0, 0.0, 0.0]]
"""As sharp as can be, but the head hardly looks at the image."""


def grids(maps: list[list[list[list[float]]]], layers: tuple[int, ...], heads: tuple[int, ...]) -> Grids:
    """One phrase; `maps` by layer and head."""
    return Grids(
        grid=ImageGrid(torch.arange(6).view(2, 3), (0, 0, 3, 2)),
        attention=torch.tensor([maps]),
        layers=layers,
        heads=heads,
        row_phrases=(0,),
        hidden=torch.zeros(0, 8, 2, 3),
    )


def test_entropy_by_hand() -> None:
    for values, entropy in (
        (SHARP, 0.0),
        (FLAT, 1.0),
        (NARROW, math.log(2) / math.log(6)),
        # shares 1/2, 1/4, 1/4
        ([[0.2, 0.1, 0.0], [0.0, 0.0, 0.1]], 1.5 * math.log(2) / math.log(6)),
        ([[0.0] * 3] * 2, 1.0),
        ([[0.3]], 0.0),
    ):
        assert float(spatial_entropy(torch.tensor(values))) == pytest.approx(entropy, abs=1e-6), values


def test_entropy_does_not_depend_on_the_mass() -> None:
    maps = torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spatial_entropy(maps * 1e-3), spatial_entropy(maps))


def test_entropy_keeps_the_leading_axes() -> None:
    entropy: Tensor = spatial_entropy(torch.rand(2, 3, 4, 5, 6).half())
    assert entropy.shape == (2, 3, 4)
    assert entropy.dtype == torch.float32


def test_a_sharp_head_ranks_before_a_flat_one_and_carries_its_true_indices() -> None:
    ranked = rank_heads(grids([[FLAT, DIM], [DIM, SHARP], [NARROW, DIM]], (3, 7, 11), (1, 5)), 0, 10)
    assert [(head.layer, head.head) for head in ranked] == [(7, 5), (11, 1), (3, 1)]
    assert [head.mass for head in ranked] == pytest.approx([0.4] * 3)
    assert [head.entropy for head in ranked] == pytest.approx([0, math.log(2) / math.log(6), 1], abs=1e-6)


def test_heads_that_do_not_look_at_the_image_are_left_out() -> None:
    ranked = rank_heads(grids([[DIM, FLAT, DIM, SHARP]], (0,), (0, 1, 2, 3)), 0, 10)
    assert [head.head for head in ranked] == [3, 1]


def test_heads_are_left_out_below_the_median_of_an_even_number_too() -> None:
    rising = [[[share, 0.0, 0.0], [0.0, 0.0, 0.0]] for share in (0.1, 0.2, 0.3, 0.4)]
    assert {head.head for head in rank_heads(grids([rising], (0,), (0, 1, 2, 3)), 0, 10)} == {2, 3}


def test_heads_that_look_alike_are_all_kept() -> None:
    assert len(rank_heads(grids([[SHARP, NARROW, FLAT]], (0,), (0, 1, 2)), 0, 10)) == 3


def test_no_more_are_returned_than_asked_for() -> None:
    assert [h.head for h in rank_heads(grids([[FLAT, SHARP, NARROW]], (0,), (0, 1, 2)), 0, 1)] == [1]


def test_every_phrase_has_its_own_ranking() -> None:
    first = grids([[SHARP, FLAT]], (0,), (0, 1))
    both = Grids(
        grid=first.grid,
        attention=torch.cat([first.attention, first.attention.flip(2)]),
        layers=(0,),
        heads=(0, 1),
        row_phrases=(0, 1),
        hidden=first.hidden,
    )
    assert [rank_heads(both, phrase, 1)[0].head for phrase in (0, 1)] == [0, 1]
