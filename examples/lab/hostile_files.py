"""Hostile data files and images, made from lists and seeds for `hostile_data.py`.

Nothing here knows what the product checks: every value of every file is replaced by every awkward value, of which a
seed draws some; files are cut, flipped and swapped for pipes, devices and links; and the known bombs are built.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

Write = Callable[[Path], None]
"""Changes the files of a sound set in a folder."""

Document = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A hostile input.

    Attributes:
        name: What it is.
        form: The form of the data set, or `image`.
        write: Makes it of a sound set.
        must: `error` or `read` where only that is right; None where either may be.
        source: The argument of the door, where it is hostile itself.
    """

    name: str
    form: str
    write: Write
    must: str | None = None
    source: str | None = None

    def source_in(self, folder: Path) -> str:
        """The argument of the door, of a set in a folder."""
        return source_of(self.form, folder) if self.source is None else self.source


def source_of(form: str, folder: Path) -> str:
    """The argument of the door for a form."""
    sources = {
        "folder": f"folder:path={folder}",
        "instances": f"instances:annotations={folder}/instances.json,captions={folder}/captions.jsonl,images={folder}",
        "refcoco": f"refcoco:annotations={folder},images={folder},split=val",
        "grefcoco": f"grefcoco:annotations={folder},images={folder},split=val",
        "reasonseg": f"reasonseg:path={folder}",
        "png": f"png:narratives={folder}/narratives.json,panoptic={folder}/panoptic.json,segments={folder}/segments,"
        f"images={folder}",
        "yaml": f"{folder}/set.yaml",
        "image": f"{folder}/image",
    }
    return sources[form]


POLYGON = [10.0, 5.0, 30.0, 5.0, 30.0, 20.0, 10.0, 20.0]
IMAGES = [{"id": n, "file_name": f"{n}.png", "height": 40, "width": 60} for n in (1, 2)]
ANNOTATIONS = [
    {"id": 11, "image_id": 1, "category_id": 1, "segmentation": [POLYGON], "bbox": [10, 5, 20, 15]},
    {"id": 12, "image_id": 1, "category_id": 1, "segmentation": {"size": [40, 60], "counts": [2, 3, 2395]}},
    {"id": 21, "image_id": 2, "category_id": 1, "segmentation": [POLYGON, POLYGON]},
]
LINES = [
    {
        "id": str(n),
        "image": f"{n}.png",
        "image_id": str(n),
        "text": "a dog on a sofa",
        "phrases": [{"span": [0, 5], "mask": {"size": [40, 60], "counts": "0`U1`U1"}, "id": "7", "tags": ["thing"]}],
    }
    for n in (1, 2)
]
CAPTIONS = [
    {"image_id": 1, "text": "a dog", "phrases": [{"text": "dog", "annotations": [11, 12], "tags": ["x"]}]},
    {"image_id": 2, "text": "a man", "phrases": [{"span": [2, 5], "annotations": [21]}]},
]
REFS = [
    {
        "ref_id": n,
        "ann_id": annotation,
        "image_id": annotation // 10,
        "split": "val",
        "sentences": [{"sent_id": 10 * n, "raw": "the dog", "sent": "the dog", "tokens": ["the", "dog"]}],
    }
    for n, annotation in enumerate((11, 12, 21))
]
GREFS = [
    {**ref, "ann_id": targets, "no_target": targets == [-1]}
    for ref, targets in zip(REFS, ([11, 12], [-1], [21]), strict=True)
]
REASONSEG = {
    "text": ["the one to sit on", "the seat"],
    "is_sentence": True,
    "shapes": [
        {"label": label, "points": [[left, 5.0], [left + 20.5, 5.0], [left + 20.5, 20.0], [left, 20.0]]}
        for label, left in (("target", 10.0), ("ignore", 25.0))
    ],
}
PANOPTIC = {
    "images": IMAGES,
    "annotations": [
        {"image_id": n, "file_name": f"{n}.png", "segments_info": [{"id": 7, "category_id": 1, "iscrowd": 0}]}
        for n in (1, 2)
    ],
    "categories": [{"id": 1, "name": "dog", "isthing": 1}],
}
NARRATIVES = [
    {
        "image_id": str(n),
        "caption": "a dog",
        "segments": [{"utterance": "a dog", "segment_ids": ["7"], "plural": False, "noun": True}],
    }
    for n in (1, 2)
]
YAML = {"kind": "folder", "path": "FOLDER", "limit": 2, "seed": 1, "broken": "error", "without": []}

