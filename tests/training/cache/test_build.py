"""The cache: what comes back, what is computed again, and how a build ends."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.cache.conftest import AlternatingFiles, Changed, OneSample, digests
from vlm_adapters.data.open import open_dataset
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.errors import DataError, ImageError
from vlm_adapters.training.cache.build import BuildProgress, CachedSamples, build_cache, is_intact
from vlm_adapters.training.cache.shard import Manifest
from vlm_adapters.training.samples import LiveSamples

Live = Callable[..., LiveSamples]


def test_what_comes_back_is_what_was_computed(live: Live, tmp_path: Path) -> None:
    source = live(hidden=True)
    build_cache(source, tmp_path, shard_samples=2)
    cached = CachedSamples(tmp_path)
    assert len(cached) == 5
    for index in (4, 0, 3):
        (kept,), sample = cached.read([index]), source.data[index]
        assert kept.annotation.text == sample.text
        assert kept.annotation.phrases == sample.phrases
        assert kept.annotation.id == sample.id
        assert np.array_equal(kept.masks, sample.masks)
        assert cached.phrase_count(index) == len(sample.phrases)
        request = source.fingerprint.feature_request.grids
        (grids,) = source.adapter.extract(source.adapter.preprocess([sample.prompt]), request)[0]
        wanted = grids.channels / grids.channels.amax(dim=(2, 3), keepdim=True)
        torch.testing.assert_close(kept.features.maps, wanted.half(), rtol=2e-3, atol=1e-4)
        assert kept.features.box == grids.grid.box
        for states, wanted_states in zip(kept.features.hidden, grids.phrase_hidden, strict=True):
            torch.testing.assert_close(states, wanted_states.half(), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_bit_comes_back_in_either_precision(live: Live, tmp_path: Path, dtype: str) -> None:
    source = live(hidden=True, dtype=dtype)
    build_cache(source, tmp_path)
    (kept,), (expected,) = CachedSamples(tmp_path).read([2]), source.read([2])
    assert kept.features.maps.dtype == expected.features.maps.dtype == getattr(torch, dtype)
    assert torch.equal(kept.features.maps, expected.features.maps)
    assert all(torch.equal(*both) for both in zip(kept.features.hidden, expected.features.hidden, strict=True))


def test_memory_does_not_grow_with_the_shapes_that_were_written(live: Live, tmp_path: Path) -> None:
    source = live("scenes:count=40,seed=3")
    build_cache(source, tmp_path / "first", shard_samples=4)  # what is made only once
    gc.collect()
    before = len(gc.get_objects())
    source.data = open_dataset("scenes:count=40,seed=8")
    source.fingerprint = source.fingerprint.model_copy(update={"data": "scenes:count=40,seed=8"})
    build_cache(source, tmp_path / "second", shard_samples=4)
    gc.collect()
    assert len(gc.get_objects()) - before < 100


def test_samples_come_in_the_order_asked_and_as_often(live: Live, tmp_path: Path) -> None:
    source = live()
    build_cache(source, tmp_path, shard_samples=2)
    found = CachedSamples(tmp_path).read([3, 0, 3, -1])
    assert [sample.annotation.id for sample in found] == [source.data[index].id for index in (3, 0, 3, 4)]


def test_samples_of_one_image_are_in_one_shard_and_come_back_in_the_order_of_the_data(
    live: Live, tmp_path: Path
) -> None:
    source = live()
    source.data = AlternatingFiles(source.data, range(5))
    build_cache(source, tmp_path, shard_samples=3)
    of_shards = [Manifest.read(tmp_path / f"shard-{number:06d}.json").samples for number in (0, 1)]
    assert [[entry.index for entry in entries] for entries in of_shards] == [[0, 2, 4], [1, 3]]
    cached = CachedSamples(tmp_path)
    assert [cached.data_index(index) for index in range(5)] == [0, 1, 2, 3, 4]
    assert [cached.phrase_count(index) for index in range(5)] == [len(sample.phrases) for sample in source.data]
    for kept, sample in zip(cached.read(range(5)), source.data, strict=True):
        assert kept.annotation.id == sample.id
        assert np.array_equal(kept.masks, sample.masks)
    assert is_intact(tmp_path, source.data)


def test_tags_and_ids_of_phrases_are_kept(live: Live, tmp_path: Path) -> None:
    source = live()
    source.data = OneSample(source.data[0], phrase_ids=True)
    build_cache(source, tmp_path)
    (kept,) = CachedSamples(tmp_path).read([0])
    assert kept.annotation == source.data.annotation(0)
    assert kept.annotation.phrase_tags[0] == ("thing", "plural")


def test_the_embedding_of_the_image_is_kept(live: Live, tmp_path: Path, tiny_sam: Callable[[], Any]) -> None:
    source = live()
    source.sam = SegmentAnything(tiny_sam())
    build_cache(source, tmp_path)
    (kept,) = CachedSamples(tmp_path).read([1])
    wanted = source.sam.encode(source.data[1].image)
    assert kept.image is not None
    assert kept.image.frame == wanted.frame
    torch.testing.assert_close(kept.image.features, wanted.features.half())


def test_a_small_map_among_many_cells_keeps_its_form_in_half_precision(live: Live, tmp_path: Path) -> None:
    source = live("scenes:count=1,seed=3")
    faint = source.adapter.extract

    def fainter(*arguments: Any) -> Any:
        grids = faint(*arguments)
        for of_prompt in grids:
            for of_grid in of_prompt:
                of_grid.attention.mul_(1e-7)
        return grids

    source.adapter.extract = fainter  # type: ignore[method-assign]
    build_cache(source, tmp_path)
    maps = CachedSamples(tmp_path).read([0])[0].features.maps.float()
    assert bool((maps.amax(dim=(2, 3)) == 1).all())


def test_a_finished_cache_is_not_computed_again(live: Live, tmp_path: Path) -> None:
    source = live()
    build_cache(source, tmp_path, shard_samples=2)
    before, done = digests(tmp_path), source.adapter.extracted
    build_cache(source, tmp_path, shard_samples=2)
    assert source.adapter.extracted == done
    assert digests(tmp_path) == before


def test_a_broken_sample_ends_the_build(live: Live, tmp_path: Path) -> None:
    source = live()
    source.data = Changed(source.data, 2, broken=True)
    with pytest.raises(ImageError, match="the image is gone"):
        build_cache(source, tmp_path)


def test_a_broken_sample_is_left_out_and_counted_where_the_set_says_so(live: Live, tmp_path: Path) -> None:
    source = live()
    ids = [sample.id for sample in source.data]
    source.data = Changed(source.data, 2, broken=True)
    source.data.skips_broken = True
    index = build_cache(source, tmp_path, shard_samples=2)
    assert [(left.index, left.message.endswith("the image is gone")) for left in index.left_out] == [(2, True)]
    cached = CachedSamples(tmp_path)
    assert [cached.read([i])[0].annotation.id for i in range(4)] == ids[:2] + ids[3:]
    assert cached.index.indices == [0, 1, 3, 4]


def test_an_empty_set_is_refused(live: Live, tmp_path: Path) -> None:
    source = live()
    source.data = source.data[:0]
    with pytest.raises(DataError, match="There is no sample in"):
        build_cache(source, tmp_path)


def test_progress_ends_with_all_samples(live: Live, tmp_path: Path) -> None:
    for workers, counts in ((0, [1, 2, 2, 3, 4, 4, 5, 5]), (1, [1, 2, 3, 4, 4, 5, 5, 5])):
        reports: list[BuildProgress] = []
        index = build_cache(live(workers=workers), tmp_path / str(workers), shard_samples=2, report=reports.append)
        assert [progress.samples for progress in reports] == counts  # a shard is written while the next is computed
        assert reports[-1] == BuildProgress(samples=5, total=5, computed=5, bytes=index.bytes)
