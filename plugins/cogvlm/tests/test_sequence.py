"""The published rules of positions and experts, by their test vectors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vlm_adapters_cogvlm.sequence import Routing, by_expert, position_ids_of, takes_vision_expert

VECTORS = [
    pytest.param(4, 3, [0, 1, 2, 2, 2, 2, 3, 4, 5, 6], [0, 1, 1, 1, 1, 1, 0, 0, 0, 0], id="4 patches"),
    pytest.param(
        9,
        2,
        [0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 4, 5],
        [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        id="9 patches",
    ),
    pytest.param(1, 2, [0, 1, 2, 3, 4, 5], [0, 1, 1, 0, 0, 0], id="1 patch"),
    pytest.param(
        1225, 7, [0, 1, *[2] * 1225, 3, *range(4, 11)], [0, *[1] * 1226, *[0] * 8], id="an image of 490 pixels"
    ),
    pytest.param(256, 5, [0, 1, *[2] * 256, 3, *range(4, 9)], [0, *[1] * 257, *[0] * 6], id="an image of 224 pixels"),
]


def types_of(patches: int, text: int) -> Tensor:
    return torch.tensor([[0] + [1] * (patches + 2) + [0] * text])


@pytest.mark.parametrize(("patches", "text", "positions", "experts"), VECTORS)
def test_positions_and_experts(patches: int, text: int, positions: list[int], experts: list[int]) -> None:
    types = types_of(patches, text)
    assert position_ids_of(types).tolist() == [positions]
    assert takes_vision_expert(types).long().tolist() == [experts]


@pytest.mark.parametrize(("patches", "text", "positions", "experts"), VECTORS)
@pytest.mark.parametrize("padding", [1, 3])
def test_padding_on_the_left_moves_no_position(
    patches: int, text: int, positions: list[int], experts: list[int], padding: int
) -> None:
    """The published code shifts all positions of such a row by one, which rope does not see."""
    types = torch.nn.functional.pad(types_of(patches, text), (padding, 0))
    mask = torch.ones_like(types)
    mask[:, :padding] = 0
    assert position_ids_of(types, mask)[0, padding:].tolist() == positions
    assert takes_vision_expert(types)[0, padding:].long().tolist() == experts


def test_a_text_counts_from_zero() -> None:
    types = torch.zeros(1, 5, dtype=torch.long)
    assert position_ids_of(types).tolist() == [[0, 1, 2, 3, 4]]
    assert not takes_vision_expert(types).any()


def test_an_image_at_the_end_leaves_its_last_token_to_language() -> None:
    assert takes_vision_expert(torch.tensor([[0, 1, 1, 1]])).tolist() == [[False, True, True, False]]


def test_each_expert_computes_its_own_tokens_only() -> None:
    types = torch.cat([types_of(4, 3), types_of(2, 5)])
    states, seen = torch.randn(2, 10, 3), dict[str, int]()

    def expert(name: str, factor: float) -> object:
        def compute(tokens: Tensor) -> Tensor:
            seen[name] = len(tokens)
            return tokens * factor

        return compute

    computed = by_expert(states, Routing.of(types), expert("vision", -1), expert("language", 2))  # type: ignore[arg-type]
    is_vision = takes_vision_expert(types)
    assert seen == {"vision": int(is_vision.sum()), "language": int((~is_vision).sum())}
    torch.testing.assert_close(computed, torch.where(is_vision[..., None], -states, states * 2))
