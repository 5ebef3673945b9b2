"""Runs over many images: what is written, what is skipped, and what resumes."""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from typing_extensions import override

from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.bulk import (
    BulkProgress,
    BulkRun,
    BulkSettings,
    Extract,
    ShardWorker,
    Task,
    open_prompts,
    read_results,
    run_bulk,
)
from vlm_adapters.bulk.shards import MANIFEST_FILE
from vlm_adapters.errors import BackboneError, DataError, OptionError, OutputError
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.fakes import FakeAdapter

if TYPE_CHECKING:
    from collections.abc import Sequence

ADAPTER = FakeAdapter()
SMALL = BulkSettings(shard_size=3, batch_size=2)


class FakeExtract(Extract):
    """Extracts with the fake adapter, and counts the prompts that it ran over."""

    def __init__(self, **options: Any) -> None:
        super().__init__("fake", **options)
        self.ran: list[int] = []

    @property
    @override
    def adapter(self) -> FakeAdapter:
        return ADAPTER

    @override
    def prepare(self, prompts: Sequence[Prompt]) -> Any:
        self.ran.append(len(prompts))
        return super().prepare(prompts)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of seven images; the second is damaged."""
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    for index in range(7):
        place = folder / "below" if index == 3 else folder
        Image.new("RGB", (64, 48), (30 * index, 0, 99)).save(place / f"{index}.png")
    (folder / "1.png").write_bytes(b"not an image")
    (folder / "notes.txt").write_text("not an image, and not asked for")
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_every_image_has_its_row_and_a_damaged_one_its_message(images: Path, tmp_path: Path) -> None:
    index = run_bulk(FakeExtract(), open_prompts(str(images), "a red dog", ["dog"]), tmp_path / "out", SMALL)
    found = [item for item, _ in read_results(tmp_path / "out")]
    assert [item.id for item in found] == ["0.png", "2.png", "4.png", "5.png", "6.png", "below/3.png"]
    assert [(entry.index, entry.id) for entry in index.failed] == [(1, "1.png")]
    assert "not an image in a format" in index.failed[0].message
    assert {(item.text, *item.spans) for item in found} == {("a red dog", (6, 9))}


def test_the_arrays_are_those_of_the_adapter(images: Path, tmp_path: Path) -> None:
    request = GridRequest(layers=[0, -1], hidden_layers=[-1], phrase_hidden_layers=[0])
    run_bulk(FakeExtract(request=request), open_prompts(str(images), "a red dog", ["dog"]), tmp_path / "out", SMALL)
    adapter = ADAPTER
    for item, row in read_results(tmp_path / "out"):
        prompt = Prompt.describe(images / item.id, item.text, item.spans)
        ((grids,),) = adapter.extract(adapter.preprocess([prompt]), request)
        np.testing.assert_allclose(row[f"{grids.grid.name}.attention"], grids.attention.numpy(), atol=1e-6)
        np.testing.assert_allclose(row[f"{grids.grid.name}.hidden"], grids.hidden.numpy(), atol=1e-5)
        np.testing.assert_allclose(row["phrase_hidden.0"], grids.phrase_hidden[0].numpy(), atol=1e-5)
        assert row["layers"].tolist() == list(grids.layers)
        assert row[f"{grids.grid.name}.box"].tolist() == list(grids.grid.box or ())
        assert row["size"].tolist() == [48, 64]


def test_half_precision_is_the_rounded_value(images: Path, tmp_path: Path) -> None:
    source = open_prompts(str(images), "a red dog")
    run_bulk(FakeExtract(), source, tmp_path / "full", SMALL)
    run_bulk(FakeExtract(save_dtype="float16"), source, tmp_path / "half", SMALL)
    for (_, full), (_, half) in zip(read_results(tmp_path / "full"), read_results(tmp_path / "half"), strict=True):
        assert np.array_equal(full["fine.attention"].astype(np.float16), half["fine.attention"])


def test_a_finished_run_computes_nothing_and_a_damaged_shard_alone(images: Path, tmp_path: Path) -> None:
    source, out = open_prompts(str(images), "a red dog"), tmp_path / "out"
    run_bulk(FakeExtract(), source, out, SMALL)
    before = digests(out)
    again = FakeExtract()
    run_bulk(again, source, out, SMALL)
    assert again.ran == []
    (out / "shard-000001.safetensors").write_bytes(b"flipped")
    with pytest.raises(DataError, match=r"Shard 1 of .* is damaged"):
        list(read_results(out))
    run_bulk(again, source, out, SMALL)
    assert again.ran == [2, 1]
    assert digests(out) == before


def test_a_run_that_was_interrupted_ends_with_the_same_bytes(images: Path, tmp_path: Path) -> None:
    source = open_prompts(str(images), "a red dog")

    def stop(progress: BulkProgress) -> None:
        if progress.items >= 5:
            raise KeyboardInterrupt

    run_bulk(FakeExtract(), source, tmp_path / "one", SMALL)
    with pytest.raises(KeyboardInterrupt):
        run_bulk(FakeExtract(), source, tmp_path / "two", SMALL, report=stop)
    with pytest.raises(DataError, match="is unfinished"):
        list(read_results(tmp_path / "two"))
    run_bulk(FakeExtract(), source, tmp_path / "two", SMALL)
    assert digests(tmp_path / "two") == digests(tmp_path / "one")


def test_workers_that_get_numbers_write_the_same_bytes(images: Path, tmp_path: Path) -> None:
    source = open_prompts(str(images), "a red dog")
    run_bulk(FakeExtract(), source, tmp_path / "one", SMALL)
    run = BulkRun.of(FakeExtract(), source, tmp_path / "two", SMALL)
    with run.held():
        for number in reversed(run.missing()):
            ShardWorker(run)({"shard": np.array([number])})
        run.finish()
    assert digests(tmp_path / "two") == digests(tmp_path / "one")


def test_another_run_is_refused_unless_nothing_was_computed(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = BulkRun.of(FakeExtract(), open_prompts(str(images), "a red dog"), out, SMALL)
    with run.held():
        assert (out / MANIFEST_FILE).is_file()
    run_bulk(FakeExtract(), open_prompts(str(images), "a red cat"), out, SMALL)
    with pytest.raises(OutputError, match=r"holds another run: source_fingerprint: .* Give another folder"):
        run_bulk(FakeExtract(), open_prompts(str(images), "a red dog"), out, SMALL)


def test_a_worker_writes_into_the_folder_of_its_run_alone(images: Path, tmp_path: Path) -> None:
    run = BulkRun.of(FakeExtract(), open_prompts(str(images), "a red dog"), tmp_path, SMALL)
    with pytest.raises(OutputError, match=r"There is no manifest\.json"):
        ShardWorker(run)({"shard": [0]})
    run_bulk(FakeExtract(), open_prompts(str(images), "a red cat"), tmp_path / "other", SMALL)
    other = replace(run, folder=tmp_path / "other")
    with pytest.raises(OutputError, match="holds another run: source_fingerprint"):
        ShardWorker(other)({"shard": [0]})


def test_a_folder_with_other_things_is_refused(images: Path) -> None:
    with pytest.raises(OutputError, match=r"There is no manifest\.json in the folder .* Give a new folder"):
        run_bulk(FakeExtract(), open_prompts(str(images), "a red dog"), images, SMALL)


class Picky(FakeExtract):
    """Fails with every batch that has a certain image, as a processor or as a model."""

    def __init__(self, *, in_model: bool) -> None:
        super().__init__()
        self.in_model = in_model

    @property
    @override
    def adapter(self) -> FakeAdapter:
        picky = self

        class Adapter(FakeAdapter):
            def preprocess(self, prompts: Sequence[Prompt]) -> Any:
                if not picky.in_model:
                    picky.check(prompts)
                return super().preprocess(prompts)

        return Adapter()

    def check(self, prompts: Sequence[Prompt]) -> None:
        if any(prompt.first_image.getpixel((0, 0)) == (60, 0, 99) for prompt in prompts):
            raise BackboneError("It failed.")

    @override
    def prepare(self, prompts: Sequence[Prompt]) -> Any:
        finish = super().prepare(prompts)

        def checked() -> Any:
            self.check(prompts)
            return finish()

        return checked if self.in_model else finish


def test_an_image_that_a_processor_refuses_costs_no_other_image(images: Path, tmp_path: Path) -> None:
    index = run_bulk(Picky(in_model=False), open_prompts(str(images), "a red dog"), tmp_path / "out", SMALL)
    assert [entry.id for entry in index.failed] == ["1.png", "2.png"]
    assert len(list(read_results(tmp_path / "out"))) == 5


def test_an_error_of_the_model_ends_the_run(images: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError):
        run_bulk(Picky(in_model=True), open_prompts(str(images), "a red dog"), tmp_path / "out", SMALL)


def test_progress_counts_items_and_failures(images: Path, tmp_path: Path) -> None:
    seen: list[BulkProgress] = []
    source = open_prompts(str(images), "a red dog")
    run_bulk(FakeExtract(), source, tmp_path / "out", SMALL, report=seen.append)
    assert [(p.items, p.total, p.failed) for p in seen] == [
        (0, 7, 0),
        (2, 7, 1),
        (3, 7, 1),
        (5, 7, 1),
        (6, 7, 1),
        (7, 7, 1),
    ]
    run_bulk(FakeExtract(), source, tmp_path / "out", SMALL, report=seen.append)
    assert seen[-1] == BulkProgress(7, 7, 0)


@pytest.mark.filterwarnings("ignore::vlm_adapters.errors.UnlikeSceneWarning")
def test_a_callable_loses_no_row(images: Path) -> None:
    task: Task = pickle.loads(pickle.dumps(Extract("tiny-llava", request=GridRequest(layers=[-1]))))  # noqa: S301
    paths = np.array([str(images / "0.png"), str(images / "1.png"), str(images / "2.png")])
    found = task({"image": paths, "text": np.array(["a red dog"] * 3), "id": np.array([4, 5, 6])})
    assert found["id"].tolist() == [4, 5, 6]
    assert [bool(message) for message in found["error"]] == [False, True, False]
    assert [maps.shape[:3] for maps in found["fine.attention"]] == [(1, 1, 8), (0, 0, 0), (1, 1, 8)]
    assert "image" not in found
    assert pickle.loads(pickle.dumps(task)).model == "tiny-llava"  # noqa: S301 - the loaded model stays behind
    assert len(pickle.dumps(task)) < 2000


def test_images_of_a_column_are_paths_bytes_or_arrays(images: Path) -> None:
    task = FakeExtract(request=GridRequest(layers=[-1]), text="a red dog", phrases=["dog"])
    path = images / "2.png"
    pixels = np.asarray(Image.open(path))
    columns = (np.array([str(path)]), np.array([path.read_bytes()], dtype=object), pixels[None])
    of_path, of_bytes, of_array = (task({"image": column})["fine.attention"][0] for column in columns)
    assert of_path.shape[0] == 1
    assert np.array_equal(of_path, of_bytes)
    assert np.array_equal(of_path, of_array)


def test_settings_are_positive() -> None:
    with pytest.raises(OptionError, match="at least 1"):
        BulkSettings(batch_size=0)


def test_the_manifest_has_no_device_number(images: Path, tmp_path: Path) -> None:
    run_bulk(FakeExtract(), open_prompts(str(images), "a red dog"), tmp_path / "out", SMALL)
    manifest = json.loads((tmp_path / "out" / MANIFEST_FILE).read_bytes())
    assert manifest["backbone"]["device"] == "cpu"
    assert manifest["threads"] == 1
