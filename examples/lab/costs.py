"""What the backbone's part of a training costs, on paper: hours and bytes from the rates of a bench.

`python examples/lab/costs.py BENCH.JSON` takes what `adapters bench --model NAME --out FOLDER` wrote. For RefCOCO's
training set, PNG's and ten million images from the web it gives hours of the same machine, and bytes of a cache.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from report import RESULTS, write_report

EPOCHS = 8
"""Passes through the backbone in the recipe of F-LMM (arXiv 2406.05821), which runs it in every epoch."""
TOP_HEADS = 16
"""Heads of a cache that holds the best ones alone."""
BYTES = 2
"""Of a number in float16."""


@dataclass(frozen=True)
class DataSet:
    """How much there is to ground.

    Attributes:
        images: Number of images.
        sentences: Number of sentences of all images, each in a sequence of its own.
        phrases: Number of phrases of all sentences.
        source: Where the numbers come from.
    """

    images: int
    sentences: int
    phrases: int
    source: str


DATA = {
    "RefCOCO, training set": DataSet(
        16_994, 120_624, 120_624, "UNC's split, all sentences; the number of sentences not counted here"
    ),
    "PNG, training set": DataSet(133_103, 133_103, 875_073, "quoted for arXiv 2109.04988, not counted here"),
    "10 million web images": DataSet(10_000_000, 10_000_000, 40_000_000, "assumed: one sentence of four phrases each"),
}


@dataclass(frozen=True)
class Rates:
    """What a bench measured, for an image of its first size.

    Attributes:
        plain: Seconds of a plain pass over one sentence.
        rows: The same with rows.
        eager: The same with `output_attentions`; None if it did not fit.
        shared: Seconds of a shared pass over the number of sentences.
        half: Time of a pass up to the middle layer, as a share of a pass through all.
        channels: Maps of a phrase.
        cells: Numbers of a map.
    """

    plain: float
    rows: float
    eager: float | None
    shared: list[tuple[int, float]]
    half: float
    channels: int
    cells: int

    @classmethod
    def of(cls, bench: dict[str, Any]) -> Rates:
        """Read the rates of a report of `adapters bench --model`."""
        sections = bench["sections"]
        rows = next(section for section in sections if section["part"] == "rows")
        seconds = {row["variant"]: row["seconds"] for row in rows["rows"]}
        facts = rows["facts"]
        depths = dict(_by_number(sections, "layers?"))
        middle = min(depths, key=lambda depth: abs(depth - max(depths) / 2))
        return cls(
            seconds["plain pass"],
            seconds["rows"],
            seconds.get("output_attentions"),
            _by_number(sections, "sentences?"),
            depths[middle] / depths[max(depths)],
            facts["layers"] * facts["heads"],
            facts["image tokens"],
        )

    def of_image(self, sentences: float) -> float:
        """Seconds of a shared pass, between the numbers of sentences that were measured."""
        return float(np.interp(sentences, *zip(*self.shared, strict=True)))


def _by_number(sections: list[dict[str, Any]], unit: str) -> list[tuple[int, float]]:
    """Seconds by the number that begins the name of a variant, such as `4 layers`."""
    rows = [row for section in sections for row in section["rows"]]
    found = [(re.fullmatch(rf"(\d+) {unit}", row["variant"]), row["seconds"]) for row in rows]
    return sorted((int(match[1]), seconds) for match, seconds in found if match)


def hours(rates: Rates, data: DataSet) -> dict[str, float | None]:
    """Hours of the backbone, in every way to train a decoder on a data set."""
    shared = data.images * rates.of_image(data.sentences / data.images)
    seconds = {
        f"{EPOCHS} epochs through the backbone, output_attentions": rates.eager
        and EPOCHS * data.images * rates.eager,  # as in the paper, all of an image in one sequence
        f"{EPOCHS} epochs through the backbone, plain passes": EPOCHS * data.images * rates.plain,
        "cache, rows, every sentence alone": data.sentences * rates.rows,
        "cache, rows, sentences share their image": shared,
        "the same, up to the middle layer": shared * rates.half,
    }
    return {name: None if count is None else count / 3600 for name, count in seconds.items()}


def cache_bytes(rates: Rates, data: DataSet) -> dict[str, int]:
    """Bytes of a cache: all maps, and those of the best heads."""
    of_map = data.phrases * rates.cells * BYTES
    return {"all heads, float16": rates.channels * of_map, f"the {TOP_HEADS} best heads": TOP_HEADS * of_map}


def main() -> None:
    """Print hours and bytes, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bench", type=Path)
    parser.add_argument("--report", type=Path, default=RESULTS / "costs.json")
    arguments = parser.parse_args()
    bench = json.loads(arguments.bench.read_text(encoding="utf-8"))
    rates = Rates.of(bench)
    found = {
        name: {**vars(data), "hours": hours(rates, data), "bytes": cache_bytes(rates, data)}
        for name, data in DATA.items()
    }
    for name, of_data in found.items():
        print(name)
        for way, count in of_data["hours"].items():
            print(f"  {way:60} {'-' if count is None else f'{count:,.2f} h'}")
        for way, count in of_data["bytes"].items():
            print(f"  {way:60} {count / 2**30:,.1f} GiB")
    measured = {name: bench[name] for name in ("machine", "date")} | {"model": bench["settings"]["model"]}
    write_report(arguments.report, {"measured": measured, "rates": vars(rates), "data": found})


if __name__ == "__main__":
    main()