FILES: dict[str, dict[str, object]] = {
    "folder": {"samples.jsonl": LINES},
    "instances": {"instances.json": {"images": IMAGES, "annotations": ANNOTATIONS}, "captions.jsonl": CAPTIONS},
    "refcoco": {"instances.json": {"images": IMAGES, "annotations": ANNOTATIONS}, "refs(unc).p": REFS},
    "grefcoco": {"instances.json": {"images": IMAGES, "annotations": ANNOTATIONS}, "grefs(unc).json": GREFS},
    "reasonseg": {"1.json": REASONSEG, "2.json": REASONSEG},
    "png": {"narratives.json": NARRATIVES, "panoptic.json": PANOPTIC},
    "yaml": {"samples.jsonl": LINES, "set.yaml": YAML},
}
"""What the files of a sound set of every form hold."""

VALUES: dict[str, object] = {
    "null": None,
    "true": True,
    "minus one": -1,
    "zero": 0,
    "a fraction": 0.5,
    "a whole float": 1.0,
    "2 to the 63": 2**63,
    "thirty digits": 10**30,
    "not a number": "@NaN@",
    "1e400": "@1e400@",
    "5,000 digits": "@" + "9" * 5000 + "@",
    "digits as text": "9" * 5000,
    "an empty text": "",
    "a long text": "x" * 1_000_000,
    "a zero character": "a\0b",
    "half a character": "\ud83d",
    "a path upwards": "../secret.png",
    "a path upwards with backslashes": "..\\secret.png",
    "an absolute path": "/etc/passwd",
    "a device": "/dev/zero",
    "an address": "http://localhost/a.png",
    "markup": "[/x] <script>alert(1)</script> \x1b[2J",
    "an empty list": [],
    "a list of numbers": [1, 2, 3],
    "nested lists": [[[[[[]]]]]],
    "deep lists": "@" + "[" * 5000 + "]" * 5000 + "@",
    "a long list": [0] * 200_000,
    "an object": {"a": {"b": 1}},
    "run lengths": {"size": [40, 60], "counts": "o" * 200_000},
}
"""What may stand anywhere. Text between two `@` stands without quotes."""


def write_sound(form: str, folder: Path) -> None:
    """Write a sound set, and beside it an image that no set may read."""
    folder.mkdir(parents=True)
    Image.new("RGB", (60, 40), "red").save(folder.parent / "secret.png")
    if form == "image":
        Image.new("RGB", (60, 40), "red").save(folder / "image", format="PNG")
        return
    (folder / "segments").mkdir()
    for number in (1, 2):
        Image.new("RGB", (60, 40), "red").save(folder / f"{number}.png")
        Image.new("RGB", (60, 40), "red").save(folder / f"{number}.jpg")
        Image.new("RGB", (60, 40), (7, 0, 0)).save(folder / "segments" / f"{number}.png")
    for name, content in FILES[form].items():
        (folder / name).write_bytes(encoded(name, content, folder))


def encoded(name: str, content: object, folder: Path) -> bytes:
    """The bytes of a file of a sound or changed set."""
    if name.endswith(".p"):
        return pickle.dumps(content, 2)
    if name.endswith(".jsonl") and isinstance(content, list):
        return b"".join(_json(line) + b"\n" for line in content)
    return _json(content).replace(b"FOLDER", os.fsencode(folder))  # JSON is YAML, too


def _json(content: object) -> bytes:
    pieces = json.dumps(content).split('"@')
    return (pieces[0] + "".join(piece.replace('@"', "", 1) for piece in pieces[1:])).encode()


