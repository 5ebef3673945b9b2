"""Files of annotation tools, written by hand as the tools write them, against PIL, pycocotools and numpy."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vlm_adapters.data.convert import write_folder
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.open import open_dataset, open_skipping
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import AdapterError, DataError

SIZE = (30, 40)
POLYGON = [[5.0, 4.0], [33.5, 9.0], [12.0, 27.0]]
FLAT = [value for point in POLYGON for value in point]
ByPycocotools = Callable[[object, tuple[int, int]], np.ndarray[Any, Any]]


def image(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", size[::-1], "red").save(path)


def disc(x: float, y: float, across: float, down: float) -> np.ndarray[Any, Any]:
    """An ellipse by numpy: the pixels whose centres it holds."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    inside: np.ndarray[Any, Any] = ((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 <= 1
    return inside


def rectangle(left: int, top: int, right: int, bottom: int) -> np.ndarray[Any, Any]:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


def named(sample: Sample) -> dict[str, np.ndarray[Any, Any]]:
    return {phrase.text: mask for phrase, mask in zip(sample.phrases, sample.masks, strict=True)}


def assert_masks(sample: Sample, expected: dict[str, np.ndarray[Any, Any]]) -> None:
    found = named(sample)
    assert list(found) == list(expected)
    for name, mask in expected.items():
        assert np.array_equal(found[name], mask), name


# --- labelme


def png(mask: np.ndarray[Any, Any]) -> str:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


PATCH = np.array([[1, 0, 1], [1, 1, 0]], bool)
"""A mask of labelme in its rectangle."""

SHAPES: list[dict[str, object]] = [
    {"label": "a leaf", "points": POLYGON, "shape_type": "polygon", "group_id": None, "flags": {}},
    {"label": "wall", "points": [[20, 30], [3, 12]], "shape_type": "rectangle"},
    {"label": "ball", "points": [[20.0, 15.0], [25.0, 15.0]], "shape_type": "circle"},
    {"label": "patch", "points": [[30, 2], [32, 3]], "shape_type": "mask", "mask": png(PATCH)},
    {"label": "wall", "points": [[36, 0], [40, 4]], "shape_type": "rectangle"},
]


def labelme(folder: Path, *shapes: object, **changes: object) -> str:
    image(folder / "a.png")
    content = {"version": "5.5.0", "imagePath": "a.png", "imageData": None, "imageHeight": 30, "imageWidth": 40}
    text = json.dumps(content | {"shapes": shapes} | changes)
    (folder / "a.json").write_text(text, encoding="utf-8")
    return f"labelme:path={folder}"


def test_every_shape_of_labelme_is_drawn_and_equal_labels_are_one_phrase(
    tmp_path: Path, by_pycocotools: ByPycocotools
) -> None:
    (sample,) = open_dataset(labelme(tmp_path, *SHAPES))
    assert (sample.id, sample.image_id, sample.text) == ("a", "a", "a leaf, wall, ball, patch")
    assert [sample.text[phrase.start : phrase.end] for phrase in sample.phrases] == sample.text.split(", ")
    patch = np.zeros(SIZE, bool)
    patch[2:4, 30:33] = PATCH
    assert_masks(
        sample,
        {
            "a leaf": by_pycocotools([FLAT], SIZE),
            "wall": rectangle(3, 12, 20, 30) | rectangle(36, 0, 40, 4),
            "ball": disc(20, 15, 5, 5),
            "patch": patch,
        },
    )


def test_a_circle_is_nearly_that_of_pil() -> None:
    drawn = Image.new("1", SIZE[::-1])
    ImageDraw.Draw(drawn).ellipse([10, 5, 29, 24], fill=1)
    assert (np.asarray(drawn) ^ disc(20, 15, 10, 10)).sum() <= 8


