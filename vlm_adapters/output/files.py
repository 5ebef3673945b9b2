"""The files of a grounding: images for people, JSON for other tools."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from PIL import Image

from vlm_adapters.data.ahead import map_ahead
from vlm_adapters.data.files import write_json
from vlm_adapters.data.locks import locked_folder
from vlm_adapters.errors import OutputError
from vlm_adapters.grounding.result import Grounding
from vlm_adapters.output.exports import MAX_INDEXED_PHRASES, coco_results, grounding_to_dict, indexed_image
from vlm_adapters.output.figures import grounding_figure, labelled_overlay
from vlm_adapters.output.render import write_png

GROUNDING_FILE = "grounding.json"
"""Written last: where it is, the files that it names are there, too, and are of one grounding."""

GCG_FILE = "gcg.json"
"""The form of GLaMM, written beside the groundings of a conversation."""

_MASKS = re.compile(r"mask_(\d\d|[1-9]\d{2,})\.png|masks\.png", re.ASCII)
_ALL = re.compile(rf"{_MASKS.pattern}|(overlay|figure)\.png|(coco|gcg)\.json", re.ASCII)
_AT_ONCE = 2
NO_FILES = re.compile("(?!)")
"""Matches the name of none."""
_MARKS = (GROUNDING_FILE, "overlay.png")
"""One of these is in every folder that a grounding was written to; in any other, `mask_07.png` is somebody else's."""


def write_grounding(grounding: Grounding, out: str | os.PathLike[str], *, image_id: int | str) -> list[Path]:
    """Write overlay, figure, masks and JSON.

    Of an earlier grounding in the folder nothing is left: its masks are removed, the other files replaced. Meanwhile
    `grounding.json` is away; it is written last and names the files.

    Args:
        grounding: What to write.
        out: Folder: `overlay.png` (the image with masks and boxes, a legend below it), `figure.png`, one `mask_..png`
            per phrase, `masks.png` (all masks, indexed; left out if there are more than `MAX_INDEXED_PHRASES`),
            `coco.json` (COCO results) and `grounding.json` (COCO RLE, box, score, names of the files).
        image_id: Id of the image in `coco.json`.

    Returns:
        The paths of the files.

    Raises:
        OutputError: A file cannot be written.
    """
    folder, names = Path(out), list[str]()
    is_of_another = not any((folder / name).is_file() for name in _MARKS)
    with set_of_files(folder, GROUNDING_FILE, NO_FILES if is_of_another else _MASKS):
        # Two at a time: a core draws while another compresses, and images are as large as the one that was grounded.
        drawn = map_ahead(partial(_draw, folder), _images(grounding), workers=_AT_ONCE, most=_AT_ONCE)
        with closing(drawn):
            names.extend(drawn)
        write_json(folder / "coco.json", coco_results(grounding, image_id))
        names += ["coco.json", GROUNDING_FILE]
        write_json(folder / GROUNDING_FILE, {**grounding_to_dict(grounding), "files": names})
    return [folder / name for name in names]


def remove_grounding(folder: Path) -> None:
    """Remove the files of a grounding from its folder, and the folder if nothing else is in it.

    Raises:
        OutputError: A file cannot be removed.
    """
    if not any((folder / name).is_file() for name in _MARKS):
        return
    _remove(folder, GROUNDING_FILE, _ALL)
    with suppress(OSError):  # it holds files of others
        folder.rmdir()


def _images(grounding: Grounding) -> Iterator[tuple[str, Callable[[], Image.Image]]]:
    """Yield how each image is drawn, by its name."""
    yield "overlay.png", partial(labelled_overlay, grounding)
    yield "figure.png", partial(grounding_figure, grounding)
    for index, grounded in enumerate(grounding.phrases):
        yield f"mask_{index:02d}.png", grounded.packed.image
    if len(grounding.phrases) <= MAX_INDEXED_PHRASES:
        yield "masks.png", partial(indexed_image, grounding)


def _draw(folder: Path, named: tuple[str, Callable[[], Image.Image]]) -> str:
    """Draw and write an image; gives its name."""
    name, draw = named
    write_png(draw(), folder / name)
    return name


@contextmanager
def set_of_files(folder: Path, last: str, stale: re.Pattern[str]) -> Iterator[None]:
    """Hold a folder while files that belong together are written into it.

    Args:
        folder: Where they will be; new, or with earlier files in it.
        last: Name of the file that is written last. It is removed first, so that half a set never looks complete.
        stale: Names of the files that are removed, too, where there are such.

    Raises:
        OutputError: Another process writes there, or a file cannot be removed.
    """
    with locked_folder(folder):
        _remove(folder, last, stale)
        yield


def _remove(folder: Path, last: str, stale: re.Pattern[str]) -> None:
    try:
        (folder / last).unlink(missing_ok=True)
        for path in list(folder.iterdir()):
            if stale.fullmatch(path.name):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written to: {error.strerror or error}. Choose another folder."
        ) from error
