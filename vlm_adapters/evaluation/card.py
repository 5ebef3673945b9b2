"""The protocol card: everything that a reader needs to reproduce the numbers, and the numbers."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import torch

from vlm_adapters.data.dataset import Problem
from vlm_adapters.data.files import whole_file, write_json
from vlm_adapters.evaluation.fingerprint import Pins, Settings
from vlm_adapters.evaluation.record import Record
from vlm_adapters.evaluation.summary import CONFIDENCE, METRICS, RESAMPLES, Number, summarise

RULES = {
    "mask": "probability above 0.5, at the image's full size",
    "cIoU": "sum of the intersections / sum of the unions",
    "mIoU": "mean of the IoUs, 1 for two empty masks; this is the average recall of Panoptic Narrative Grounding",
    "P@t": "share of masks with IoU >= t",
    "Acc@0.5 of boxes": "share of masks whose box has IoU >= 0.5 with the true mask's box",
    "boundary F": "mean F-score of the outlines, tolerance 2 pixels",
    "fingerprint of the data": "sha256 over its name, its files of texts and masks, and the names and sizes in bytes "
    "of its images, and of masks that have a file for each image; another one where the set lies elsewhere",
    "sha256 of ids and texts": "the same wherever the set lies; what was asked of which samples, without the truth",
    "isolated": "the model is given every phrase's words alone",
    "packed": "the model is given the sample's whole text, in which a phrase is read after those before it",
}
"""What the words of a card mean."""


@dataclass(frozen=True)
class Outcome:
    """What came of all samples.

    Attributes:
        records: Of all phrases, in the order of samples.
        skipped: Samples that could not be used.
        left_out: How many entries of the source were left out when it was opened.
    """

    records: Sequence[Record] = field(repr=False)
    skipped: tuple[Problem, ...] = ()
    left_out: int = 0


@dataclass(frozen=True, kw_only=True)
class Card:
    """What was run on what, and what came of it.

    Attributes:
        command: That runs the same.
        pins: What the records depend on.
        samples_digest: SHA-256 over the ids of samples and phrases and the texts the model was given: see `digest_of`.
        samples: Used.
        skipped: Samples that could not be used, each with its place and what is wrong.
        left_out: How many entries of the source were left out when it was opened.
        phrases: Compared.
        images: Unlike ones among them.
        interval: How the intervals were made.
        processes: That shared the work, in the run that ended it.
        date: In UTC.
        machine: On which it ended.
        rules: What the words mean.
        numbers: The table.
    """

    command: str
    pins: Pins
    samples_digest: str
    samples: int
    skipped: tuple[Problem, ...]
    left_out: int
    phrases: int
    images: int
    interval: str
    processes: int
    date: str
    machine: str
    rules: dict[str, str]
    numbers: tuple[Number, ...]

    @classmethod
    def of(cls, settings: Settings, pins: Pins, outcome: Outcome, *, processes: int) -> Self:
        """Write down a run that has ended."""
        records = outcome.records
        images = len({record.image for record in records})
        return cls(
            command=settings.command,
            pins=pins,
            samples_digest=digest_of(records),
            samples=pins.samples - len(outcome.skipped),
            skipped=outcome.skipped,
            left_out=outcome.left_out,
            phrases=len(records),
            images=images,
            interval=f"{CONFIDENCE:.0%} of {RESAMPLES} draws (percentile bootstrap); a draw takes {images} of the "
            f"images with replacement, each with all its phrases; numpy.random.default_rng({settings.seed})",
            processes=processes,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=_machine(pins.device),
            rules=RULES,
            numbers=tuple(summarise(records, seed=settings.seed)),
        )

    @property
    def groups(self) -> list[str]:
        """Whose numbers there are: all, and every tag."""
        return list(dict.fromkeys(number.group for number in self.numbers))

    @property
    def masks(self) -> list[str]:
        """Which masks were compared."""
        return list(dict.fromkeys(number.masks for number in self.numbers))

    def number(self, group: str, masks: str, metric: str) -> Number:
        """One number of the table."""
        return next(one for one in self.numbers if (one.group, one.masks, one.metric) == (group, masks, metric))

    def write(self, folder: Path) -> None:
        """Write `card.json` and `card.md`, each as a whole file."""
        write_json(folder / "card.json", asdict(self))
        with whole_file(folder / "card.md") as temporary:
            temporary.write_text(self.markdown(), encoding="utf-8")

    def facts(self) -> list[tuple[str, object]]:
        """What was run, as rows for people."""
        told_apart = ("digests", "versions", "options", "data_fingerprint")
        pins = {name: value for name, value in asdict(self.pins).items() if name not in told_apart}
        return [
            *(pins | {"sentences": pins["sentences"] or "one text for a sample: none to choose"}).items(),
            *((f"option {name}", value) for name, value in self.pins.options.items()),
            *((f"digest of {name}", value) for name, value in self.pins.digests.items()),
            ("fingerprint of the data", self.pins.data_fingerprint),
            ("sha256 of ids and texts", self.samples_digest),
            ("samples used", self.samples),
            ("samples skipped", len(self.skipped)),
            ("entries left out", self.left_out),
            ("phrases", self.phrases),
            ("images", self.images),
            ("intervals", self.interval),
            ("processes", self.processes),
            ("date", self.date),
            ("machine", self.machine),
            ("versions", ", ".join(f"{name} {value}" for name, value in self.pins.versions.items())),
        ]

    def markdown(self) -> str:
        """The card as a page."""
        lines = ["# Evaluation card", "", "```bash", self.command, "```", ""]
        for group in self.groups:
            phrases = self.number(group, self.masks[0], METRICS[0]).phrases
            lines += [f"## {group}: {phrases:,} phrases", "", *_table(["", *self.masks], self.rows(group)), ""]
        lines += ["## What was run", "", *_table(["", ""], self.facts()), ""]
        if self.skipped:
            lines += ["## Skipped", "", *(f"* {problem.place}: {problem.told}" for problem in self.skipped), ""]
        lines += ["## What the words mean", "", *(f"* *{word}*: {meaning}." for word, meaning in self.rules.items())]
        return "\n".join(lines) + "\n"

    def rows(self, group: str) -> list[list[str]]:
        """A row per metric: its name, and its value with the interval for every kind of mask."""
        return [[metric, *(shown(self.number(group, masks, metric)) for masks in self.masks)] for metric in METRICS]


def digest_of(records: Iterable[Record]) -> str:
    """SHA-256 over a line of JSON per phrase: `[sample, phrase_id, prompt, start, end]`."""
    digest = hashlib.sha256()
    for record in records:
        line = [record.sample, record.phrase_id, record.prompt, *record.span]
        digest.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def shown(number: Number) -> str:
    """`0.7909 [0.7801, 0.8012]`, or a dash."""
    if number.value is None or number.low is None or number.high is None:
        return "-"
    return f"{number.value:.4f} [{number.low:.4f}, {number.high:.4f}]"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [[*head], ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(value: object) -> str:
    return "-" if value is None else str(value).replace("|", "\\|")


def _machine(device: str) -> str:
    told = f"{platform.platform()}, {os.cpu_count()} cores, torch threads: {torch.get_num_threads()}"
    return f"{told}, {torch.cuda.get_device_name()}" if device == "cuda" else told
