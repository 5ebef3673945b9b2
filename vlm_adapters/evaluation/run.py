"""The run of an evaluation: from a grounder and a data set to records and a card, with resume."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import tee
from pathlib import Path

from vlm_adapters.data.ahead import default_workers, map_ahead
from vlm_adapters.data.dataset import Dataset, Problem, read_samples
from vlm_adapters.data.image_order import divide_by_runs, image_keys, indices_by_image
from vlm_adapters.data.locks import locked_folder
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import OutputError
from vlm_adapters.evaluation.card import Card, Outcome
from vlm_adapters.evaluation.fingerprint import EvaluationSettings, RunFingerprint
from vlm_adapters.evaluation.partial_results import BatchResult, PartialResults, merge
from vlm_adapters.evaluation.process import Process
from vlm_adapters.evaluation.protocols import Masks, find_masks_of_batches, protocol_named
from vlm_adapters.evaluation.record import Record, records_bytes, records_of, write_records
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.prompt import Prompt

_LOG = logging.getLogger(__name__)

RECORDS_FILE = "records.jsonl"
PARTIAL_RESULTS_FOLDER = "partial_results"
SUBFOLDERS = (PARTIAL_RESULTS_FOLDER,)


@dataclass(frozen=True)
class EvaluationProgress:
    """How far this process is with its share of the samples.

    Attributes:
        samples: Number of samples that are done, those of an interrupted run included.
        total: Number of samples of the share.
    """

    samples: int
    total: int

    @property
    def done(self) -> int:
        """The same by the name of every `Progress`."""
        return self.samples

    @property
    def unit(self) -> str:
        """What is counted."""
        return "samples"

    @property
    def status(self) -> str:
        """What else there is to show."""
        return ""


def evaluate(
    grounder: Grounder,
    dataset: Dataset,
    settings: EvaluationSettings,
    out: str | os.PathLike[str],
    *,
    process: Process | None = None,
    report: Callable[[EvaluationProgress], None] = lambda _: None,
) -> Card:
    """Measure the masks of a grounder on a data set; resumes an interrupted run into the same folder.

    Started by `accelerate launch` or `torchrun`, the processes share the samples, and the first one writes the files.

    Args:
        grounder: Finds the masks; any subclass of `Grounder`.
        dataset: Holds the true masks.
        settings: Protocol, batch size and seed, and how the model was loaded.
        out: Folder of the run: `records.jsonl` (a line per phrase), `card.json` and `card.md` (what was run, and the
            numbers), `partial_results` (what a run is resumed from).
        process: The process of this call; by default, found from the environment of the launcher.
        report: Called at the start and after every batch.

    Returns:
        The card, in every process.

    Raises:
        OutputError: The folder holds a different run, or a damaged one; another process is evaluating there, or it
            cannot be written to.
        DataError: A sample is broken, and the data set does not skip it.
        ImageError: An image is missing or cannot be used, and the data set does not skip it.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from vlm_adapters import evaluate, load_grounder
        >>> from vlm_adapters.evaluation import EvaluationSettings, open_for_protocol
        >>> scenes = open_for_protocol("scenes:count=2,seed=4", "packed")
        >>> with TemporaryDirectory() as out:
        ...     card = evaluate(load_grounder("tiny-llava"), scenes, EvaluationSettings(protocol="packed"), out)
        >>> card.number("all", "mask", "mIoU").value > 0.5
        True
    """
    process, out = process or Process.this(), Path(out)
    fingerprint = RunFingerprint.of(settings, grounder, dataset)
    with locked_folder(out, *SUBFOLDERS) if process.index == 0 else nullcontext():
        results = PartialResults(out / PARTIAL_RESULTS_FOLDER, fingerprint)
        _compute(Evaluation(grounder, dataset, settings.protocol, settings.batch_size), results, process, report)
        process.finish()
        batches = results.batches()
        records, skipped = merge(batches, len(dataset))
        warnings = _distinct(warning for batch in batches.values() for warning in batch.warnings)
        outcome = Outcome(records, tuple(skipped), len(dataset.problems), warnings)
        card = Card.of(settings, fingerprint, outcome, processes=process.count)
        if process.index == 0:
            _write_records(records, out / RECORDS_FILE)
            card.write(out)
    return card


def _write_records(records: Sequence[Record], path: Path) -> None:
    """Write the records; those of an earlier run into the folder are the same, or were changed."""
    if path.is_file() and path.read_bytes() != records_bytes(records):
        raise OutputError(
            f"{path} was changed after it was written: it is not what the partial results say. Remove it and run the "
            "evaluation again: it is written anew."
        )
    write_records(records, path)


@dataclass(frozen=True)
class Evaluation:
    """The batches of an evaluation.

    The batches are the same whichever process computes them and whatever was computed before, because the rounding of
    a sample depends on the samples beside it. So the records are the same for one process and for many, and for an
    interrupted run that was resumed. Samples of one image are computed together, wherever they are in the data set.

    Attributes:
        grounder: Finds the masks.
        dataset: Holds the true masks.
        protocol: A key of `PROTOCOLS`.
        batch_size: Most samples per batch, and prompts that are computed at once.
        workers: Threads that read ahead.
    """

    grounder: Grounder = field(repr=False)
    dataset: Dataset = field(repr=False)
    protocol: str
    batch_size: int
    workers: int = field(default_factory=default_workers, repr=False)

    @property
    def batch_numbers(self) -> range:
        """The numbers of all batches."""
        return range(len(self._indices))

    def indices(self, number: int) -> Sequence[int]:
        """The indices of the samples of a batch."""
        return self._indices[number]

    @cached_property
    def _indices(self) -> list[list[int]]:
        """The indices of all batches: samples of one image are in one batch where they fit."""
        keys, order = image_keys(self.dataset), indices_by_image(self.dataset)
        parts = divide_by_runs([keys[index] for index in order], self.batch_size)
        return [[order[place] for place in part] for part in parts]

    def batch(self, number: int) -> BatchResult:
        """Read, ground and compare the samples of a batch.

        Raises:
            DataError: A sample is broken, and the data set does not skip it.
            ImageError: An image is missing or cannot be used, and the data set does not skip it.
        """
        (found,) = self.batches([number])
        return found

    def batches(self, numbers: Sequence[int]) -> Iterator[BatchResult]:
        """The same for several batches: the next are read and prepared while one is grounded and one compared."""
        with (
            closing(map_ahead(self._read, numbers, workers=self.workers, most=self.workers)) as read,
            closing(map_ahead(_compared, self._grounded(read), workers=min(self.workers, 1), most=1)) as compared,
        ):
            yield from compared

    def _read(self, number: int) -> _ReadBatch:
        read = list(read_samples(self.dataset, self.indices(number)))
        usable = [(index, sample) for index, sample in read if isinstance(sample, Sample)]
        return _ReadBatch(
            number,
            usable,
            [protocol_named(self.protocol)(sample) for _, sample in usable],
            tuple((index, problem) for index, problem in read if isinstance(problem, Problem)),
            _distinct(warning for _, sample in usable for warning in self.grounder.warnings_about(sample.image)),
        )

    def _grounded(self, batches: Iterable[_ReadBatch]) -> Iterator[tuple[_ReadBatch, list[dict[str, Masks]]]]:
        batches, ahead = tee(batches)
        found = find_masks_of_batches(self.grounder, (batch.prompts for batch in ahead), self.batch_size)
        return zip(batches, found, strict=True)


@dataclass(frozen=True)
class _ReadBatch:
    """The samples of a batch.

    Attributes:
        number: Number of the batch.
        usable: The samples that could be read, with their indices.
        prompts: The prompts of every one of them.
        skipped: The others, with what is wrong with them.
        warnings: What the grounder says of their images.
    """

    number: int
    usable: list[tuple[int, Sample]]
    prompts: list[list[Prompt]]
    skipped: tuple[tuple[int, Problem], ...]
    warnings: tuple[str, ...]


def _distinct(warnings: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(warnings))


def _compared(grounded: tuple[_ReadBatch, list[dict[str, Masks]]]) -> BatchResult:
    """Compare the masks of a batch with the truth."""
    batch, masks = grounded
    records = [
        record
        for (index, sample), prompts, found in zip(batch.usable, batch.prompts, masks, strict=True)
        for record in records_of(index, sample, prompts, found)
    ]
    used = tuple(index for index, _ in batch.usable)
    return BatchResult(batch.number, used, tuple(records), batch.skipped, batch.warnings)


def _compute(
    evaluation: Evaluation,
    results: PartialResults,
    process: Process,
    report: Callable[[EvaluationProgress], None],
) -> None:
    """Compute what is left of this process's share."""
    share = [number for number in evaluation.batch_numbers if number % process.count == process.index]
    samples = {number: len(evaluation.indices(number)) for number in share}
    finished = results.batches()
    left = [number for number in share if number not in finished]
    done, total = sum(samples[number] for number in share if number in finished), sum(samples.values())
    _LOG.info("%d of %d samples are left to evaluate", total - done, total)
    report(EvaluationProgress(done, total))
    for batch in results.append(process.index, evaluation.batches(left)):
        done += samples[batch.number]
        _LOG.debug("batch %d is done", batch.number)
        report(EvaluationProgress(done, total))
