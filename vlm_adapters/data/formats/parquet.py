"""Rows of parquet files, read a few at a time, with a bound on what a file says that it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlm_adapters.data.formats.parquet_pages import check_pages
from vlm_adapters.errors import DataError
from vlm_adapters.limits import Limits
from vlm_adapters.reading import open_regular

_BUFFER = 1024**2
"""Bytes of a column that are read at once: a column of images is as long as all of them."""

_LONGEST_NAME, _MOST_NAMES = 1_000_000, 1_000_000
"""The longest text and the longest list in the footer of a file."""


class ParquetRows:
    """The rows of a parquet file.

    Args:
        path: The file.
        columns: The columns that are needed.
        limits: Most rows, most bytes of a row, and most values and bytes of a column of a row group.

    Raises:
        DataError: pyarrow is not installed, or the file is missing, damaged, beyond the limits, or has no such columns.
    """

    def __init__(self, path: Path, columns: Sequence[str], limits: Limits) -> None:
        self.path, self._limits = path, limits
        _pyarrow(path)
        with self._errors():
            check_pages(path, columns, limits)
        with self._opened() as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise DataError(f"{path} has no column {', '.join(missing)}. Download it again.")
            if file.metadata.num_rows > limits.max_lines:
                raise DataError(f"{path} has {file.metadata.num_rows:,} rows; at most {limits.max_lines:,} are read.")
            self._groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]

    def __len__(self) -> int:
        return sum(self._groups)

    def read(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Read some columns of all rows, one row after another.

        Raises:
            DataError: The file is damaged.
        """
        yield from self._read(columns, range(len(self._groups)))

    def row(self, number: int, columns: Sequence[str]) -> dict[str, Any]:
        """Read some columns of one row, counted from 0.

        Raises:
            DataError: The file is damaged, or has changed.
        """
        for group, rows in enumerate(self._groups):
            if number < rows:
                for index, row in enumerate(self._read(columns, [group])):
                    if index == number:
                        return row
                break
            number -= rows
        raise DataError(f"{self.path} has changed since it was opened. Open the set again.")

    def _read(self, columns: Sequence[str], groups: Sequence[int]) -> Iterator[dict[str, Any]]:
        total, limits = 0, self._limits
        with self._opened() as file:
            # row by row: many rows may refer to one long value
            for batch in file.iter_batches(1, row_groups=list(groups), columns=list(columns), use_threads=False):
                total += batch.nbytes
                if batch.nbytes > limits.max_line_bytes or total > limits.max_file_bytes:
                    raise DataError(
                        f"{self.path} has a row of {batch.nbytes:,} bytes, and {total:,} bytes up to it; at most "
                        f"{limits.max_line_bytes:,} and {limits.max_file_bytes:,} are read. Write it with smaller row "
                        "groups, or pass Limits(max_line_bytes=...) to open_dataset."
                    )
                yield from batch.to_pylist()

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        pyarrow = _pyarrow(self.path)
        with self._errors():
            open_regular(self.path).close()  # pyarrow would wait for a named pipe, and is slow with files of Python
            with (
                pyarrow.OSFile(str(self.path)) as opened,
                pyarrow.parquet.ParquetFile(
                    opened,
                    buffer_size=_BUFFER,
                    pre_buffer=False,
                    thrift_string_size_limit=_LONGEST_NAME,
                    thrift_container_size_limit=_MOST_NAMES,
                ) as file,
            ):
                yield file

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn whatever a damaged file raises into a DataError."""
        try:
            yield
        except (DataError, GeneratorExit):
            raise
        except FileNotFoundError:
            raise DataError(f"There is no file {self.path}. Check the path.") from None
        except Exception as error:  # pyarrow raises errors of every kind
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{self.path} cannot be read as parquet: {reason}. Download it again.") from error


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow.parquet  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise DataError(
            f"{path} is a parquet file, which needs pyarrow, and it is not installed. Install it with "
            'pip install "vlm-adapters[parquet]".'
        ) from error
    return pyarrow
