"""RefCOCO-M in its published parquet files."""

from __future__ import annotations

import copy
import json
import os
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pycocotools import mask as coco
from typer.testing import CliRunner

from vlm_adapters.cli import app
from vlm_adapters.data.dataset import Problem, read_samples
from vlm_adapters.data.open import open_dataset, open_skipping
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import DataError, ImageError
from vlm_adapters.limits import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RefCocoMSet


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
def test_every_sentence_has_the_mask_and_image_of_its_row(refcoco_m: RefCocoMSet) -> None:
    samples = iter(open_dataset(refcoco_m.uri()))
    for row, scene in zip(refcoco_m.rows, refcoco_m.scenes, strict=True):
        for target in row["samples"]:
            expected = coco.decode({**target["mask"], "counts": target["mask"]["counts"].encode()}).astype(bool)
            for number, sentence in enumerate(target["sentences"]):
                sample = next(samples)
                assert (sample.id, sample.image_id) == (f"{target['id']}/{number}", str(row["image_id"]))
                assert sample.text == sentence.strip()
                assert [phrase.span for phrase in sample.phrases] == [(0, len(sample.text))]
                assert np.array_equal(sample.masks, expected[None])
                assert np.array_equal(np.asarray(sample.image), np.asarray(scene.image))
    assert next(samples, None) is None


def test_the_sentences_about_an_image_can_be_packed_and_chosen(refcoco_m: RefCocoMSet) -> None:
    packed = open_dataset(refcoco_m.uri(form="packed", sentences="first"))
    assert len(packed) == 4
    for sample, scene in zip(packed, refcoco_m.scenes, strict=True):
        assert sample.text == " . ".join(phrase.text for phrase in scene.phrases)
        assert np.array_equal(sample.masks, scene.masks)


def test_the_folder_of_the_files_can_be_named_as_well(refcoco_m: RefCocoMSet) -> None:
    dataset = open_dataset(refcoco_m.uri(path=refcoco_m.folder / "data"))
    assert len(dataset) == len(open_dataset(refcoco_m.uri()))
    assert open_dataset(dataset.source).source == dataset.source
    assert dataset.place(len(dataset) - 1).endswith("data/validation-00001-of-00002.parquet[0]")


def test_without_pyarrow_an_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r'needs pyarrow, and .* pip install "vlm-adapters\[parquet\]"\.'):
        open_dataset(f"refcoco_m:path={tmp_path}")


def test_a_broken_row_is_reported_by_its_number(subtests: pytest.Subtests, refcoco_m: RefCocoMSet) -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"samples": []}, "It is not a row of RefCOCO-M: samples: List should have at least 1 item"),
        ({"samples": None}, "It is not a row of RefCOCO-M: samples"),
        ({"image_id": None}, "It is not a row of RefCOCO-M: image_id"),
        ({"image_id": 0}, r"Its image_id 0 is already that of .*00000-of-00002\.parquet\[0\]"),
    ]
    row = refcoco_m.rows[1]
    for change, message in cases:
        with subtests.test(change=change):
            refcoco_m.rows[1] = {**row, **change}
            with pytest.raises(DataError, match=rf"00000-of-00002\.parquet\[1\]: {message}"):
                open_dataset(refcoco_m.write().uri())
            assert len(open_skipping(refcoco_m.uri()).problems) == 1


def test_a_broken_target_is_reported_by_its_row(subtests: pytest.Subtests, refcoco_m: RefCocoMSet) -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"sentences": []}, r"samples\.0\.sentences: List should have at least 1 item"),
        ({"sentences": ["  "]}, "Sentence 0 of sample 10 is blank"),
        ({"id": 0}, r"Its id 0 is already that of .*\[0\]"),
        ({"mask": None}, r"samples\.0\.mask"),
    ]
    row = copy.deepcopy(refcoco_m.rows[1])
    for change, message in cases:
        with subtests.test(change=change):
            refcoco_m.rows[1] = copy.deepcopy(row)
            refcoco_m.rows[1]["samples"][0] |= change
            with pytest.raises(DataError, match=message):
                open_dataset(refcoco_m.write().uri())


def test_a_mask_of_another_size_is_an_error_of_its_sample(refcoco_m: RefCocoMSet) -> None:
    refcoco_m.rows[0]["samples"][0]["mask"] = {"size": [2, 2], "counts": "04"}
    dataset = open_dataset(refcoco_m.write().uri())
    with pytest.raises(DataError, match=r"The mask of sample 0 is broken: its size is \[2, 2\], and the image is"):
        dataset.sample(0)
    assert dataset.sample(2).masks.any()


def test_an_image_that_is_not_one_is_an_error_of_its_row(refcoco_m: RefCocoMSet) -> None:
    refcoco_m.rows[0]["image"] = {"bytes": b"no image", "path": "a.jpg"}
    refcoco_m.rows[1]["image"] = {"bytes": None, "path": "/etc/passwd"}
    dataset = open_dataset(refcoco_m.write().uri(form="packed"))
    with pytest.raises(ImageError, match=r"00000-of-00002\.parquet\[0\]: The image of 8 bytes is not an image"):
        dataset.sample(0)
    with pytest.raises(DataError, match=r"parquet\[1\] has no bytes of an image\. Give the published files"):
        dataset.sample(1)


