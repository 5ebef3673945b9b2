"""A page of an evaluation: its numbers, how they are distributed, and cases with the true masks and those found."""

from __future__ import annotations

import base64
import hashlib
import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.files import whole_file
from vlm_adapters.data.rle import decode_rle
from vlm_adapters.evaluation.card import Card, format_number
from vlm_adapters.evaluation.record import Record
from vlm_adapters.output.render import PALETTE, mask_overlay, shrunk, shrunk_mask

CASES = 16
"""Number of cases of each kind."""

SIDE = 400
"""Longest side of an image on the page, in pixels."""

BINS = 20
"""Bars of the histogram of IoUs."""

FOUND, TRUE = PALETTE[:2]
"""Colours of masks that were found, and of true masks."""

_PAGE = Path(__file__).parent / "gallery_page"
_TALLEST = 110


@dataclass(frozen=True)
class Panel:
    """An image on the page.

    Attributes:
        caption: What it shows.
        source: The image as a data URI.
        width: In pixels.
        height: In pixels.
    """

    caption: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Case:
    """A phrase on the page.

    Attributes:
        record: The phrase, and the masks that were found for it.
        kinds: Why it is there: `random`, `worst`, `best`.
        panels: The image, the true mask, and the masks that were found.
    """

    record: Record
    kinds: list[str]
    panels: list[Panel]

    @property
    def shown(self) -> dict[str, object]:
        """What the page says of it."""
        record, (start, end) = self.record, self.record.span
        return {
            "words": record.words,
            "before": record.prompt[:start],
            "after": record.prompt[end:],
            "sample": record.sample,
            "phrase": record.phrase,
            "tags": list(record.tags),
            "kinds": self.kinds,
            "iou": record.final.iou,
            "panels": self.panels,
        }


def write_gallery(records: Sequence[Record], dataset: Dataset, out: Path, *, card: Card, seed: int) -> Path:
    """Write `gallery.html`, one file that needs no other: summary, distribution, and cases to filter and sort.

    Args:
        records: Records of all phrases.
        dataset: Data set of the records; the images of the cases are read again.
        out: Folder of the page.
        card: The card of the run.
        seed: Seed of the random cases.

    Returns:
        The path of the page.
    """
    cases = [Case(record, kinds, list(_panels(record, dataset))) for record, kinds in choose_cases(records, seed)]
    page = out / "gallery.html"
    with whole_file(page) as temporary:
        temporary.write_text(page_of(records, cases, card), encoding="utf-8")
    return page


def choose_cases(records: Sequence[Record], seed: int) -> list[tuple[Record, list[str]]]:
    """Choose random phrases, and the worst and the best by the IoU of their last mask; at most `CASES` of each.

    Returns:
        Each phrase once, with the kinds that it is of; random ones first.
    """
    ranked = sorted(range(len(records)), key=lambda index: records[index].final.iou)
    drawn = random.Random(seed).sample(range(len(records)), min(CASES, len(records)))  # noqa: S311 - not a secret
    kinds: dict[int, list[str]] = {}
    for kind, chosen in (("random", drawn), ("worst", ranked[:CASES]), ("best", ranked[::-1][:CASES])):
        for index in chosen:
            kinds.setdefault(index, []).append(kind)
    return [(records[index], of) for index, of in kinds.items()]


def page_of(records: Sequence[Record], cases: Sequence[Case], card: Card) -> str:
    """The page as HTML; whatever came from outside is escaped, and no script but its own can run."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    script = (_PAGE / "gallery.js").read_text(encoding="utf-8")
    style = (_PAGE / "gallery.css").read_text(encoding="utf-8")
    ious = [record.final.iou for record in records]
    counts = np.histogram(ious, bins=BINS, range=(0, 1))[0].tolist()
    return environment.get_template("gallery.html.jinja").render(
        card=card,
        cases=[case.shown for case in cases],
        each=CASES,
        tables=_tables(card),
        tags=[group for group in card.groups if group != "all"],
        final=card.masks[-1] if card.masks else "",
        median=f"{np.median(ious):.2f}" if ious else "",
        tallest=max(counts),
        bars=[
            {
                "low": f"{index / BINS:.2f}",
                "high": f"{(index + 1) / BINS:.2f}",
                "count": count,
                "height": round(_TALLEST * count / max(*counts, 1), 1),
            }
            for index, count in enumerate(counts)
        ],
        script=script,
        script_digest=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        style=style.replace("@TRUE@", f"rgb{TRUE}").replace("@FOUND@", f"rgb{FOUND}"),
    )


def _tables(card: Card) -> Iterator[dict[str, object]]:
    """The numbers of all phrases, and the mean IoU of those of every tag, each with its interval."""
    if not card.numbers:
        return
    caption = f"All phrases; in brackets: {card.interval.split(' of ')[0]} intervals"
    yield {"caption": caption, "head": ["", *card.masks], "rows": card.rows("all")}
    tags = [group for group in card.groups if group != "all"]
    if tags:
        rows = [
            [tag, card.number(tag, card.masks[0], "mIoU").phrases]
            + [format_number(card.number(tag, masks, "mIoU")) for masks in card.masks]
            for tag in tags
        ]
        yield {"caption": "mIoU by tag", "head": ["", "phrases", *card.masks], "rows": rows}


def _panels(record: Record, dataset: Dataset) -> Iterator[Panel]:
    """Yield the images of a case."""
    sample = dataset.sample(record.index)
    image = shrunk(sample.image)
    size = image.height, image.width
    truth = shrunk_mask(sample.masks[record.phrase], size)
    yield _panel("image", image)
    yield _panel("true mask", mask_overlay(image, [truth], [TRUE]))
    for name, agreement in record.found.items():
        found = shrunk_mask(decode_rle({"size": list(record.size), "counts": agreement.counts}), size)
        caption = f"{name} found: IoU {agreement.iou:.2f}, boundary F {agreement.boundary_f:.2f}"
        yield _panel(caption, mask_overlay(image, [found], [FOUND], [truth]))


def _panel(caption: str, image: Image.Image) -> Panel:
    scale = min(1.0, SIDE / max(image.size))
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    source = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Panel(caption, source, small.width, small.height)
