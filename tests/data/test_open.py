"""Opening data sets: what a source may be, which samples are chosen, and what a mistake says."""

from __future__ import annotations

import gc
import hashlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.data.open import change_config, open_dataset, open_skipping, read_config
from vlm_adapters.data.stable_random import stable_sample
from vlm_adapters.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import InstancesSet, PngSet, RefCocoSet

    from vlm_adapters.data.dataset import Dataset


def ids(dataset: Dataset) -> list[str]:
    return [dataset.annotation(index).id for index in range(len(dataset))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty samples in the plain form, two to an image; the images are missing."""
    path = tmp_path / "set"
    path.mkdir()
    phrase = {"span": [0, 5], "mask": {"size": [1, 1], "counts": "1"}}
    lines = [
        {"id": str(number), "image": "a.png", "image_id": str(number // 2), "text": "a dog", "phrases": [phrase]}
        for number in range(30)
    ]
    (path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_scenes_are_opened_by_their_keys() -> None:
    dataset = open_dataset("scenes:count=2,seed=4,first=3")
    assert [sample.id for sample in dataset] == ["scene-4-3", "scene-4-4"]
    assert {len(sample.phrases) for sample in open_dataset("scenes:count=3,fewest=1,most=1")} == {1}


def test_a_folder_is_opened_by_its_path(folder: Path) -> None:
    assert ids(open_dataset(folder)) == ids(open_dataset(str(folder))) == [str(number) for number in range(30)]
    assert open_dataset(folder).source == f"folder:path={folder}"


def test_a_mapping_and_a_yaml_file_are_the_same_set(folder: Path, tmp_path: Path) -> None:
    keys = {
        "kind": "folder",
        "path": str(folder),
        "limit": 9,
        "without": [{"kind": "folder", "path": str(folder), "limit": 2}],
    }
    (tmp_path / "set.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    opened = [open_dataset(keys), open_dataset(tmp_path / "set.yaml"), open_dataset(str(tmp_path / "set.yaml"))]
    assert {dataset.source for dataset in opened} == {
        f'folder:path={folder},limit=9,without=["folder:path={folder},limit=2"]'
    }
    assert ids(opened[0]) == [str(number) for number in range(2, 11)]


def test_the_source_opens_the_same_refs(subtests: pytest.Subtests, refcoco: RefCocoSet) -> None:
    cases: list[dict[str, object]] = [
        {},
        {"form": "packed"},
        {"sentences": "random", "seed": 3},
        {"sentences": "random", "seed": 3, "limit": 2, "form": "packed", "epoch": 4},
        {"limit": 2, "broken": "skip"},
        {"limit": 2, "seed": 0},
    ]
    for keys in cases:
        with subtests.test(keys=keys):
            dataset = open_dataset(refcoco.uri(**keys))
            again = open_dataset(dataset.source)
            assert again.source == dataset.source
            assert again.skips_broken == dataset.skips_broken == ("broken" in keys)
            assert [sample.text for sample in again] == [sample.text for sample in dataset]


def test_the_source_opens_the_same_set_of_every_kind(png: PngSet, instances: InstancesSet, folder: Path) -> None:
    inside = json.dumps(png.uri(limit=1))
    for source in (
        "scenes:count=3,seed=4,first=1",
        "scenes:count=3,fewest=1,most=3",
        f"folder:path={folder},limit=3,seed=5",
        png.uri(),
        instances.uri(without=f"[{inside}]"),
        instances.uri(without=inside),
    ):
        dataset = open_dataset(source)
        assert open_dataset(dataset.source).source == dataset.source
        assert ids(open_dataset(dataset.source)) == ids(dataset)


def test_keys_are_read_without_opening_and_opened_as_changed(folder: Path) -> None:
    config = read_config({"kind": "folder", "path": str(folder), "limit": 7, "seed": 1})
    assert ids(open_dataset(config)) == ids(open_dataset(f"folder:path={folder},limit=7,seed=1"))
    changed = change_config(config, {"limit": 3})
    assert ids(open_dataset(changed)) == ids(open_dataset(f"folder:path={folder},limit=3,seed=1"))
    assert read_config("folder:path=nowhere") == read_config(read_config("folder:path=nowhere"))


def test_a_change_that_does_not_fit_is_refused(folder: Path) -> None:
    config = read_config(folder)
    with pytest.raises(DataError, match="has no key 'form'"):
        change_config(config, {"form": "packed"})
    with pytest.raises(DataError, match="limit of folder is 0"):
        change_config(config, {"limit": 0})


def test_paths_with_commas_are_opened_again(folder: Path) -> None:
    awkward = folder.rename(folder.with_name('a, b="c"[d]'))
    dataset = open_dataset(awkward)
    assert ids(open_dataset(dataset.source)) == ids(dataset)


def test_a_limit_takes_the_first_ones(folder: Path) -> None:
    assert ids(open_dataset(f"folder:path={folder},limit=3")) == ["0", "1", "2"]
    assert len(open_dataset(f"folder:path={folder},limit=99")) == 30


def test_a_limit_with_a_seed_draws_and_keeps_the_order(folder: Path) -> None:
    drawn = [ids(open_dataset(f"folder:path={folder},limit=10,seed={seed}")) for seed in range(20)]
    assert all(sorted(names, key=int) == names and len(set(names)) == 10 for names in drawn)
    assert len(set(map(tuple, drawn))) == 20
    assert {name for names in drawn for name in names} == {str(number) for number in range(30)}
    assert ids(open_dataset(f"folder:path={folder},limit=10,seed=3")) == drawn[3]


@settings(deadline=None)  # on a busy machine a thread may wait
@given(st.integers(0, 2**64), st.integers(0, 40), st.integers(1, 50))
def test_draws_are_those_of_the_hashes(seed: int, length: int, count: int) -> None:
    def number(index: int) -> bytes:
        return hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()

    expected = sorted(sorted(range(length), key=number)[:count])
    assert stable_sample(range(length), count, seed) == expected


def test_more_of_the_same_draw_holds_all_of_less() -> None:
    few, many = (set(stable_sample(range(1000), count, 7)) for count in (10, 100))
    assert few < many


def test_images_of_an_evaluation_set_are_left_out(refcoco: RefCocoSet, png: PngSet) -> None:
    # the same image is COCO_train2014_000000000001.jpg for one and 000000000001.jpg for the other
    del refcoco.refs[1]
    evaluated = refcoco.write().uri(form="packed")
    assert ids(open_dataset(evaluated)) == ["1"]
    keys = {"kind": "png", **dict(pair.split("=") for pair in png.uri().partition(":")[2].split(","))}
    dataset = open_dataset({**keys, "without": [evaluated]})
    assert [dataset.annotation(index).image_id for index in range(len(dataset))] == ["2"]
    assert [sample.text for sample in dataset] == ["A man"]
    assert open_dataset(evaluated).source in json.loads(dataset.source.partition("without=")[2])


def test_what_is_left_out_is_left_out_before_the_limit(folder: Path) -> None:
    without = f"folder:path={folder},limit=3"
    source = {"kind": "folder", "path": str(folder), "without": without, "limit": 2}
    assert ids(open_dataset(source)) == ["4", "5"]  # 3 shares its image with 2


def test_a_set_of_which_nothing_is_left_is_reported(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Nothing is left of the data set folder:.* Check its files, split, and with"):
        open_dataset({"kind": "folder", "path": str(folder), "without": str(folder)})
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "samples.jsonl").touch()
    with pytest.raises(DataError, match="Nothing is left of the data set folder:"):
        open_dataset(tmp_path / "empty")


def test_broken_entries_are_an_error_or_skipped_as_chosen(folder: Path) -> None:
    file = folder / "samples.jsonl"
    file.write_text("{\n[]\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    message = r"samples\.jsonl:1: .* Broken entries: 2\. `adapters data check` lists them; broken=skip leaves them out"
    with pytest.raises(DataError, match=message):
        open_dataset(folder)
    skipping = open_dataset(f"folder:path={folder},broken=skip")
    assert skipping.skips_broken
    assert [problem.place for problem in skipping.problems] == [f"{file}:1", f"{file}:2"]
    assert len(skipping) == 30
    assert open_skipping(folder).skips_broken
    assert open_skipping(folder).problems == skipping.problems


def test_random_sentences_change_by_epoch_within_what_was_chosen(refcoco: RefCocoSet) -> None:
    dataset = open_dataset(refcoco.uri(sentences="random", seed=1, limit=2, broken="skip"))
    epochs = [dataset.at_epoch(epoch) for epoch in range(20)]
    assert {tuple(name.split("/")[0] for name in ids(epoch)) for epoch in epochs} == {
        tuple(name.split("/")[0] for name in ids(dataset))
    }
    assert len({tuple(ids(epoch)) for epoch in epochs}) > 1
    for epoch in epochs[:4]:
        assert ids(open_dataset(epoch.source)) == ids(epoch)
        assert epoch.skips_broken


def test_the_collector_runs_again_after_a_set_was_opened(folder: Path) -> None:
    assert gc.isenabled()
    open_dataset(folder)
    assert gc.isenabled()
    with pytest.raises(DataError):
        open_dataset("folder:path=nowhere")
    assert gc.isenabled()


def test_a_mistake_says_what_was_meant(subtests: pytest.Subtests) -> None:
    cases: list[tuple[str | dict[str, object], str]] = [
        (
            "nowhere",
            r"no data set 'nowhere': it is neither a folder with samples\.jsonl, nor a \.yaml file, nor kind:key=value",
        ),
        (
            "scnes:count=1",
            r"There is no kind of data set 'scnes'\. Did you mean 'scenes'\? Use one of scenes, hard_scenes, folder, r",
        ),
        (
            {"path": "x"},
            r"A data set is named without its kind\. Use one of scenes, hard_scenes, folder, refcoco, grefcoco, ",
        ),
        ({"kind": 5}, r"There is no kind of data set 5\. Use one of"),
        (
            "scenes:cuont=1",
            r"scenes has no key 'cuont'\. Did you mean 'count'\? Its keys are count \(needed\), seed, fir",
        ),
        ("scenes:seed=1", r"scenes needs the key 'count'\. Its keys are count \(needed\), seed, first, fewest, most\."),
        ("scenes:count=x", r"The key count of scenes is 'x': input should be a valid integer"),
        ("scenes:count=0", r"The key count of scenes is '0': input should be greater than 0\."),
        (
            "scenes:count=1,fewest=5",
            r"The keys of scenes do not fit together: fewest is 5, more than most, which is 4\.",
        ),
        (
            "folder:path=x,seed=1",
            r"do not fit together: seed draws samples for limit, and there is no limit: give both",
        ),
        ("folder:path=x,broken=no", r"The key broken of folder is 'no': input should be 'error' or 'skip'\."),
        ("refcoco:annotations=x,images=x,split=val,sentences=random", "sentences=random draws by seed: give seed"),
        ("refcoco:annotations=x,images=x,split=val,epoch=1", "epoch draws other sentences, and none are drawn"),
        ("refcoco:annotations=x,images=x,split=val,form=all", "The key form of refcoco is 'all': input should be 'iso"),
        ("png:narratives=x", r"png needs the key 'panoptic'"),
        ("gone.yaml", r"gone\.yaml cannot be read as YAML: .*No such file"),
    ]
    for source, message in cases:
        with subtests.test(source=source):
            with pytest.raises(DataError, match=message) as caught:
                open_dataset(source)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [("- a", "does not name a data set"), ("{a: [", "cannot be read as YAML")]
)
def test_a_yaml_file_of_something_else_is_reported(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "set.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / "set.yaml")


def test_scenes_opened_by_name_are_the_scenes() -> None:
    assert open_dataset(Scenes(3, seed=8).source)[2].text == Scenes(3, seed=8)[2].text


def test_data_sets_are_opened_without_torch() -> None:
    code = (
        "import sys; from vlm_adapters.data import open_dataset, write_folder, check_dataset; "
        "open_dataset('scenes:count=1')[0]; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