def places(content: object, place: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Where a value of a document stands, for all of them."""
    if place:
        yield place
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from places(value, (*place, key))


def replaced(content: Any, place: tuple[Any, ...], value: object) -> Any:
    """A copy of a document with another value at a place."""
    changed = copy.deepcopy(content)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def odd_values(count: int, seed: int) -> Iterator[Case]:
    """Values of documents replaced: drawn from all places of all files and all values."""
    everything = [
        (form, name, place, label)
        for form, files in FILES.items()
        for name, content in files.items()
        for place in places(content)
        for label in VALUES
    ]
    for form, name, place, label in random.Random(seed).sample(everything, count):  # noqa: S311

        def write(folder: Path, form: str = form, name: str = name, place: Any = place, label: str = label) -> None:
            value = VALUES[label]
            if name.endswith(".p") and isinstance(value, str) and value.startswith("@"):
                value = int(value[1:4]) ** 2000 if value[1:4].isdecimal() else float("nan")
            changed = replaced(FILES[form][name], place, value)
            (folder / name).write_bytes(encoded(name, changed, folder))

        yield Case(f"{name} {'.'.join(map(str, place))}: {label}", form, write)


def damaged(count: int, seed: int) -> Iterator[Case]:
    """Files cut, flipped, doubled and overwritten."""
    files = [(form, name) for form in FILES for name in FILES[form]]
    for number in range(count):
        form, name = files[number % len(files)]

        def write(folder: Path, name: str = name, number: int = number) -> None:
            rng = random.Random(seed + number)  # noqa: S311
            content = bytearray((folder / name).read_bytes())
            start = rng.randrange(len(content))
            kind = rng.choice(("cut", "flip", "insert", "double"))
            if kind == "cut":
                del content[start:]
            elif kind == "flip":
                content[start] ^= 1 << rng.randrange(8)
            elif kind == "insert":
                content[start:start] = rng.randbytes(rng.choice((1, 20, 1000)))
            else:
                content += bytes(content)
            (folder / name).write_bytes(bytes(content))

        yield Case(f"{name} damaged, {number}", form, write)


def special_files() -> Iterator[Case]:
    """Everything that a file can be besides one, at every place where a file is opened."""
    kinds: dict[str, Callable[[Path], None]] = {
        "a named pipe": os.mkfifo,
        "a socket": _socket,
        "an endless device": lambda path: path.symlink_to("/dev/zero"),
        "a terminal": lambda path: path.symlink_to("/dev/tty"),
        "a folder": Path.mkdir,
        "a link to itself": lambda path: path.symlink_to(path),
        "a link to nothing": lambda path: path.symlink_to("nothing"),
        "a link to a secret": lambda path: path.symlink_to(path.parent.parent / "secret.png"),
        "a terabyte of holes": _holes,
        "nothing": lambda path: path.touch(),
    }
    files = [(form, name) for form in FILES for name in FILES[form]]
    files += [(form, "1.png") for form in ("folder", "instances", "refcoco", "grefcoco", "png")]
    files += [("reasonseg", "1.jpg")]
    files += [("png", "segments/1.png"), ("image", "image")]
    for form, name in files:
        for label, make in kinds.items():

            def write(folder: Path, name: str = name, make: Callable[[Path], None] = make) -> None:
                (folder / name).unlink()
                make(folder / name)

            # a linked image is a wish, not a leak; a file without a line may be a set without a sample
            must = None if (form, label) == ("image", "a link to a secret") or label == "nothing" else "error"
            yield Case(f"{name} is {label}", form, write, must)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket may have 108 letters
        server.bind(path.name)
        os.chdir(here)


def _holes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10**12)


def encodings() -> Iterator[Case]:
    """Text files with a byte order mark, and in other encodings."""
    marks: dict[str, tuple[str, str]] = {
        "UTF-8 with a mark": ("utf-8-sig", "read"),
        "UTF-16": ("utf-16", "error"),
        "UTF-16 without a mark": ("utf-16-le", "error"),
        "UTF-32": ("utf-32", "error"),
    }
    for form, files in FILES.items():
        for name in files:
            for label, (encoding, must) in marks.items() if not name.endswith(".p") else ():

                def write(folder: Path, name: str = name, encoding: str = encoding) -> None:
                    (folder / name).write_bytes((folder / name).read_bytes().decode().encode(encoding))

                yield Case(f"{name} in {label}", form, write, must)


def sources() -> Iterator[Case]:
    """Names of data sets that are hostile themselves."""
    names = (
        *("x" * 300, "x" * 5000, "x" * 300 + ".yaml", "a\0b", "a\0b.yaml", "folder:path=a\0b", "", ":", "::", "[/x]"),
        *("/dev/zero", "/dev/stdin", "/dev/zero:a=b", "folder:path=/dev/zero", "folder:path=" + "x" * 5000),
        *("folder:path=" + "../" * 2000, "scenes:count=" + "9" * 5000, "scenes:count=1e400", "scenes:count=-1"),
        *("scenes:count=1000000000000000000000", "scenes:count=1,first=" + "9" * 30, "scenes:count=1,most=31"),
        *("scenes:" + "a=1," * 100_000, "scenes:" + ",".join(f"a{n}=1" for n in range(10_000)), "x" * 100_000 + ":a=1"),
        *('folder:path="', 'folder:path="\\ud83d"', "folder:path=" + "[" * 50_000, "folder:path=[" + "9" * 5000 + "]"),
        *('folder:path={"a":1}', "folder:path=[1,2]", "folder:path=\ud83d", "\ud83d", "http://localhost/a.yaml", "~"),
    )
    for name in names:
        yield Case(f"the source {name[:30]!r}", "folder", lambda _: None, "error", name)
