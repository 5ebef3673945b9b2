"""The folder of a cache: what it may hold, whose it is, and by what it is known."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from vlm_adapters.backbone.fingerprint import weights_fingerprint
from vlm_adapters.data.locks import locked_folder
from vlm_adapters.errors import CacheError, OutputError
from vlm_adapters.testing.fakes import FakeAdapter
from vlm_adapters.training.cache.build import BuildProgress, CachedSamples, build_cache
from vlm_adapters.training.cache.fingerprint import CacheFingerprint
from vlm_adapters.training.samples import LiveSamples

Live = Callable[..., LiveSamples]


def test_another_fingerprint_is_refused(live: Live, tmp_path: Path) -> None:
    build_cache(live(), tmp_path)
    with pytest.raises(CacheError, match=r"another fingerprint: hidden_states: False -> True\. Give another folder"):
        build_cache(live(hidden=True), tmp_path)


def test_a_folder_with_other_things_is_refused(live: Live, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(CacheError, match="holds other things"):
        build_cache(live(), tmp_path)


def test_an_unfinished_cache_is_refused(live: Live, tmp_path: Path) -> None:
    build_cache(live(), tmp_path, shard_samples=2)
    (tmp_path / "index.json").unlink()
    with pytest.raises(CacheError, match=r"unfinished: it has no index\.json, and 3 shards\. Run the same"):
        CachedSamples(tmp_path)


def test_a_folder_that_is_not_a_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CacheError,
        match=r"No cache fingerprint can be read from .*fingerprint\.json: No such file or directory",
    ):
        CachedSamples(tmp_path)


def test_a_fingerprint_of_another_version_is_refused(live: Live, tmp_path: Path) -> None:
    build_cache(live(), tmp_path)
    fingerprint = json.loads((tmp_path / "fingerprint.json").read_text())
    (tmp_path / "fingerprint.json").write_text(json.dumps(fingerprint | {"format": 2}))
    with pytest.raises(CacheError, match="is not a cache fingerprint: format: Input should be 5"):
        CachedSamples(tmp_path)


def test_a_persons_files_beside_the_shards_stay(live: Live, tmp_path: Path) -> None:
    source = live()
    build_cache(source, tmp_path, shard_samples=2)
    persons = ["shard-000000.safetensors.bak", "shard-mine.json", "shard-1.json", "a-shard-000009.json"]
    for name in persons:
        (tmp_path / name).touch()
    build_cache(source, tmp_path, shard_samples=4)
    assert all((tmp_path / name).is_file() for name in persons)
    assert len(CachedSamples(tmp_path).read(range(5))) == 5


def test_a_folder_that_is_removed_meanwhile_is_an_error(live: Live, tmp_path: Path) -> None:
    def remove(progress: BuildProgress) -> None:
        if progress.samples == 2:
            shutil.rmtree(tmp_path / "cache")

    with pytest.raises(OutputError, match=r"cannot be written|was removed while it was built"):
        build_cache(live(), tmp_path / "cache", shard_samples=2, report=remove)
    assert len(build_cache(live(), tmp_path / "cache", shard_samples=2).ids) == 5


def test_two_builds_in_one_folder_the_second_says_who_holds_it(live: Live, tmp_path: Path) -> None:
    source = live()
    with (
        ThreadPoolExecutor(1) as other,
        locked_folder(tmp_path),
        pytest.raises(OutputError, match=rf"is in use by process {os.getpid()} on"),
    ):
        other.submit(build_cache, source, tmp_path).result()


def test_other_weights_give_another_fingerprint(live: Live) -> None:
    adapter = FakeAdapter()
    before = weights_fingerprint(adapter.model.state_dict())
    next(iter(adapter.model.parameters())).data.view(-1)[0] += 1
    assert weights_fingerprint(adapter.model.state_dict()) != before
    before = live().fingerprint
    other = replace(before.backbone, fingerprint="0")
    assert before.model_copy(update={"backbone": other}).digest != before.digest
    assert before.model_copy(update={"data": "scenes:count=9"}).digest == before.digest


def test_a_fingerprint_comes_back_from_disk(live: Live, tmp_path: Path) -> None:
    before = live(hidden=True).fingerprint
    before.write(tmp_path)
    assert CacheFingerprint.read(tmp_path) == before
    assert CacheFingerprint.read(tmp_path).feature_request == before.feature_request
