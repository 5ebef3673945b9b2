"""Windows, frames and images in one call of a tower's kernel; the oracle is the tower as transformers runs it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vlm_adapters import GridRequest, Prompt, load_adapter
from vlm_adapters.errors import BackboneError
from vlm_adapters.hf import windows
from vlm_adapters.hf.windows import batched_windows
from vlm_adapters.testing.checks_transformers import check_batched_windows_change_no_states
from vlm_adapters_qwen.case import CASES

QWEN = [case for case in CASES if case.name != "qwen3_vl_moe"]
STILLS = ((1, 18, 26), (1, 18, 26), (1, 14, 14))
"""Frames, rows and columns of patches: two images of one size and a smaller one, none a multiple of a window."""
VIDEO = ((3, 10, 12), (1, 18, 26))
CUT = ((1, 24, 28),)
"""Few windows of Qwen2.5-VL, of 8 x 8 patches, are cut by the border."""


@pytest.fixture(params=QWEN, ids=lambda case: case.name)
def tower(request: pytest.FixtureRequest) -> nn.Module:
    visual: nn.Module = request.param.load().model.model.visual
    return visual


def patches(tower: nn.Module, grids: tuple[tuple[int, int, int], ...]) -> tuple[Tensor, Tensor]:
    embed: Any = tower.patch_embed
    width = embed.proj.weight[0].numel()
    count = sum(frames * rows * columns for frames, rows, columns in grids)
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0)), torch.tensor(grids)


def run(tower: nn.Module, grids: tuple[tuple[int, int, int], ...]) -> Tensor:
    states: Tensor = tower(*patches(tower, grids)).last_hidden_state
    return states


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[tuple[int, ...]]]:
    calls: Counter[tuple[int, ...]] = Counter()
    kernel = nn.functional.scaled_dot_product_attention

    def count(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        calls[tuple(query.shape[::2])] += 1
        return kernel(query, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(nn.functional, "scaled_dot_product_attention", count)
        yield calls


@pytest.mark.parametrize("grids", [STILLS, VIDEO, CUT], ids=["images", "video", "cut windows"])
def test_a_tower_gives_what_it_gives_alone(tower: nn.Module, grids: tuple[tuple[int, int, int], ...]) -> None:
    with torch.no_grad():
        alone = run(tower, grids)
        with batched_windows(tower):
            together = run(tower, grids)
    assert alone.std() > 0.01
    assert (together - alone).abs().max() <= 1e-6 * max(1, float(alone.abs().max()))


def test_the_kernel_runs_once_for_each_length(tower: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad(), counted(monkeypatch) as alone:
        run(tower, STILLS)
    with torch.no_grad(), counted(monkeypatch) as together, batched_windows(tower):
        run(tower, STILLS)
    assert all(batch == 1 for batch, _ in alone)
    tokens = {length: count for (_, length), count in alone.items()}
    of_lengths: Counter[int] = Counter()
    for (batch, length), count in together.items():
        of_lengths[length] += batch * count
    assert of_lengths == tokens  # the same parts
    blocks: Any = tower.blocks
    assert max(together.values()) <= len(blocks)


def test_windows_that_the_border_cuts_go_through_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    tower: Any = next(case for case in QWEN if case.name == "qwen2_5_vl").load().model.model.visual
    with torch.no_grad(), counted(monkeypatch) as together, batched_windows(tower):
        run(tower, CUT)
    assert together.total() == len(tower.blocks)
    assert together[12, 64] > 0  # 3 x 4 windows


@pytest.mark.filterwarnings("ignore::vlm_adapters.errors.UnlikeSceneWarning")
def test_extract_batches_windows_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (230, 300, 3), dtype=np.uint8)
    calls = {}
    for options in ({}, {"batch_windows": False}):
        adapter = load_adapter("tiny-qwen2_5_vl", device="cpu", dtype="float32", **options)
        inputs = adapter.preprocess([Prompt.describe(Image.fromarray(pixels), "a red star", ["red star"])])
        with counted(monkeypatch) as counts:
            adapter.extract(inputs, GridRequest())
        calls[bool(options)] = counts.total()
    assert calls[False] < calls[True]


def test_gradient_reaches_the_pixels_as_it_does_alone(tower: nn.Module) -> None:
    pixels, shapes = patches(tower, STILLS)
    found = []
    for around in (batched_windows(tower), torch.enable_grad()):
        leaf = pixels.clone().requires_grad_()
        with around:
            (tower(leaf, shapes).last_hidden_state ** 2).sum().backward()
        found.append(leaf.grad)
    together, alone = found
    assert together is not None
    assert alone is not None
    assert (together - alone).abs().max() <= 1e-5 * float(alone.abs().max())


def test_a_pass_of_another_thread_is_left_as_it_is(tower: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def other() -> None:
        with torch.no_grad():
            run(tower, STILLS)

    with counted(monkeypatch) as alone:
        other()
    with counted(monkeypatch) as beside, batched_windows(tower):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert beside == alone


def test_threads_that_batch_windows_leave_one_another_alone(tower: nn.Module) -> None:
    def together(_: int) -> Tensor:
        with torch.no_grad(), batched_windows(tower):
            return run(tower, STILLS)

    expected = together(0)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(together, range(12)))
    assert all((one - expected).abs().max() < 1e-5 for one in found)


def test_a_pass_is_left_as_it_is_while_another_thread_registers_its_hooks(tower: nn.Module) -> None:
    found: list[Tensor] = []

    def other() -> None:
        with torch.no_grad():
            found.append(run(tower, STILLS))

    other()
    with batched_windows(tower):
        for module in tower.modules():
            vars(module)["_forward_pre_hooks_with_kwargs"].clear()  # torch adds a hook first, and this afterwards
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert torch.equal(*found)


def test_the_eager_kernel_takes_them_together_too() -> None:
    adapter = load_adapter("tiny-qwen2_5_vl", device="cpu", dtype="float32", attn_implementation="eager")
    tower = adapter.model.model.visual
    with torch.no_grad():
        alone = run(tower, STILLS)
        with batched_windows(tower):
            assert (run(tower, STILLS) - alone).abs().max() <= 1e-6 * float(alone.abs().max())


def test_the_registry_of_kernels_is_as_before(tower: nn.Module) -> None:
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with batched_windows(tower):
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not before
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before


def test_a_mask_over_the_windows_is_an_error(tower: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    attention = next(module for module in tower.modules() if type(module).__name__.endswith("Attention"))

    def masked(states: Tensor, **_: Any) -> None:
        tensors = states[None, None]
        ALL_ATTENTION_FUNCTIONS["sdpa"](attention, tensors, tensors, tensors, torch.ones(1))

    monkeypatch.setattr(attention, "forward", masked)
    with batched_windows(tower), pytest.raises(BackboneError, match=r"cannot run together.*batch_windows=False"):
        run(tower, STILLS)


@pytest.mark.parametrize("case", QWEN, ids=lambda case: case.name)
def test_the_check_notices_windows_in_another_order(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    by_length = windows.by_length
    monkeypatch.setattr(windows, "by_length", lambda *arguments: by_length(*arguments).flip(1))
    with pytest.raises(AssertionError, match="batched windows: expected"):
        check_batched_windows_change_no_states(case)


@pytest.mark.parametrize("case", QWEN, ids=lambda case: case.name)
def test_windows_are_batched_by_default(case: Any) -> None:
    assert case.load().batch_windows
