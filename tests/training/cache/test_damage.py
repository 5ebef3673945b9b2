"""What a kill or a flipped bit leaves of a cache is noticed, named and computed again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.training.cache.conftest import Changed, digests
from vlm_adapters.errors import CacheError
from vlm_adapters.training.cache.build import CachedSamples, build_cache, is_intact
from vlm_adapters.training.cache.shard import Manifest
from vlm_adapters.training.samples import LiveSamples

Live = Callable[..., LiveSamples]


def test_only_the_shard_of_another_image_is_computed_again(live: Live, tmp_path: Path) -> None:
    source = live()
    build_cache(source, tmp_path, shard_samples=2)
    before, done = digests(tmp_path), source.adapter.extracted
    source.data = Changed(source.data, 2)
    build_cache(source, tmp_path, shard_samples=2)
    differing = {name for name, digest in digests(tmp_path).items() if before[name] != digest}
    assert differing == {"index.json", "shard-000001.json", "shard-000001.safetensors"}  # the index holds digests
    assert source.adapter.extracted - done == 2


def test_a_shard_that_was_cut_off_is_computed_again(live: Live, tmp_path: Path) -> None:
    source = live()
    build_cache(source, tmp_path, shard_samples=2)
    before = digests(tmp_path)
    path = tmp_path / "shard-000001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    build_cache(source, tmp_path, shard_samples=2)
    assert digests(tmp_path) == before


def test_a_byte_that_flipped_in_a_shard_is_noticed_and_repaired(live: Live, tmp_path: Path) -> None:
    source = live()
    build_cache(source, tmp_path, shard_samples=2)
    assert is_intact(tmp_path, source.data)
    before = digests(tmp_path)
    path = tmp_path / "shard-000001.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    assert not is_intact(tmp_path, source.data)
    build_cache(source, tmp_path, shard_samples=2)
    assert digests(tmp_path) == before


def test_a_cache_is_intact_for_its_own_data_alone(live: Live, tmp_path: Path) -> None:
    source = live()
    assert not is_intact(tmp_path, source.data)
    build_cache(source, tmp_path, shard_samples=2)
    assert not is_intact(tmp_path, Changed(source.data, 4))
    assert not is_intact(tmp_path, source.data[:4])


def test_what_a_kill_left_of_the_fingerprint_does_not_matter(live: Live, tmp_path: Path) -> None:
    (tmp_path / f".fingerprint.json.{'0123abcd' * 4}.tmp").touch()
    build_cache(live(), tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_shards_of_a_longer_set_are_removed(live: Live, tmp_path: Path) -> None:
    source = live()
    build_cache(source, tmp_path, shard_samples=1)
    build_cache(source, tmp_path, shard_samples=4)
    assert len(list(tmp_path.glob("shard-*.json"))) == 2
    assert [CachedSamples(tmp_path).read([i])[0].annotation.id for i in range(5)] == [s.id for s in source.data]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from vlm_adapters.data.open import open_dataset
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.testing.fakes import FakeAdapter
from vlm_adapters.training.cache.build import build_cache
from vlm_adapters.training.samples import LiveSamples
from vlm_adapters.training.cache.fingerprint import CacheFingerprint

torch.manual_seed(0)
torch.set_num_threads(1)
folder, last = Path(sys.argv[1]), int(sys.argv[2])
count = 0
rename = Path.replace

def replace(self, target):  # a kill while a file has its temporary name, or right after it has its own
    global count
    count += 1
    if count == last:
        if last % 2:
            rename(self, target)
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)

Path.replace = replace
adapter, data = FakeAdapter(), "scenes:count=5,seed=3"
fingerprint = CacheFingerprint.of(adapter, data, FeatureRequest())
build_cache(LiveSamples(adapter, open_dataset(data), fingerprint), folder, shard_samples=2)
"""


def test_killed_anywhere_a_second_build_ends_with_the_same_bytes(tmp_path: Path) -> None:
    def build(folder: Path, last: int) -> int:
        command = [sys.executable, "-c", KILLED, str(folder), str(last)]
        return subprocess.run(command, check=False, capture_output=True).returncode

    assert build(tmp_path / "whole", 0) == 0
    wanted = digests(tmp_path / "whole")
    assert len(wanted) == 8
    for last in (1, 2, 4, 5, 8):  # of 8 renames
        folder = tmp_path / f"killed-{last}"
        assert build(folder, last) == -9
        assert digests(folder) != wanted or last == 8
        assert build(folder, 0) == 0
        assert digests(folder) == wanted


def test_a_damaged_shard_is_reported(live: Live, tmp_path: Path) -> None:
    build_cache(live(), tmp_path)
    (tmp_path / "shard-000000.safetensors").write_bytes(b"nothing of that kind")
    cached = CachedSamples(tmp_path)
    with pytest.raises(
        CacheError, match=r"shard-000000\.safetensors is damaged: its sha256 differs .* `adapters cache"
    ):
        cached.read([0])


NAMES = ("index.json", "fingerprint.json", "shard-000001.json", "shard-000001.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_any_flipped_bit_is_noticed_and_its_file_named_when_it_is_first_read(
    live: Live, tmp_path: Path, name: str
) -> None:
    source = live()
    build_cache(source, tmp_path, shard_samples=2)
    before, path = digests(tmp_path), tmp_path / name
    original = path.read_bytes()
    for bit in np.random.default_rng(3).integers(8 * len(original), size=30).tolist():
        flipped = bytearray(original)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(CacheError, match=rf"{name}"):
            CachedSamples(tmp_path).read(range(5))
        assert not is_intact(tmp_path, source.data)
    if name != "fingerprint.json":
        build_cache(source, tmp_path, shard_samples=2)  # what the message says
        assert digests(tmp_path) == before


def test_shards_that_were_swapped_are_noticed_with_and_without_their_manifests(live: Live, tmp_path: Path) -> None:
    source = live("scenes:count=4,seed=3")
    build_cache(source, tmp_path, shard_samples=2)
    before = digests(tmp_path)
    for suffixes in ((".safetensors",), (".json",), (".safetensors", ".json")):
        for suffix in suffixes:
            one, two = (tmp_path / f"shard-00000{number}{suffix}" for number in (0, 1))
            one.rename(tmp_path / "swap")
            two.rename(one)
            (tmp_path / "swap").rename(two)
        with pytest.raises(CacheError, match=r"shard-000000.* is damaged: its sha256 differs .* `adapters cache"):
            CachedSamples(tmp_path).read([0])
        assert not is_intact(tmp_path, source.data)
        build_cache(source, tmp_path, shard_samples=2)
        assert digests(tmp_path) == before


def test_a_shard_is_compared_with_its_digest_once_and_only_if_it_is_read(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_cache(live(), tmp_path, shard_samples=2)
    checked: list[str] = []
    is_as_written = Manifest.is_intact
    monkeypatch.setattr(Manifest, "is_intact", lambda self, at: checked.append(self.file) or is_as_written(self, at))
    cached = CachedSamples(tmp_path)
    assert checked == []
    for _ in range(3):
        cached.at_epoch(1).read([3, 0, 2])
    assert checked == ["shard-000000.safetensors", "shard-000001.safetensors"]