def test_files_that_are_not_parquet_are_refused(refcoco_m: RefCocoMSet) -> None:
    (first, second) = sorted((refcoco_m.folder / "data").iterdir())
    sound = first.read_bytes()
    for content in (b"", b"PAR1", sound[: len(sound) // 2], b"PAR1" + b"\0" * 100 + b"\xff\xff\xff\x7fPAR1"):
        first.write_bytes(content)
        with pytest.raises(DataError, match=r"00000-of-00002\.parquet cannot be read as parquet: .* Download it again"):
            open_dataset(refcoco_m.uri())
    first.unlink()
    second.unlink()
    with pytest.raises(DataError, match=r"has 0 parquet files, and RefCOCO-M has two"):
        open_dataset(refcoco_m.uri())


def test_a_file_of_other_columns_is_refused(refcoco_m: RefCocoMSet) -> None:
    from pyarrow import Table, parquet  # noqa: PLC0415 - an extra

    parquet.write_table(Table.from_pylist([{"image_id": 1}]), refcoco_m.folder / "data" / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has no column image, samples\. Download it again\."):
        open_dataset(refcoco_m.uri())


@pytest.mark.parametrize("limits", [Limits(max_lines=2), Limits(max_line_values=3), Limits(max_file_bytes=500)])
def test_a_file_beyond_the_limits_is_refused_before_it_is_read(limits: Limits, refcoco_m: RefCocoMSet) -> None:
    with pytest.raises(DataError, match=r"at most .* are read"):
        open_dataset(refcoco_m.uri(), limits=limits)


def test_values_that_a_short_file_repeats_are_counted_before_they_are_read(refcoco_m: RefCocoMSet) -> None:
    import pyarrow as pa  # noqa: PLC0415 - an extra
    from pyarrow import parquet  # noqa: PLC0415

    count = 3_000_000
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["a"])).cast(pa.string())
    sentences = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32)), texts)
    targets = pa.StructArray.from_arrays([pa.array(np.zeros(count, np.int64)), sentences], ["id", "sentences"])
    samples = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), targets)
    file = refcoco_m.folder / "data" / "a.parquet"
    rows = pa.Table.from_arrays([pa.array([b""]), pa.array([1]), samples], ["image", "image_id", "samples"])
    parquet.write_table(rows, file)
    assert file.stat().st_size < 10_000
    with pytest.raises(DataError, match=r"samples\.list\.element\.id holds up to 3,000,000 values of .* at most 100,"):
        open_dataset(refcoco_m.uri())


def test_a_long_value_that_a_short_file_repeats_is_counted_each_time(refcoco_m: RefCocoMSet) -> None:
    samples = [{**refcoco_m.rows[0]["samples"][0], "sentences": ["x" * 100_000] * 1_000}]
    refcoco_m.rows[0]["samples"] = samples
    refcoco_m.write()
    assert min((refcoco_m.folder / "data").iterdir()).stat().st_size < 1_000_000
    with pytest.raises(DataError, match=r"samples\.list\.element\.sentences\.list\.element holds up to "):
        open_dataset(refcoco_m.uri(), limits=Limits(max_file_bytes=50_000_000))
    with pytest.raises(DataError, match=r"has a row of 100,\d+,\d+ bytes, and .* at most 16,777,216 and"):
        open_dataset(refcoco_m.uri())


def test_rows_that_repeat_a_long_image_are_not_copied_without_end(refcoco_m: RefCocoMSet) -> None:
    long = {"bytes": bytes(2_000_000), "path": "a.jpg"}
    for number in range(300):
        samples = [{**refcoco_m.rows[0]["samples"][0], "id": 10_000 + number}]
        refcoco_m.rows.insert(0, {**refcoco_m.rows[0], "image": long, "image_id": 10_000 + number, "samples": samples})
    refcoco_m.write(row_group_size=1_000)
    assert min((refcoco_m.folder / "data").iterdir()).stat().st_size < 1_000_000
    dataset = open_dataset(refcoco_m.uri(form="packed"), limits=Limits(max_file_bytes=100_000_000))
    with pytest.raises(
        DataError, match=r"and 10\d,\d+,\d+ bytes up to it; at most 16,777,216 and 100,000,000 are read"
    ):
        dataset.sample(299)


def test_it_is_checked_and_converted(refcoco_m: RefCocoMSet, tmp_path: Path) -> None:
    checked = CliRunner().invoke(app, ["data", "check", refcoco_m.uri(), "--json"])
    report = json.loads(checked.stdout)
    phrases = 2 * sum(len(row["samples"]) for row in refcoco_m.rows)
    assert (checked.exit_code, report["samples"], report["images"], report["problems"]) == (0, phrases, 4, [])
    plain = tmp_path / "plain"
    assert CliRunner().invoke(app, ["data", "convert", refcoco_m.uri(), "--out", str(plain)]).exit_code == 0
    for sample, again in zip(open_dataset(refcoco_m.uri()), open_dataset(plain), strict=True):
        assert (again.id, again.text, again.phrase_ids) == (sample.id, sample.text, sample.phrase_ids)
        assert np.array_equal(again.masks, sample.masks)
        assert np.array_equal(np.asarray(again.image), np.asarray(sample.image))
    assert len(list((plain / "images").iterdir())) == 4


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_file_is_read_or_a_typed_error(seed: int, refcoco_m: RefCocoMSet) -> None:
    file = min((refcoco_m.folder / "data").iterdir())
    content, rng = bytearray(file.read_bytes()), np.random.default_rng(seed)
    for place in rng.integers(0, len(content), 3):
        content[place] ^= 1 << int(rng.integers(8))
    file.write_bytes(bytes(content))
    try:
        dataset = open_dataset(refcoco_m.uri(broken="skip"))
    except DataError:
        return
    assert {type(found) for _, found in read_samples(dataset, range(len(dataset)))} <= {Sample, Problem}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_a_named_pipe_is_not_waited_for(refcoco_m: RefCocoMSet) -> None:
    os.mkfifo(refcoco_m.folder / "data" / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read as parquet: it is a named pipe"):
        open_dataset(refcoco_m.uri())
