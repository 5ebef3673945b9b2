"""Results of a run that has not ended, batch by batch, in files that a killed process cannot spoil."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from vlm_adapters.data.dataset import Problem
from vlm_adapters.data.files import append_line, output_errors, whole_file
from vlm_adapters.data.sealed import sealed, unsealed
from vlm_adapters.errors import OutputError
from vlm_adapters.evaluation.fingerprint import RunFingerprint
from vlm_adapters.evaluation.record import Record


@dataclass(frozen=True)
class BatchResult:
    """The records of the samples of a batch.

    Attributes:
        number: Number of the batch.
        samples: Indices of the samples that were used.
        records: Records of all their phrases, in order.
        skipped: Indices of the other samples, with what is wrong with them.
        warnings: What the grounder says of the images, each sentence once.
    """

    number: int
    samples: tuple[int, ...]
    records: tuple[Record, ...]
    skipped: tuple[tuple[int, Problem], ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` and JSON made of a batch."""
        return cls(
            content["number"],
            tuple(content["samples"]),
            tuple(Record.from_json(record) for record in content["records"]),
            tuple((index, Problem(**problem)) for index, problem in content["skipped"]),
            tuple(content["warnings"]),
        )


class PartialResults:
    """The finished batches of a run, in a folder where every process appends to a file of its own.

    The first line of a file is the fingerprint of the run; every other line is a batch; every line ends with its own
    digest. A last line that was cut short when a process was killed is ignored, and any other change is an error. A
    run can be resumed with any number of processes.

    Args:
        folder: Folder of the files; it is created if it does not exist.
        fingerprint: What the records of this run depend on.

    Raises:
        OutputError: The folder holds results of a run with another fingerprint, or cannot be used.
    """

    def __init__(self, folder: Path, fingerprint: RunFingerprint) -> None:
        self._folder, self._fingerprint = folder, fingerprint
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{folder} cannot be created: {error.strerror or error}. Give another folder (--out)."
            ) from error
        for path in self._files():
            lines = _complete_lines(path)
            if lines and (differences := fingerprint.differences(_parse(lines[0], path, 1))):
                raise OutputError(
                    f"{path} belongs to a different run: {'; '.join(differences)}. Give another folder (--out), or "
                    f"remove {folder}."
                )

    def batches(self) -> dict[int, BatchResult]:
        """Read the finished batches of all processes, by number.

        Raises:
            OutputError: A file is damaged, or a batch was computed twice with different results.
        """
        found: dict[int, BatchResult] = {}
        for path in self._files():
            for number, line in enumerate(_complete_lines(path)[1:], start=2):
                batch = _read_batch(line, path, number)
                if found.setdefault(batch.number, batch) != batch:
                    raise OutputError(
                        f"Batch {batch.number} was computed twice with different results, the second time in {path}. "
                        f"Remove {self._folder} and run again."
                    )
        return found

    def append(self, process: int, batches: Iterable[BatchResult]) -> Iterator[BatchResult]:
        """Write batches to the file of a process as they come, and pass them on.

        Raises:
            OutputError: The file cannot be written, or was removed meanwhile; the batches before stay good.
        """
        path = self._folder / f"process-{process:03d}.jsonl"
        if lines := _complete_lines(path):
            with output_errors(path), path.open("r+b") as file:
                file.truncate(sum(map(len, lines)))
        else:
            with whole_file(path) as temporary:
                temporary.write_bytes(sealed(asdict(self._fingerprint)))
        for batch in batches:
            append_line(path, sealed(asdict(batch)))
            yield batch

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("process-*.jsonl"))


def merge(batches: Mapping[int, BatchResult], samples: int) -> tuple[list[Record], list[Problem]]:
    """Join all batches in the order of their samples.

    Args:
        batches: Batches by number.
        samples: Number of samples in the data set.

    Returns:
        The records, and what is wrong with the samples that were skipped.

    Raises:
        OutputError: A sample is missing or occurs twice.
    """
    ordered = [batches[number] for number in sorted(batches)]
    skipped = [entry for batch in ordered for entry in batch.skipped]
    found = sorted([index for batch in ordered for index in batch.samples] + [index for index, _ in skipped])
    if found != list(range(samples)):
        raise OutputError(
            f"The partial results hold {len(found)} samples, {len(set(found))} of them distinct, and the data set has "
            f"{samples}. Remove the partial results and run again."
        )
    records = sorted((record for batch in ordered for record in batch.records), key=lambda record: record.index)
    return records, [problem for _, problem in sorted(skipped, key=lambda entry: entry[0])]


def _complete_lines(path: Path) -> list[bytes]:
    """The lines of a file that end with a line break; none if the file does not exist."""
    try:
        return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(
            f"{path} cannot be read: {error.strerror or error}. Make it readable, or remove it."
        ) from error


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        return unsealed(line)
    except ValueError as error:
        raise _damaged(path, number, error) from error


def _read_batch(line: bytes, path: Path, number: int) -> BatchResult:
    try:
        return BatchResult.from_json(_parse(line, path, number))
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, number, error) from error


def _damaged(path: Path, number: int, error: Exception) -> OutputError:
    what = "Remove the file" if number == 1 else "Delete that line, or remove the file"
    return OutputError(f"Line {number} of {path} is damaged: {error}. {what}: what it held is computed again.")