def test_images_of_labelme_may_be_in_another_folder(tmp_path: Path) -> None:
    labelme(tmp_path / "jsons", SHAPES[0], imagePath="..\\photos\\b.png")
    image(tmp_path / "photos" / "b.png")
    with pytest.raises(DataError, match=r"photos.*b\.png' is outside the folder"):
        open_dataset(f"labelme:path={tmp_path / 'jsons'}")
    dataset = open_dataset(f"labelme:path={tmp_path / 'jsons'},images={tmp_path / 'photos'}")
    assert dataset.image_file(0) == tmp_path / "photos" / "b.png"
    assert open_dataset(dataset.source)[0].text == "a leaf"


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"label": "x", "points": [[1, 2]], "shape_type": "point"}, r"shapes\[0\] is a 'point', which has no area"),
        ({"label": "x", "points": [[1, 2]], "shape_type": "circle"}, "is a circle with too few points"),
        ({"label": " ", "points": POLYGON}, "A label is blank"),
        ({"label": "x", "points": [[1, 2, 3]]}, r"is not a file of labelme: shapes\.0\.points\.0: List should have"),
        ({"label": "x", "points": POLYGON[:2]}, r"shapes\[0\] \('x'\): the polygon .* three or more points"),
        ({"label": "x", "points": [[1, 1], [1, 5]], "shape_type": "rectangle"}, r"'x'\): the box .* has no area"),
        ({"label": "x", "points": [[1, 1], [3, 2]], "shape_type": "mask", "mask": "?"}, "its mask is not base64"),
        ({"label": "x", "points": [[38, 1], [40, 2]], "shape_type": "mask", "mask": png(PATCH)}, "it is 3 x 41, and"),
        ({"label": "x", "points": [[1, 1], [99, 2]], "shape_type": "mask", "mask": ""}, "is larger than the image"),
    ],
)
def test_a_shape_of_labelme_that_cannot_be_used_is_named(shape: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(labelme(tmp_path, shape)).sample(0)


def test_an_image_of_another_size_than_labelme_saw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is 30 x 40, and its shapes were drawn on one of 60 x 80 \(height x width\)"):
        open_dataset(labelme(tmp_path, *SHAPES, imageHeight=60, imageWidth=80)).sample(0)


# --- CVAT


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><labels><label><name>leaf</name></label></labels></task></meta>
  <image id="0" name="a.png" width="40" height="30">
    <polygon label="leaf" source="manual" occluded="0" points="5.00,4.00;33.50,9.00;12.00,27.00" z_order="0">
    </polygon>
    <box label="wall" occluded="0" xtl="3.00" ytl="12.00" xbr="20.00" ybr="30.00" z_order="0">
      <attribute name="colour">red</attribute>
    </box>
    <box label="kite" xtl="10" ytl="10" xbr="20" ybr="20" rotation="90.0"></box>
    <ellipse label="ball" cx="20.00" cy="15.00" rx="8.00" ry="5.00"></ellipse>
    <mask label="leaf" rle="0, 1, 1, 3, 1" left="30" top="2" width="3" height="2"></mask>
    <tag label="outdoors"></tag>
  </image>
  <image id="1" name="b.png" width="40" height="30"></image>
</annotations>
"""


def cvat(folder: Path, text: str = CVAT) -> str:
    image(folder / "images" / "a.png")
    (folder / "annotations.xml").write_text(text, encoding="utf-8")
    return f"cvat:annotations={folder / 'annotations.xml'},images={folder / 'images'}"


def test_every_shape_of_cvat_is_drawn(tmp_path: Path, by_pycocotools: ByPycocotools) -> None:
    (sample,) = open_dataset(cvat(tmp_path))
    assert (sample.id, sample.image_id, sample.text) == ("0", "0", "leaf, wall, kite, ball")
    patch = np.zeros(SIZE, bool)
    patch[2:4, 30:33] = PATCH
    assert_masks(
        sample,
        {
            "leaf": by_pycocotools([FLAT], SIZE) | patch,
            "wall": rectangle(3, 12, 20, 30),
            "kite": by_pycocotools([[20, 10, 20, 20, 10, 20, 10, 10]], SIZE),
            "ball": disc(20, 15, 8, 5),
        },
    )


BOMB = """<?xml version="1.0"?>
<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotations><image id="0" name="&b;" width="40" height="30"></image></annotations>"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, r"annotations\.xml:2: It declares a DOCTYPE"),
        ("<annotations>", r"annotations\.xml:1: It cannot be read as XML: no element found"),
        ('<?xml version="1.0" encoding="shift_jis"?><a/>', "It cannot be read as XML"),
        ("<annotations><track/></annotations>", "It is an export for video"),
        (CVAT.replace("ellipse", "points"), r"annotations\.xml:5: Line 12, a points: it has no area"),
        (CVAT.replace('xtl="3.00" ', ""), r"xml:5: Line 8, a box: no 'xtl'"),
        (CVAT.replace('xtl="3.00"', 'xtl="x"'), "a box: could not convert string to float"),
        (CVAT.replace('name="a.png"', 'name="../a.png"'), "xml:5: '../a.png' is outside the folder"),
        (CVAT.replace('label="wall"', 'label=" "'), "xml:5: A label is blank"),
        (CVAT.replace('width="40"', 'width="4o"'), "xml:5: The image has no usable id, name, width and height"),
    ],
)
def test_a_file_of_cvat_that_cannot_be_used_is_an_error_by_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(cvat(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CVAT.replace("0, 1, 1, 3, 1", "0, 1, 1, 3"), r"Line 13 \('leaf'\): its run lengths do not cover its 2 x 3"),
        (CVAT.replace("0, 1, 1, 3, 1", "0, 1, x"), "its run lengths are not numbers"),
        (CVAT.replace('left="30"', 'left="39"'), "it is 4 x 42, and the image is 30 x 40"),
        (CVAT.replace('rx="8.00"', 'rx="0"'), r"Line 12 \('ball'\): the ellipse .* has no area"),
        (CVAT.replace('height="30"', 'height="31"'), "is 30 x 40, and its masks are 31 x 40"),
        (CVAT.replace("33.50,9.00", "nan,9.00"), r"Line 6 \('leaf'\): the polygon"),
    ],
)
def test_a_shape_of_cvat_that_cannot_be_drawn_is_named_by_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(cvat(tmp_path, text)).sample(0)


