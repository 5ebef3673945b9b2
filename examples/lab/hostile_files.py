"""Hostile data files and images, made from lists and seeds for `hostile_data.py`.

Nothing here knows what the product checks: every value of every file is replaced by every awkward value, of which a
seed draws some; files are cut, flipped and swapped for pipes, devices and links; and the known bombs are built.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import random
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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
    for form, name, place, label in random.Random(seed).sample(everything, count):

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
            rng = random.Random(seed + number)
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
    files += [(form, "1.png") for form in ("folder", "instances", "refcoco", "png")]
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


def _text(name: str, make: Callable[[], bytes | str]) -> Write:
    def write(folder: Path) -> None:
        content = make()
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def _change(form: str, name: str, place: tuple[object, ...], make: Callable[[], object]) -> Write:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(encoded(name, replaced(FILES[form][name], place, make()), folder))

    return write


def _zigzag(points: int) -> list[list[float]]:
    return [[value for n in range(points) for value in (59.0 * (n % 2), 39.0 * n / points)]]


def _laughs(start: str, line: str, end: str) -> str:
    lines = [line.format(n, ", ".join([f"*a{n - 1}"] * 10)) for n in range(1, 12)]
    return "\n".join([start, *lines, end])


def bombs() -> Iterator[Case]:
    """Small files that ask for much work."""
    segmentation = ("annotations", 0, "segmentation")
    for points in (100_000, 200_000, 1_000_000):
        make = _change("instances", "instances.json", segmentation, lambda points=points: _zigzag(points))
        yield Case(f"a zigzag of {points:,} points", "instances", make, "error")
    for letters in (200_000, 2_000_000, 12_000_000):
        mask = {"size": [40, 60], "counts": "o" * letters}
        make = _change("instances", "instances.json", segmentation, lambda mask=mask: mask)
        yield Case(f"{letters:,} letters that go on", "instances", make, "error")
        make = _change("folder", "samples.jsonl", (0, "phrases", 0, "mask"), lambda mask=mask: mask)
        yield Case(f"{letters:,} letters that go on in a line", "folder", make, "error")
    for size in ([10**6, 10**6], [True, True], [2**40, 2**40], [0, 0], [-40, -60], [40.0, 60.0]):
        make = _change("folder", "samples.jsonl", (0, "phrases", 0, "mask", "size"), lambda size=size: size)
        yield Case(f"a mask of {size}", "folder", make, "error")
    for count in (2_000, 100_000):
        many = _change("folder", "samples.jsonl", (0, "phrases"), lambda count=count: LINES[0]["phrases"] * count)  # type: ignore[operator]
        yield Case(f"{count:,} phrases in a line", "folder", many, "error")
        many = _change(
            "instances", "captions.jsonl", (0, "phrases", 0, "annotations"), lambda count=count: [11, 12] * count
        )
        yield Case(f"{2 * count:,} annotations of a phrase", "instances", many)
    for depth in (1_000, 100_000, 2_000_000):
        for form, name in (("instances", "instances.json"), ("folder", "samples.jsonl"), ("yaml", "set.yaml")):
            for bracket in ("[", '{"a":'):
                yield Case(
                    f"{depth:,} times {bracket} in {name}", form, _text(name, lambda d=depth, b=bracket: b * d), "error"
                )
    for size in (10**6, 3 * 10**7):
        for item in ("[],", "{},", "0,", '"ab",'):
            text = _text("instances.json", lambda s=size, i=item: f'{{"images":[{i * s}0],"annotations":[]}}')
            yield Case(f"{size:,} times {item} in a JSON file", "instances", text, "error")
    for item in ("0\n", "\n", "[0," * 50 + "\n", "{}\n"):
        for count in (10**5, 2 * 10**7):
            yield Case(
                f"{count:,} lines {item[:8]!r}",
                "folder",
                _text("samples.jsonl", lambda c=count, i=item: i * (c // len(i))),
                "error",
            )
    yield Case("a line of 300 MB", "folder", _text("samples.jsonl", lambda: b" " * 300_000_000 + b"{"), "error")
    yield Case(
        "a line of 7 million zeros",
        "folder",
        _text("samples.jsonl", lambda: '{"phrases":[' + "0," * 7_000_000 + "0]}"),
        "error",
    )
    yield Case(
        "a line of 2 million keys",
        "folder",
        _text("samples.jsonl", lambda: "{" + ",".join(f'"{n}":0' for n in range(2_000_000)) + "}"),
        "error",
    )
    for key in ("kind", "path", "limit", "without"):
        text = _laughs(f"a0: &a0 [{', '.join('l' * 10)}]", "a{0}: &a{0} [{1}]", f"{key}: *a11")
        yield Case(f"a billion laughs in {key}", "yaml", _text("set.yaml", lambda text=text: text), "error")
    text = _laughs("a0: &a0 {x: 1}", "a{0}: &a{0} {{<<: [{1}]}}", "kind: folder")
    yield Case("a billion merges", "yaml", _text("set.yaml", lambda: text), "error")
    yield Case("a value that holds itself", "yaml", _text("set.yaml", lambda: "kind: &a [*a]"), "error")
    yield Case("a set without itself", "yaml", _itself, "error")
    for word in (
        "!!int ''",
        "!!float x",
        "2001-99-99",
        "!!binary x",
        "!!python/name:os.system",
        "? [a]",
        "!!timestamp x",
        "0x",
        "1:" * 40_000 + "1",
        "9" * 5000,
        "a: " * 20_000,
        "[" * 20_000,
        "- " * 20_000,
        "&a " * 1000,
        "%YAML 9.9\n---\na",
    ):
        yield Case(f"{word[:20]} in YAML", "yaml", _text("set.yaml", lambda word=word: f"kind: {word}\n"), "error")
    yield Case(
        "10 MB of YAML", "yaml", _text("set.yaml", lambda: "".join(f"k{n}: [1, 2]\n" for n in range(700_000))), "error"
    )
    yield from _pickles()


def _itself(folder: Path) -> None:
    (folder / "set.yaml").write_text(f"kind: folder\npath: {folder}\nwithout: [{folder}/set.yaml]\n")


def _pickles() -> Iterator[Case]:
    shared = (
        pickle.dumps(None, 2)[:2]
        + b"]q\x00"
        + b"".join(
            b"]" + bytes([ord("q"), n]) + b"(h" + bytes([n - 1]) + b"h" + bytes([n - 1]) + b"e" for n in range(1, 40)
        )
    )
    nested = b"\x80\x02)q\x00" + b"".join(
        b"h" + bytes([n - 1]) + b"h" + bytes([n - 1]) + b"\x86q" + bytes([n]) for n in range(1, 60)
    )
    contents = {
        "a memo of gigabytes": b"\x80\x02]r\x00\xc2\xeb\x0b.",
        "a memo of gigabytes in text": b"(lp200000000\n.",
        "a call": b"cos\nsystem\n(S'true'\ntR.",
        "a call by another name": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        "an extension": b"\x80\x02\x82\x01.",
        "an object of elsewhere": b"Pelsewhere\n.",
        "lists that hold lists twice": shared + b"a" * 0 + b".",
        "a key of tuples that never ends": b"\x80\x02}" + nested[2:] + b"K\x01s.",
        "a deep tuple as key": b"\x80\x02})" + b"\x85" * 3_000_000 + b"K\x01s.",
        "a deep list": b"\x80\x02" + b"]" * 3_000_000 + b"a" * 2_999_999 + b".",
        "60 million lists": b"\x80\x02](" + b"]" * 60_000_000 + b"e.",
        "a long number": b"\x80\x02]\x8b\x00\x00\x00\x10" + b"\x7f" * 2**28 + b"a.",
        "a number of 10 million digits": b"(lI" + b"9" * 10_000_000 + b"\na.",
        "a bytearray of an exabyte": b"\x80\x05\x96" + b"\xff" * 7 + b"\x0f.",
        "a text of an exabyte": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x0f.",
        "a frame of an exabyte": b"\x80\x04\x95" + b"\xff" * 7 + b"\x0f.",
        "a set of itself": b"\x80\x04\x8fq\x00h\x00\x90.",
        "marks without end": b"\x80\x02" + b"(" * 50_000_000 + b".",
        "no end": b"\x80\x02]",
    }
    for label, content in contents.items():
        yield Case(f"a pickle with {label}", "refcoco", _text("refs(unc).p", lambda content=content: content), "error")
    for key in ("ref_id", "ann_id", "image_id", "sentences"):

        def write(folder: Path, key: str = key) -> None:
            value: list[Any] = []
            for _ in range(60):
                value = [value, value]
            (folder / "refs(unc).p").write_bytes(pickle.dumps(replaced(REFS, (0, key), value), 2))

        yield Case(f"a pickle whose {key} holds lists twice", "refcoco", write, "error")


def pictures(seed: int) -> Iterator[Case]:
    """Images with absurd headers, and images of every format that are cut and flipped."""
    for name, content in _absurd().items():
        yield Case(name, "image", _text("image", lambda make=content: make()), "error")
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for number, form in enumerate(("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000") * 5):

        def write(folder: Path, form: str = form, number: int = number) -> None:
            rng, buffer = random.Random(seed + number), io.BytesIO()
            Image.fromarray(pixels).save(buffer, format=form)
            content = bytearray(buffer.getvalue())
            for _ in range(rng.choice((1, 8))):
                content[rng.randrange(min(len(content), 200))] = rng.randrange(256)
            if number % 3 == 0:
                del content[rng.randrange(len(content)) :]
            (folder / "image").write_bytes(bytes(content))

        yield Case(f"{form} damaged, {number}", "image", write)


def _absurd() -> dict[str, Callable[[], bytes]]:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    def png(width: int, height: int, *more: bytes) -> bytes:
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + head + b"".join(more)

    exif = b"\xff\xe1" + struct.pack(">H", 12) + b"Exif\0\0abcd"
    return {
        "a PPM with a comment of 10 MB": lambda: b"P6\n#" + b"x" * 10_000_000 + b"\n4 3\n255\n" + b"\0" * 36,
        "a PPM with 10 MB of white space": lambda: b"P6" + b" " * 10_000_000 + b"4 3\n255\n" + b"\0" * 36,
        "a PPM of an exapixel": lambda: b"P6\n999999999 999999999\n255\n",
        "a PPM of 10^400 columns": lambda: b"P6\n" + b"9" * 400 + b" 1\n255\n",
        "a PPM with its pixels as text": lambda: b"P3\n4000 4000\n255\n" + b"1 " * 48_000_000,
        "a PNG of 2^31 x 2^31": lambda: png(2**31 - 1, 2**31 - 1, chunk(b"IDAT", b"x")),
        "a PNG of 0 x 0": lambda: png(0, 0, chunk(b"IDAT", b"x")),
        "a PNG with a million chunks": lambda: png(4, 3, chunk(b"teSt", b"") * 1_000_000),
        "a PNG with a million texts": lambda: png(4, 3, chunk(b"tEXt", b"a\0b") * 1_000_000),
        "a PNG with a text bomb": lambda: png(4, 3, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 500_000_000, 9))),
        "a PNG without pixels": lambda: png(4, 3, chunk(b"IEND", b"")),
        "a GIF with a comment of 30 MB": lambda: (
            b"GIF89a\4\0\3\0\x80\0\0" + b"\0" * 6 + b"!\xfe" + (b"\xff" + b"x" * 255) * 120_000 + b"\0;"
        ),
        "a GIF of 65535 x 65535": lambda: b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\0;",
        "a JPEG with a million EXIF blocks": lambda: b"\xff\xd8" + exif * 1_000_000,
        "a BMP of 2^31 x 2^31": lambda: (
            b"BM" + b"\0" * 12 + struct.pack("<IiiHHIIiiII", 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0)
        ),
        "a TIFF with an endless folder": lambda: (
            b"II*\0\x08\0\0\0" + b"\xff\xff" + b"\0\1\4\0\xff\xff\xff\xff\0\0\0\0" * 65_535
        ),
        "an EPS that asks for a program": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "an SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "no image at all": lambda: b"hello",
    }


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


def all_cases(seed: int = 0, odd: int = 160, cut: int = 40) -> list[Case]:
    """Every case."""
    files = [*odd_values(odd, seed), *damaged(cut, seed), *special_files(), *encodings()]
    return [*files, *bombs(), *sources(), *pictures(seed)]
