"""The other generations of Qwen-VL pass every check; their oracles give the published figures."""

from __future__ import annotations

import pytest

from vlm_adapters import BackboneInfo
from vlm_adapters.testing import AdapterCase, Check, parametrize_with_checks
from vlm_adapters_qwen.case import QWEN2_VL, QWEN3_5, QWEN3_VL, QWEN3_VL_MOE, qwen_grids


@parametrize_with_checks([QWEN2_VL, QWEN3_VL, QWEN3_VL_MOE, QWEN3_5])
def test_conformance(case: AdapterCase, check: Check) -> None:
    check(case)


@pytest.mark.parametrize(("cell", "shape"), [(28, (17, 23)), (32, (15, 20))])
def test_published_grids(cell: int, shape: tuple[int, int]) -> None:
    assert [grid.shape for grid in qwen_grids((480, 640), cell=cell)] == [shape]


def test_a_decoder_of_a_hybrid_is_sized_from_the_layers_with_attention() -> None:
    info: BackboneInfo = QWEN3_5.load().info
    assert (info.num_layers, info.attention_layers) == (8, (3, 7))
    assert info.channels == 2 * info.num_heads
