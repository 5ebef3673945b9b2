"""The evaluation card: the numbers, and everything that a reader needs to reproduce them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import torch

from vlm_adapters.data.dataset import Problem
from vlm_adapters.data.files import whole_file, write_json
from vlm_adapters.evaluation.fingerprint import EvaluationSettings, RunFingerprint
from vlm_adapters.evaluation.record import Record
from vlm_adapters.evaluation.summary import CONFIDENCE, RESAMPLES, Number, summarise
from vlm_adapters.limits import plain

RULES = {
    "mask": "probability above 0.5, at the image's full size",
    "cIoU": "sum of the intersections / sum of the unions",
    "mIoU": "mean of the IoUs, 1 for two empty masks; this is the average recall of Panoptic Narrative Grounding",
    "P@t": "share of masks with IoU >= t",
    "Acc@0.5 of boxes": "share of masks whose box has IoU >= 0.5 with the true mask's box",
    "boundary F": "mean F-score of the outlines, tolerance 2 pixels",
    "gIoU": "another name for mIoU, shown where some phrase has no target: its IoU is 1 for a mask without a pixel and "
    "0 for any other, which adds its pixels to the unions of cIoU",
    "N-acc": "share of the phrases without a target whose mask has no pixel",
    "T-acc": "share of the phrases with a target whose mask has a pixel",
    "ignored": "pixels that the set says to ignore, as ReasonSeg does, are taken out of both masks before they are "
    "compared",
    "fingerprint of the data": "sha256 over its name, its files of texts and masks, and the names and sizes in bytes "
    "of its images, and of masks that have a file for each image; it changes when the set is moved",
    "sha256 of ids and texts": "what was asked about which samples, without the truth; it does not change when the "
    "set is moved",
    "isolated": "the model is given the words of one phrase alone",
    "packed": "the model is given the full text of the sample, in which it reads a phrase after those before it",
}
"""The meaning of the words on a card."""


_MARKUP = re.compile(r"[&<>|`*~\\]|(?<=\])\(|(?<![^\W_])_|_(?![^\W_])")
"""Characters that Markdown would read: HTML, cells, code, emphasis, escapes, and what makes a link of brackets."""


@dataclass(frozen=True)
class Outcome:
    """The results of all samples.

    Attributes:
        records: Records of all phrases, in the order of the samples.
        skipped: Samples that could not be used.
        left_out: Number of entries of the source that were left out when it was opened.
        warnings: What the grounder says of the images, each sentence once.
    """

    records: Sequence[Record] = field(repr=False)
    skipped: tuple[Problem, ...] = ()
    left_out: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Card:
    """What was run on which data, and the numbers.

    Attributes:
        command: Command line that repeats the run; None if it was started from Python.
        fingerprint: What the records depend on.
        samples_digest: SHA-256 over the ids of samples and phrases and the texts the model was given: see `digest_of`.
        samples: Number of samples that were used.
        skipped: Samples that could not be used, each with its place and what is wrong.
        left_out: Number of entries of the source that were left out when it was opened.
        phrases: Number of phrases that were compared.
        images: Number of distinct images among them.
        interval: How the intervals were computed.
        processes: Number of processes that shared the work when the run ended.
        date: When the run ended, in UTC.
        machine: The machine that the run ended on.
        rules: The meaning of the words.
        numbers: The table.
        warnings: What a reader must know of the numbers, such as that a toy model does not know such images.
    """

    command: str | None
    fingerprint: RunFingerprint
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
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: EvaluationSettings, fingerprint: RunFingerprint, outcome: Outcome, *, processes: int) -> Self:
        """Write the card of a run that has ended."""
        records = outcome.records
        images = len({record.image for record in records})
        return cls(
            command=settings.command,
            fingerprint=fingerprint,
            samples_digest=digest_of(records),
            samples=fingerprint.samples - len(outcome.skipped),
            skipped=outcome.skipped,
            left_out=outcome.left_out,
            phrases=len(records),
            images=images,
            interval=f"{CONFIDENCE:.0%} of {RESAMPLES} draws (percentile bootstrap); a draw takes {images} of the "
            f"images with replacement, each with all its phrases; numpy.random.default_rng({settings.seed})",
            processes=processes,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=_machine(fingerprint.device),
            rules=RULES,
            numbers=tuple(summarise(records, seed=settings.seed)),
            warnings=outcome.warnings,
        )

    @property
    def groups(self) -> list[str]:
        """The groups of phrases that have numbers: `"all"`, and every tag."""
        return list(dict.fromkeys(number.group for number in self.numbers))

    @property
    def masks(self) -> list[str]:
        """The names of the masks that were compared."""
        return list(dict.fromkeys(number.masks for number in self.numbers))

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics: `METRICS`, and `NO_TARGET_METRICS` where some phrase has no target."""
        return list(dict.fromkeys(number.metric for number in self.numbers))

    def number(self, group: str, masks: str, metric: str) -> Number:
        """Look up a number of the table."""
        return next(
            number for number in self.numbers if (number.group, number.masks, number.metric) == (group, masks, metric)
        )

    def write(self, folder: Path) -> None:
        """Write `card.json` and `card.md`."""
        write_json(folder / "card.json", asdict(self))
        with whole_file(folder / "card.md") as temporary:
            temporary.write_text(self.markdown(), encoding="utf-8")

    def facts(self) -> list[tuple[str, object]]:
        """What was run, as rows of a name and a value."""
        fingerprint = asdict(self.fingerprint)
        rows_of_their_own = ("digests", "versions", "options", "data_fingerprint")
        plain = {name: value for name, value in fingerprint.items() if name not in rows_of_their_own}
        return [
            *(plain | {"sentences": plain["sentences"] or "one text per sample: none to choose"}).items(),
            *((f"option {name}", value) for name, value in self.fingerprint.options.items()),
            *((f"digest of {name}", value) for name, value in self.fingerprint.digests.items()),
            ("fingerprint of the data", self.fingerprint.data_fingerprint),
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
            ("versions", ", ".join(f"{name} {value}" for name, value in self.fingerprint.versions.items())),
        ]

    def markdown(self) -> str:
        """The card as a Markdown page."""
        lines = ["# Evaluation card", ""]
        if self.command is not None:
            lines += [*_code(self.command), ""]
        for warning in self.warnings:
            lines += [f"**Warning**: {_text(warning)}", ""]
        for group in self.groups:
            phrases = self.number(group, self.masks[0], self.metrics[0]).phrases
            lines += [f"## {_text(group)}: {phrases:,} phrases", "", *_table(["", *self.masks], self.rows(group)), ""]
        lines += ["## What was run", "", *_table(["", ""], self.facts()), ""]
        if self.skipped:
            problems = (f"* in {_text(problem.place)}: {_text(problem.message)}" for problem in self.skipped)
            lines += ["## Skipped", "", *problems, ""]
        lines += ["## What the words mean", "", *(f"* *{word}*: {meaning}." for word, meaning in self.rules.items())]
        return "\n".join(lines) + "\n"

    def rows(self, group: str) -> list[list[str]]:
        """A row per metric: its name, and its value with the interval for every kind of mask."""
        return [
            [metric, *(format_number(self.number(group, masks, metric)) for masks in self.masks)]
            for metric in self.metrics
        ]


