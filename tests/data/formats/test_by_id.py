"""Ids of other people's files: repeated, missing, enormous; nothing is assumed of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_adapters.data import check_dataset, open_dataset, open_skipping, write_folder
from vlm_adapters.data.formats.by_id import ById, identity
from vlm_adapters.errors import DataError

if TYPE_CHECKING:
    from conftest import InstancesSet, PngSet, RefCocoSet


def change_instances(instances: InstancesSet, change: Callable[[dict[str, Any]], object]) -> str:
    file = instances.folder / "instances.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")
    return instances.uri()


@given(st.lists(st.integers(0, 6), max_size=20))
def test_an_id_of_one_entry_is_that_entry_and_one_of_several_names_two_of_them(ids: list[int]) -> None:
    found = ById(Path("a.json"), "things", [{"id": number, "place": n} for n, number in enumerate(ids)], dict)
    for number in range(7):
        places = [place for place, other in enumerate(ids) if other == number]
        assert (number in found) == bool(places)
        if len(places) == 1:
            assert found[number]["place"] == places[0]
        else:
            message = rf"things\[{places[0]}\] and things\[{places[1]}\].* {number}" if places else "There is no"
            with pytest.raises(DataError, match=message):
                found[number]


@pytest.mark.parametrize("value", [5, "5", 5.0, "5" * 40, -3, 0])
def test_an_id_is_a_whole_number_or_digits(value: object) -> None:
    assert identity(value) == int(value)  # type: ignore[call-overload]


NOT_IDS = [True, 5.5, float("nan"), float("inf"), "5" * 5000, 10**5000, "x", None, [], "", "-5"]


def test_anything_else_is_not_an_id(subtests: pytest.Subtests) -> None:
    for number, value in enumerate(NOT_IDS):
        with subtests.test(number=number):
            with pytest.raises(DataError, match="is not an integer of at most 40 digits") as caught:
                identity(value)
            assert len(str(caught.value)) < 200


@pytest.mark.parametrize("key", ["images", "annotations"])
def test_two_entries_with_one_id_are_a_problem_of_what_names_them(key: str, instances: InstancesSet) -> None:
    def repeat(content: dict[str, Any]) -> None:
        content[key].append(copy.deepcopy(content[key][0]) | {"segmentation": [[0, 0, 9, 0, 9, 9]]})

    source = change_instances(instances, repeat)
    place = len(json.loads((instances.folder / "instances.json").read_text(encoding="utf-8"))[key]) - 1
    (problem,) = open_skipping(source).problems
    assert problem.place.endswith("captions.jsonl:1")
    assert f"{key}[0] and {key}[{place}] have the same id" in problem.message.replace(str(instances.folder) + "/", "")
    assert [sample.text for sample in open_skipping(source)] == ["two men"]
    with pytest.raises(DataError, match="have the same id"):
        open_dataset(source)


UNUSABLE: dict[str, object] = {
    "no id": {"image_id": 98},
    "not an object": 5,
    "nothing": None,
    "an id of text": {"id": "x", "image_id": 98},
    "a long id": {"id": "9" * 5000, "image_id": 98},
    "no image": {"id": 99},
    "no size": {"id": 99, "file_name": "x.png", "height": None, "width": None},
}


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_entry_that_nothing_names_costs_nothing(
    kind: str, key: str, instances: InstancesSet, refcoco: RefCocoSet, png: PngSet
) -> None:
    unusable = UNUSABLE[kind]
    source = change_instances(instances, lambda content: content[key].append(unusable))
    assert len(list(open_dataset(source))) == 2
    refcoco.content = {**refcoco.content, key: [*refcoco.content[key], unusable]}
    assert len(list(open_dataset(refcoco.write().uri()))) == 6
    png.panoptic[key].append(unusable)
    assert len(list(open_dataset(png.write().uri()))) == 2


def test_an_unusable_image_is_a_problem_of_the_caption_that_names_it(instances: InstancesSet) -> None:
    source = change_instances(instances, lambda content: content["images"][1].update(height=None))
    (problem,) = open_skipping(source).problems
    assert problem.place.endswith("captions.jsonl:2")
    assert "images[1]: The image 2 has no usable file_name, height and width: found" in problem.message
    assert "height None, width 30" in problem.message


def test_sizes_may_be_whole_floats(instances: InstancesSet) -> None:
    expected = [sample.masks for sample in open_dataset(instances.uri())]

    def use_floats(content: dict[str, Any]) -> None:
        for entry in content["images"]:
            entry.update(height=float(entry["height"]), width=float(entry["width"]))

    source = change_instances(instances, use_floats)
    assert all(np.array_equal(a.masks, b) for a, b in zip(open_dataset(source), expected, strict=True))


@pytest.mark.parametrize("repeated", ["ref_id", "sent_id"])
def test_repeated_ids_of_refs_and_sentences_are_problems_that_name_both(repeated: str, refcoco: RefCocoSet) -> None:
    refcoco.refs[2] = refcoco.ref(100 if repeated == "ref_id" else 102, 12, "val", b"triangle")
    refcoco.refs[2][b"sentences"][0][b"sent_id"] = 1020 if repeated == "ref_id" else 1001
    dataset = open_skipping(refcoco.write().uri())
    (problem,) = dataset.problems
    assert problem.place.endswith("refs(unc).p[2]")
    assert repeated in problem.message
    assert "entry [0]" in problem.message
    assert "[2]" in problem.message
    ids = [dataset.annotation(index).id for index in range(len(dataset))]
    assert len(set(ids)) == len(ids) == 4


def test_what_convert_writes_of_refs_with_one_id_passes_check(refcoco: RefCocoSet, tmp_path: Path) -> None:
    for ref in refcoco.refs:
        ref[b"ref_id"] = 0
        for sentence in ref[b"sentences"]:
            sentence[b"sent_id"] = 0
    dataset = open_skipping(refcoco.write().uri())
    assert len(dataset.problems) == 4  # two refs of the split, and two more sentences of the first
    write_folder(dataset, tmp_path / "out", range(len(dataset)))
    assert check_dataset(open_skipping(tmp_path / "out"), range(len(dataset))).problems == ()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("images", r"images\[0\] and images\[3\] have the same id 1"),
        ("annotations", r"annotations\[0\] and annotations\[2\] have the same image_id 1"),
        ("categories", r"categories\[0\] and categories\[4\] have the same id 1"),
    ],
)
def test_repeated_ids_of_a_panoptic_file_are_named(key: str, message: str, png: PngSet) -> None:
    png.panoptic[key].append(copy.deepcopy(png.panoptic[key][0]))
    with pytest.raises(DataError, match=message):
        open_dataset(png.write().uri())


def test_repeated_segments_of_an_image_are_named(png: PngSet) -> None:
    infos = png.panoptic["annotations"][1]["segments_info"]
    infos.append({**infos[1], "category_id": 18})
    message = r"segments_info of image 2\[1\] and segments_info of image 2\[2\] have the same id 300"
    with pytest.raises(DataError, match=message):
        open_dataset(png.write().uri())
