"""A page of cases: the best, the worst and random ones, each with the image, the true mask and the masks found."""

from __future__ import annotations

import html
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.files import whole_file
from vlm_adapters.data.rle import decode_rle
from vlm_adapters.evaluation.record import Record
from vlm_adapters.output.render import PALETTE, mask_overlay, shrunk, shrunk_mask, write_png

CASES = 8
"""Number of cases of each kind."""

SIDE = 400
"""Longest side of an image on the page, in pixels."""

FOUND, TRUE = PALETTE[:2]
"""Colours of masks that were found, and of true masks."""

_STYLE = """
body { font: 16px/1.4 system-ui, sans-serif; color: #1e1e1e; margin: 2em auto; max-width: 90em; padding: 0 1em }
article { border-top: 1px solid #ccc; padding: 1em 0 }
h3 { margin: 0 } p { margin: .2em 0 .6em } .prompt { color: #666 }
mark { background: none; color: #a04500; font-weight: bold }
div { display: flex; flex-wrap: wrap; gap: 1em } figure { margin: 0 }
figcaption { color: #666 } img { max-width: 100%; display: block }
"""


def write_gallery(records: Sequence[Record], dataset: Dataset, out: Path, *, seed: int) -> Path:
    """Write `gallery.html`, and its images into a folder `gallery` beside it.

    Args:
        records: Records of all phrases.
        dataset: Data set of the records; the images of the cases are read again.
        out: Folder of the page.
        seed: Seed of the random cases.

    Returns:
        The path of the page.
    """
    parts = ['<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Cases</title>', f"<style>{_STYLE}</style>"]
    parts.append("<h1>Cases</h1><p>The line on a mask that was found is the outline of the true mask.</p>")
    for kind, chosen in choose_cases(records, seed).items():
        parts.append(f"<h2>{kind}</h2>")
        for number, record in enumerate(chosen):
            name = f"{kind.lower()}_{number:02d}"
            captions = {}
            for caption, image in _panels(record, dataset):
                file = f"gallery/{name}_{caption.split()[0]}.png"
                write_png(image, out / file)
                captions[file] = caption
            parts.append(_article(record, captions))
    page = out / "gallery.html"
    with whole_file(page) as temporary:
        temporary.write_text("\n".join(parts) + "</html>\n", encoding="utf-8")
    return page


def choose_cases(records: Sequence[Record], seed: int) -> dict[str, list[Record]]:
    """Choose the best and the worst phrases by the IoU of their last mask, and random ones; at most `CASES` of each."""
    ranked = sorted(records, key=lambda record: record.final.iou)
    drawn = random.Random(seed).sample(list(records), min(CASES, len(records)))  # noqa: S311 - not a secret
    return {"Best": ranked[::-1][:CASES], "Worst": ranked[:CASES], "Random": drawn}


def _panels(record: Record, dataset: Dataset) -> Iterator[tuple[str, Image.Image]]:
    """Yield the images of a case, each with a caption whose first word names it."""
    sample = dataset.sample(record.index)
    image = shrunk(sample.image)
    truth = shrunk_mask(sample.masks[record.phrase], (image.height, image.width))
    yield "image", _small(image)
    yield "truth", _small(mask_overlay(image, [truth], [TRUE]))
    for name, agreement in record.found.items():
        found = decode_rle({"size": list(record.size), "counts": agreement.counts})
        caption = f"{name} found: IoU {agreement.iou:.2f}, boundary F {agreement.boundary_f:.2f}"
        small = shrunk_mask(found, (image.height, image.width))
        yield caption, _small(mask_overlay(image, [small], [FOUND], [truth]))


def _small(image: Image.Image) -> Image.Image:
    scale = min(1.0, SIDE / max(image.size))
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _article(record: Record, captions: Mapping[str, str]) -> str:
    """A case as HTML; `captions` are by the file of the image."""
    start, end = record.span
    before, after = html.escape(record.prompt[:start]), html.escape(record.prompt[end:])
    words = html.escape(record.words)
    place = html.escape(", ".join((f"sample {record.sample}, phrase {record.phrase}", *record.tags)))
    figures = "".join(
        f'<figure><img src="{file}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
        for file, caption in captions.items()
    )
    return (
        f'<article><h3>{words}: {record.final.iou:.2f}</h3><p class="prompt">{before}<mark>{words}</mark>{after}'
        f"<br>{place}</p><div>{figures}</div></article>"
    )