def digest_of(records: Iterable[Record]) -> str:
    """SHA-256 over a line of JSON per phrase, `[sample, phrase_id, prompt, start, end]`."""
    digest = hashlib.sha256()
    for record in records:
        line = [record.sample, record.phrase_id, record.prompt, *record.span]
        digest.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def format_number(number: Number) -> str:
    """Write a number with its interval, such as `0.7909 [0.7801, 0.8012]`, or a dash where it is not defined."""
    if number.value is None or number.low is None or number.high is None:
        return "-"
    return f"{number.value:.4f} [{number.low:.4f}, {number.high:.4f}]"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [map(_cell, head), ["---"] * len(head), *(map(_cell, row) for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(value: object) -> str:
    return "-" if value is None else _text(str(value))


def _text(text: str) -> str:
    """A text as Markdown shows it letter by letter: one line, no HTML, no link, nothing that ends a cell of a table."""
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", plain(text))


def _code(command: str) -> list[str]:
    """A command as a block of code, within a fence that is longer than any in the command."""
    longest = max((len(ticks) for ticks in re.findall("`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}bash", plain(command), fence]


def _machine(device: str) -> str:
    machine = f"{platform.platform()}, {os.cpu_count()} cores, torch threads: {torch.get_num_threads()}"
    return f"{machine}, {torch.cuda.get_device_name()}" if device == "cuda" else machine
