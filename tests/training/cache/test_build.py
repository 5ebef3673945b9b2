"""The cache: what comes back, what is computed again, and what a kill leaves."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlm_adapters.backbone.fingerprint import weights_fingerprint
from vlm_adapters.data.dataset import Dataset, Subset
from vlm_adapters.data.locks import locked_folder
from vlm_adapters.data.open import open_dataset
from vlm_adapters.data.sample import Sample
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.errors import CacheError, DataError, ImageError, OutputError
from vlm_adapters.testing.fakes import FakeAdapter
from vlm_adapters.training.cache.build import BuildProgress, CachedSamples, build_cache, is_intact
from vlm_adapters.training.cache.fingerprint import CacheFingerprint
from vlm_adapters.training.cache.shard import Manifest
from vlm_adapters.training.samples import LiveSamples

Live = Callable[..., LiveSamples]


class AlternatingFiles(Subset):
    """The samples of another data set, two images in turn."""

    def image_file(self, index: int) -> Path:
        return Path(f"{index % 2}.png")


def digests(folder: Path) -> dict[str, str]:
    """Every file of a folder, by its content."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


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


class Changed(Dataset):
    """A set one of whose images is another, or is gone."""

    def __init__(self, whole: Dataset, index: int, *, broken: bool = False) -> None:
        self.whole, self.index, self.broken = whole, index, broken

    @property
    def source(self) -> str:
        return self.whole.source

    def __len__(self) -> int:
        return len(self.whole)

    def sample(self, index: int) -> Sample:
        sample = self.whole[index]
        if index == self.index:
            if self.broken:
                raise ImageError("the image is gone")
            sample.image.putpixel((0, 0), (1, 2, 3))
        return sample


class OneSample(Dataset):
    """One sample, its phrases with ids and tags."""

    def __init__(self, sample: Sample, *, phrase_ids: bool) -> None:
        count = len(sample.phrases)
        fields = {name: getattr(sample, name) for name in Sample.__dataclass_fields__}
        fields["phrase_ids"] = tuple(f"12/{i}" for i in range(count)) if phrase_ids else ()
        fields["phrase_tags"] = (("thing", "plural"),) * count
        self.one = Sample(**fields)

    @property
    def source(self) -> str:
        return "one"

    def __len__(self) -> int:
        return 1

    def sample(self, index: int) -> Sample:
        del index
        return self.one

    def annotation(self, index: int) -> Any:
        from vlm_adapters.training.samples import annotation_of  # noqa: PLC0415

        return annotation_of(self.sample(index))
