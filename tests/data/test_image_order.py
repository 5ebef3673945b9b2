"""Samples of one image beside each other, and in one part where they fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.data.image_order import divide_by_runs, indices_by_image


class Files(Scenes):
    """Scenes whose images are said to be in these files."""

    def __init__(self, *names: str | None) -> None:
        super().__init__(len(names), seed=1)
        self._names = names

    def image_file(self, index: int) -> Path | None:
        name = self._names[index]
        return None if name is None else Path(name)


@pytest.mark.parametrize(
    ("dataset", "order"),
    [
        (Files("b", "a", "b", "c", "a"), [0, 2, 1, 4, 3]),
        (Files("a", None, "a", None), [0, 2, 1, 3]),
        (Files("a", "b", "a", "b", "a")[1:], [0, 2, 1, 3]),
        (Scenes(3, seed=1), [0, 1, 2]),
        (Files(), []),
    ],
)
def test_samples_of_one_image_follow_one_another(dataset: Dataset, order: list[int]) -> None:
    assert indices_by_image(dataset) == order


@pytest.mark.parametrize(
    ("keys", "lengths"),
    [
        ("abcdefg", [3, 3, 1]),
        ("aabbb", [2, 3]),
        ("abbcc", [3, 2]),
        ("aaaaaaab", [3, 3, 2]),
        ("abbbb", [1, 3, 1]),
        ("", []),
    ],
)
def test_parts_keep_neighbours_of_one_image_together(keys: str, lengths: list[int]) -> None:
    assert [len(part) for part in divide_by_runs(keys, most=3)] == lengths


def test_every_position_is_in_one_part_in_order_and_no_run_that_fits_is_cut() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        keys, most = sorted(random.integers(0, 6, random.integers(0, 30)).tolist()), int(random.integers(1, 9))
        parts = divide_by_runs(keys, most)
        assert [position for part in parts for position in part] == list(range(len(keys)))
        assert all(0 < len(part) <= most for part in parts)
        for key in set(keys):
            if keys.count(key) <= most:
                assert sum(key in [keys[position] for position in part] for part in parts) == 1
