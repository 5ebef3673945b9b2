"""Names in files of strangers lead nowhere outside the folder, unless the caller allows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vlm_adapters.data import check_dataset, open_dataset, open_skipping, write_folder
from vlm_adapters.errors import DataError

if TYPE_CHECKING:
    from conftest import InstancesSet, PngSet, RefCocoSet

OUTSIDE = ("../secret.png", "..\\secret.png", "a/../../secret.png", "ABSOLUTE", "C:\\secret.png", "\\secret.png")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """An image that no set may read, of the size of COCO's image 1."""
    Image.new("RGB", (60, 40), (1, 2, 3)).save(tmp_path / "secret.png")
    return tmp_path / "secret.png"


def name_it(kind: str, name: str, sets: tuple[RefCocoSet, InstancesSet, PngSet]) -> str:
    """Give the first image of a set another name, or the first segments; the source of the set."""
    refcoco, instances, png = sets
    if kind == "refcoco":
        refcoco.content["images"][0]["file_name"] = name
        return refcoco.write().uri(sentences="first")
    if kind == "instances":
        file = instances.folder / "instances.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        content["images"][0]["file_name"] = name
        file.write_text(json.dumps(content), encoding="utf-8")
        return instances.uri()
    png.panoptic["images" if kind == "png" else "annotations"][0]["file_name"] = name
    return png.write().uri()


@pytest.fixture
def named(refcoco: RefCocoSet, instances: InstancesSet, png: PngSet) -> Callable[[str, str], str]:
    return lambda kind, name: name_it(kind, name, (refcoco, instances, png))


KINDS = ("refcoco", "instances", "png", "segments of png")


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_leads_out_is_refused_and_the_image_named(
    kind: str, name: str, named: Callable[[str, str], str], secret: Path
) -> None:
    source = named(kind, str(secret) if name == "ABSOLUTE" else name)
    with pytest.raises(DataError, match=r"file_name of (the segments of )?image 1 in .* is outside the folder"):
        open_dataset(source)
    skipping = open_skipping(source)
    assert len(skipping.problems) >= 1
    assert all(skipping.annotation(index).image_id != "1" for index in range(len(skipping)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_that_leads_out_is_refused(kind: str, named: Callable[[str, str], str], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "elsewhere" / "secret.png")
    for folder in ("images", "train2014", "val2017", "panoptic"):
        (tmp_path / folder / "link").symlink_to(tmp_path / "elsewhere")
    dataset = open_dataset(named(kind, "link/secret.png"))
    with pytest.raises(DataError, match=r"is a link to '.*elsewhere/secret\.png', outside the folder"):
        dataset.sample(0)


def test_a_link_within_the_folder_and_a_linked_folder_are_read(instances: InstancesSet, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.rename(tmp_path / "stored")
    images.symlink_to("stored")
    (images / "000000000001.jpg").rename(images / "real.jpg")
    (images / "000000000001.jpg").symlink_to("real.jpg")
    assert len(list(open_dataset(instances.uri()))) == 2


def test_a_backslash_separates_folders(instances: InstancesSet, named: Callable[[str, str], str]) -> None:
    (instances.folder / "images" / "sub").mkdir()
    Image.new("RGB", (60, 40), "blue").save(instances.folder / "images" / "sub" / "a.png")
    assert open_dataset(named("instances", "sub\\a.png"))[0].image.getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize("name", ["../secret.png", "..\\secret.png", "ABSOLUTE"])
def test_the_caller_may_allow_it(name: str, named: Callable[[str, str], str], secret: Path) -> None:
    source = named("instances", str(secret) if name == "ABSOLUTE" else name)
    sample = open_dataset(source, allow_outside=True)[0]
    assert np.asarray(sample.image)[0, 0].tolist() == [1, 2, 3]


def test_what_lies_outside_is_never_converted(named: Callable[[str, str], str], secret: Path, tmp_path: Path) -> None:
    source = named("instances", "../secret.png")
    with pytest.raises(DataError, match="opened with allow_outside, and files outside its folder are not copied"):
        write_folder(open_dataset(source, allow_outside=True), tmp_path / "out", range(1))
    dataset = open_skipping(source)
    write_folder(dataset, tmp_path / "out", range(len(dataset)))
    assert secret.read_bytes() not in [file.read_bytes() for file in (tmp_path / "out").rglob("*.*")]
    assert check_dataset(open_skipping(tmp_path / "out"), range(1)).problems == ()


def test_an_image_of_the_plain_form_stays_in_its_folder(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link.png").symlink_to(secret)
    line = {
        "id": "a",
        "image": "link.png",
        "image_id": "1",
        "text": "a dog",
        "phrases": [{"span": [0, 5], "mask": {"size": [40, 60], "counts": "PU2"}}],
    }
    (tmp_path / "set" / "samples.jsonl").write_text(json.dumps(line), encoding="utf-8")
    with pytest.raises(DataError, match="is a link to"):
        open_dataset(tmp_path / "set").sample(0)
