"""A cache and a run do not depend on how many threads work ahead of the backbone."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import ImageError
from vlm_adapters.training.cache.build import CachedSamples, build_cache, is_intact
from vlm_adapters.training.composition import Composition
from vlm_adapters.training.loop import train
from vlm_adapters.training.recipe import Recipe
from vlm_adapters.training.samples import LiveSamples

Live = Callable[..., LiveSamples]
Recipes = Callable[..., Recipe]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_the_bytes_of_a_cache_do_not_depend_on_the_number_of_workers(live: Live, tmp_path: Path) -> None:
    found = []
    for workers in (0, 1, 3):
        source = live("scenes:count=11,seed=3", hidden=True, workers=workers)
        build_cache(source, tmp_path / str(workers), shard_samples=3)
        assert is_intact(tmp_path / str(workers), source.data, workers=workers)
        found.append(digests(tmp_path / str(workers)))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("changes", [{}, {"cache": None}])
def test_what_a_run_learns_does_not_depend_on_the_number_of_workers(
    recipe: Recipes, tmp_path: Path, changes: dict[str, Any]
) -> None:
    found = []
    for workers in (0, 1, 3):
        state = train(recipe(workers=workers, **changes), out := tmp_path / f"run-{workers}")
        weights = sorted((out / f"step-{state.step:08d}").glob("*.safetensors"))
        found.append([path.read_bytes() for path in weights])
    assert found[0]
    assert found[0] == found[1] == found[2]


def test_a_run_is_resumed_with_another_number_of_workers(recipe: Recipes, tmp_path: Path) -> None:
    train(recipe(workers=1), tmp_path / "run")
    state = train(recipe(workers=2, epochs=3), tmp_path / "run")
    assert state.is_finished
    assert state.recipe.workers == 2


def test_a_broken_sample_ends_the_build_after_the_shards_before_it(live: Live, tmp_path: Path) -> None:
    source = live("scenes:count=8,seed=3", workers=3)
    read = type(source.data).sample

    def broken(self: Any, index: int) -> Sample:
        if index == 5:
            raise ImageError("the image is gone")
        return read(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(source.data), "sample", broken)
        with pytest.raises(ImageError, match="the image is gone"):
            build_cache(source, tmp_path, shard_samples=2)
    assert sorted(path.name for path in tmp_path.glob("shard-*.json")) == ["shard-000000.json", "shard-000001.json"]
    build_cache(source, tmp_path, shard_samples=2)
    assert len(CachedSamples(tmp_path)) == 8


def test_an_interrupt_leaves_no_thread_and_no_half_of_a_file(live: Live, tmp_path: Path) -> None:
    def interrupt(progress: Any) -> None:
        if progress.samples == 5:
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        build_cache(live("scenes:count=8,seed=3", workers=3), tmp_path / "cut", shard_samples=2, report=interrupt)
    assert threading.active_count() == before
    assert not [path for path in (tmp_path / "cut").iterdir() if path.suffix in (".tmp", ".lock")]
    for folder in ("cut", "not-cut"):
        build_cache(live("scenes:count=8,seed=3"), tmp_path / folder, shard_samples=2)
    assert digests(tmp_path / "cut") == digests(tmp_path / "not-cut")


def test_samples_that_run_together_come_back_in_their_order(live: Live, tmp_path: Path) -> None:
    source = live("scenes:count=6,seed=3")
    alone = source.read(range(6))
    source.composition = Composition(shares=False, pads=True)
    together = source.read(range(6))
    assert [sample.annotation for sample in together] == [sample.annotation for sample in alone]
    for one, other in zip(together, alone, strict=True):  # what is padded differs in its last bits
        assert (one.features.maps - other.features.maps).abs().max() <= 2e-3
    build_cache(source, tmp_path, shard_samples=4)
    assert [sample.annotation for sample in CachedSamples(tmp_path).read(range(6))] == [
        sample.annotation for sample in alone
    ]