# --- COCO


def coco(folder: Path, **changes: object) -> str:
    image(folder / "images" / "a.png")
    content = {
        "images": [
            {"id": 4, "file_name": "a.png", "height": 30, "width": 40},
            {"id": 5, "file_name": "b.png", "height": 30, "width": 40},
        ],
        "categories": [{"id": 1, "name": "leaf", "supercategory": ""}, {"id": 2, "name": "wall"}],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 2, "segmentation": [FLAT]},
            {"id": 2, "image_id": 4, "category_id": 1, "segmentation": {"size": [30, 40], "counts": [600, 600]}},
            {"id": 3, "image_id": 4, "category_id": 2, "segmentation": [[30, 20, 38, 20, 38, 28]]},
        ],
    }
    (folder / "instances.json").write_text(json.dumps(content | changes), encoding="utf-8")
    return f"coco:annotations={folder / 'instances.json'},images={folder / 'images'}"


def test_every_category_of_an_image_is_a_phrase_with_the_union_of_its_annotations(
    tmp_path: Path, by_pycocotools: ByPycocotools
) -> None:
    (sample,) = open_dataset(coco(tmp_path))
    assert (sample.id, sample.image_id, sample.text) == ("4", "4", "wall, leaf")
    wall = by_pycocotools([FLAT, [30, 20, 38, 20, 38, 28]], SIZE)
    assert_masks(sample, {"wall": wall, "leaf": rectangle(20, 0, 40, 30)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": []}, "There is no 2 in categories"),
        ({"categories": [{"id": 1, "name": "leaf"}, {"id": 2}]}, "The category 2 has no name"),
        ({"annotations": [7]}, r"annotations\[0\]: It has no image_id"),
        ({"annotations": [{"id": 1, "image_id": 9, "category_id": 1, "segmentation": [FLAT]}]}, "There is no 9 in im"),
    ],
)
def test_an_entry_of_coco_that_cannot_be_used_is_named(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(coco(tmp_path, **changes))


# --- a folder of masks


def mask_folder(folder: Path) -> str:
    for name in ("a.jpg", "b.png"):
        image(folder / "images" / name)
    (folder / "masks" / "a").mkdir(parents=True)
    Image.fromarray(rectangle(3, 4, 10, 20)).save(folder / "masks" / "a" / "a brown dog.png")
    Image.fromarray(disc(20, 15, 8, 5)).save(folder / "masks" / "a" / "ball.png")
    return f"masks:path={folder}"


def test_the_name_of_a_mask_is_its_phrase(tmp_path: Path) -> None:
    (sample,) = dataset = open_dataset(mask_folder(tmp_path))
    assert (sample.id, sample.text) == ("a", "a brown dog, ball")
    assert_masks(sample, {"a brown dog": rectangle(3, 4, 10, 20), "ball": disc(20, 15, 8, 5)})
    assert [file.name for file in dataset.mask_files(0)] == ["a brown dog.png", "ball.png"]


def test_a_folder_of_masks_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    uri = mask_folder(tmp_path)
    (tmp_path / "masks" / "c").mkdir()
    (tmp_path / "masks" / "d.png").write_bytes(b"")
    (tmp_path / "masks" / "b").mkdir()
    (tmp_path / "masks" / "b" / "notes.txt").write_text("")
    found = {Path(problem.place).name: problem.message for problem in open_skipping(uri).problems}
    assert found["b"] == "It holds notes.txt, which is not a .png file. Give every label a PNG, and nothing else."
    assert found["c"] == f"It needs one image of its name in {tmp_path / 'images'}, found: none."
    assert found["d.png"].startswith("It is not a folder. Masks are masks/NAME/LABEL.png")


# --- all of them


@pytest.mark.parametrize("write", [lambda path: labelme(path, *SHAPES), cvat, coco, mask_folder])
def test_a_set_of_a_tool_is_converted_to_an_equal_one_in_the_plain_form(
    write: Callable[[Path], str], tmp_path: Path
) -> None:
    dataset: Dataset = open_dataset(write(tmp_path / "in"))
    assert open_dataset(dataset.source).source == dataset.source
    assert write_folder(dataset, tmp_path / "out", range(len(dataset))) == ()
    for before, after in zip(dataset, open_dataset(tmp_path / "out"), strict=True):
        assert (before.id, before.text, before.phrases) == (after.id, after.text, after.phrases)
        assert np.array_equal(before.masks, after.masks)


@pytest.mark.parametrize("kind", ["labelme:path", "masks:path"])
def test_a_folder_that_is_none_of_the_tool_is_an_error(kind: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"has no JSON file|There is no folder .*images"):
        open_dataset(f"{kind}={tmp_path}")
