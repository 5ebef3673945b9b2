"""What the processes of a run have done, batch by batch, in files that a kill cannot spoil."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from vlm_adapters.data.dataset import Problem
from vlm_adapters.errors import OutputError
from vlm_adapters.evaluation.fingerprint import Pins
from vlm_adapters.evaluation.record import Record


@dataclass(frozen=True)
class Batch:
    """What came of some samples that follow each other in a data set.

    Attributes:
        number: Of the batch.
        samples: Indices of those that were used.
        records: Of all their phrases, in order.
        skipped: The others, and what is wrong with them.
    """

    number: int
    samples: tuple[int, ...]
    records: tuple[Record, ...]
    skipped: tuple[tuple[int, Problem], ...] = ()

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` and JSON made of a batch."""
        return cls(
            content["number"],
            tuple(content["samples"]),
            tuple(Record.from_json(record) for record in content["records"]),
            tuple((index, Problem(**problem)) for index, problem in content["skipped"]),
        )


class Parts:
    """The files of a run in one folder: every process appends to one of its own.

    The first line of a file says what the records depend on; every other line is a batch. A line that a kill has torn
    is as if it were not there. Work goes on with any number of processes.

    Args:
        folder: Of the files; made where it is missing.
        pins: What the records of this run depend on.

    Raises:
        OutputError: The folder holds the work of a run with other pins, or cannot be used.
    """

    def __init__(self, folder: Path, pins: Pins) -> None:
        self._folder, self._pins = folder, pins
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made: {error.strerror or error}. Give another place.") from error
        for path in self._files():
            if (lines := _whole_lines(path)) and (differing := pins.differences(_content(lines[0], path))):
                raise OutputError(
                    f"{path} is of another run: {'; '.join(differing)}. Give another --out, or remove {folder}."
                )

    def done(self) -> dict[int, Batch]:
        """The batches that are done, by number, whoever did them.

        Raises:
            OutputError: A file is damaged, or a batch was done twice with unlike results.
        """
        found: dict[int, Batch] = {}
        for path in self._files():
            for line in _whole_lines(path)[1:]:
                batch = _batch(line, path)
                if found.setdefault(batch.number, batch) != batch:
                    raise OutputError(
                        f"Batch {batch.number} was done twice with unlike results, the second time in {path}. Remove "
                        f"{self._folder} and run again."
                    )
        return found

    def append(self, process: int, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Write batches as they come to the file of a process, and pass them on.

        Raises:
            OutputError: The file cannot be written.
        """
        path = self._folder / f"part-{process:03d}.jsonl"
        whole = sum(map(len, _whole_lines(path)))
        try:
            with path.open("ab", buffering=0) as file:
                file.truncate(whole)
                if not whole:
                    file.write(_line(asdict(self._pins)))
                for batch in batches:
                    file.write(_line(asdict(batch)))
                    yield batch
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}. Give another place.") from error

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.jsonl"))


def merge(done: Mapping[int, Batch], samples: int) -> tuple[list[Record], list[Problem]]:
    """Bring all batches together in the order of samples.

    Args:
        done: Batches by number.
        samples: How many the data set has.

    Raises:
        OutputError: A sample is missing, or stands twice.
    """
    batches = [done[number] for number in sorted(done)]
    skipped = [entry for batch in batches for entry in batch.skipped]
    found = sorted([index for batch in batches for index in batch.samples] + [index for index, _ in skipped])
    if found != list(range(samples)):
        raise OutputError(
            f"The parts hold {len(found)} samples, {len(set(found))} of them unlike, and the data set has {samples}. "
            "Remove the parts and run again."
        )
    return [record for batch in batches for record in batch.records], [problem for _, problem in skipped]


def _line(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _whole_lines(path: Path) -> list[bytes]:
    """The lines of a file that end; none where there is no file."""
    try:
        return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror or error}. Mend that, or remove it.") from error


def _content(line: bytes, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise _damaged(path, error) from error
    if not isinstance(content, dict):
        raise _damaged(path, TypeError("a line is no object"))
    return content


def _batch(line: bytes, path: Path) -> Batch:
    try:
        return Batch.from_json(_content(line, path))
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> OutputError:
    return OutputError(f"{path} is damaged: {error}. Remove it: what it holds is computed again.")
