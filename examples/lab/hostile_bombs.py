"""Small files that ask for much work, and images with absurd headers, for `hostile_data.py`."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hostile_files import FILES, LINES, REFS, Case, Write, encoded, replaced
from PIL import Image


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
    yield from _masks()
    yield from _large()
    yield from _json()
    yield from _lines()
    yield from _yaml()
    yield from _pickles()


def _masks() -> Iterator[Case]:
    segmentation = ("annotations", 0, "segmentation")
    for points in (100_000, 200_000, 1_000_000):
        make = _change("instances", "instances.json", segmentation, lambda points=points: _zigzag(points))
        yield Case(f"a zigzag of {points:,} points", "instances", make, "error")
        corners = [[59 * (n % 2), 39 * n / points] for n in range(points)]
        make = _change("reasonseg", "1.json", ("shapes", 0, "points"), lambda corners=corners: corners)
        yield Case(f"a zigzag of {points:,} corners", "reasonseg", make, "error")
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


def _large() -> Iterator[Case]:
    """Samples that are large in every direction at once."""
    for length, count in ((10_000_000, 900), (150_000, 900), (1_000, 100_000)):
        line = LINES[0] | {"text": "x" * length, "phrases": [LINES[0]["phrases"][0] | {"span": [0, length]}] * count}  # type: ignore[index]
        make = _change("folder", "samples.jsonl", (0,), lambda line=line: line)
        yield Case(f"{count:,} phrases of {length:,} letters", "folder", make, None if length == 150_000 else "error")
    for side in (9_000, 40_000, 2**40):
        image = {"id": 1, "file_name": "1.png", "height": side, "width": side}
        for form, name in (("instances", "instances.json"), ("png", "panoptic.json"), ("refcoco", "instances.json")):
            make = _change(form, name, ("images", 0), lambda image=image: image)
            yield Case(f"{name}: an image of {side:,} pixels a side", form, make, "error")
    for count in (5_000, 1_000_000):
        part = {"utterance": "a dog", "segment_ids": ["7"], "plural": False}
        make = _change("png", "narratives.json", (0, "segments"), lambda part=part, count=count: [part] * count)
        yield Case(f"{count:,} utterances", "png", make, "error")
        make = _change("png", "narratives.json", (0, "segments", 0, "segment_ids"), lambda count=count: ["7"] * count)
        yield Case(f"{count:,} segments of an utterance", "png", make)
    sentences = [{"sent_id": 100 + n, "raw": "a dog"} for n in range(5_000)]  # each is a sample that is read
    make = _change("refcoco", "refs(unc).p", (0, "sentences"), lambda: sentences)
    yield Case("5,000 sentences of a ref", "refcoco", make)
    for form, name, place in (
        ("folder", "samples.jsonl", (0, "text")),
        ("instances", "captions.jsonl", (0, "text")),
        ("png", "narratives.json", (0, "segments", 0, "utterance")),
        ("refcoco", "refs(unc).p", (0, "sentences", 0, "raw")),
    ):
        make = _change(form, name, place, lambda: "a dog \ud83d")
        yield Case(f"{name} with half a character", form, make, "error")


def _json() -> Iterator[Case]:
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


def _lines() -> Iterator[Case]:
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


def _yaml() -> Iterator[Case]:
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
            rng, buffer = random.Random(seed + number), io.BytesIO()  # noqa: S311
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
