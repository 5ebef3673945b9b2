"""Heads that follow phrases, computed by hand and planted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vlm_adapters.heads.maps import relative_maps, smooth
from vlm_adapters.heads.ranking import agreement, best_first, contrast, difference, following, following_weights

GENERATOR_SEED = 0


def random(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(GENERATOR_SEED))


def test_what_a_phrase_adds_is_measured_against_the_other_phrases_and_the_neutral_sentence() -> None:
    relative, neutral = random(2, 3, 6, 7), random(3, 6, 7) / 2
    mean = (relative[0] + relative[1] + neutral) / 3
    torch.testing.assert_close(contrast(relative, neutral)[1], smooth(relative[1] - mean, 1.0))


def test_one_phrase_is_measured_against_the_neutral_sentence() -> None:
    relative, neutral = random(1, 3, 6, 7), random(3, 6, 7) / 2
    torch.testing.assert_close(contrast(relative, neutral)[0], smooth(relative[0] - neutral, 1.0) / 2)


def test_agreement_is_the_correlation_of_what_is_added() -> None:
    first, second = random(2, 3, 4, 5), random(2, 3, 4, 5).flip(-1) + random(2, 3, 4, 5)
    found = agreement(first, second)
    for phrase in range(2):
        for head in range(3):
            expected = torch.corrcoef(torch.stack([first[phrase, head].flatten(), second[phrase, head].flatten()]))
            assert float(found[phrase, head]) == pytest.approx(float(expected[0, 1]), abs=1e-5)


def test_agreement_is_1_in_the_same_places_and_minus_1_in_the_opposite() -> None:
    maps = random(1, 2, 4, 5)
    assert agreement(maps, 3 * maps + 1).tolist() == [[pytest.approx(1), pytest.approx(1)]]
    assert agreement(maps, -maps).tolist() == [[pytest.approx(-1), pytest.approx(-1)]]


def test_difference_is_the_share_of_attention_that_is_elsewhere() -> None:
    neutral = torch.tensor([[[3.0, 1.0]], [[1.0, 0.0]]])
    maps = torch.tensor([[[[2.0, 2.0]], [[7.0, 0.0]]], [[[0.0, 5.0]], [[0.0, 2.0]]]])
    torch.testing.assert_close(difference(maps, neutral), torch.tensor([[0.25, 0.0], [0.75, 1.0]]))


def test_a_head_follows_less_where_hardly_any_of_its_attention_depends_on_the_text() -> None:
    found = following(torch.tensor([[0.8, 0.8, 0.8, -0.4]]), torch.tensor([[0.5, 0.01, 0.0, 0.9]]))
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.4, 0.0, -0.4]]))


def test_what_adds_only_rounding_agrees_with_nothing() -> None:
    rounding = 0.5 + 1e-7 * random(1, 2, 4, 5)
    assert agreement(rounding, rounding).tolist() == [[0, 0]]


@pytest.mark.parametrize("phrases", [1, 2, 5])
def test_a_head_that_follows_beats_sharp_ones_in_a_corner_for_every_phrase(phrases: int) -> None:
    """Two heads look at a corner whatever is asked, one at the thing of each phrase, and one everywhere."""

    def asked(seed: int) -> tuple[Tensor, Tensor]:
        noise = 0.02 * torch.rand(phrases + 1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) / 64
        maps = noise + 1e-6
        maps[:, 0, 0, 0] = maps[:, 1, 7, 7] = 1
        for phrase in range(phrases):
            row, column = divmod(9 + 7 * phrase, 8)
            maps[phrase, 2, row : row + 2, column : column + 2] = 0.02
        maps[-1, 2] = 0.01
        maps[:, 3] = 1 / 64
        relative = relative_maps(maps, maps[-1])
        return contrast(relative[:-1], relative[-1]), difference(maps[:-1], maps[-1])

    scores = following(agreement(asked(1)[0], asked(2)[0]), asked(1)[1])
    for of_phrase in scores:
        assert best_first(of_phrase)[0] == 2
        assert float(of_phrase[2]) > 0.9
        assert float(of_phrase[[0, 1, 3]].abs().max()) < 0.5


def test_heads_that_follow_equally_keep_their_order() -> None:
    assert best_first(torch.tensor([0.2, 0.7, 0.2, -0.1])) == [1, 0, 2, 3]


def test_weights_are_positive_and_rise_steeply() -> None:
    best, half, none = following_weights([0.8, 0.4, -0.3])
    assert best / half == pytest.approx(16)
    assert 0 < none < 1e-9
    assert math.isfinite(none)
