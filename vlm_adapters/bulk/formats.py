"""The rows of a bulk run, and the three formats in which shards hold them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from safetensors.numpy import save

from vlm_adapters.errors import OptionError

Row = dict[str, Any]
"""What one image gives: arrays by name, or values for JSON."""


class Item(BaseModel):
    """What a manifest says of one row of a shard.

    Attributes:
        index: Where its prompt is in the source.
        id: Its name there.
        text: The sentence, or the question where there is none.
        spans: The phrases, as spans of its characters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int
    id: str
    text: str
    spans: list[tuple[int, int]]


class FailedItem(BaseModel):
    """One image of many that could not be used.

    Attributes:
        index: Where its prompt is in the source.
        id: Its name there.
        message: What is wrong with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int
    id: str
    message: str


def _tensor_bytes(rows: Sequence[tuple[Item, Row]]) -> bytes:
    return save(
        {f"{n:06d}.{name}": np.ascontiguousarray(a) for n, (_, row) in enumerate(rows) for name, a in row.items()}
    )


def _read_tensors(path: Path, count: int) -> list[Row]:
    rows: list[Row] = [{} for _ in range(count)]
    with safe_open(path, framework="np") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - it is not a dict
            number, _, inner = name.partition(".")
            rows[int(number)][inner] = tensors.get_tensor(name)
    return rows


def _line_bytes(rows: Sequence[tuple[Item, Row]]) -> bytes:
    lines = (json.dumps({"id": item.id, **row}, ensure_ascii=False) + "\n" for item, row in rows)
    return "".join(lines).encode()


def _read_lines(path: Path, _: int) -> list[Row]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class _Format(NamedTuple):
    write: Callable[[Sequence[tuple[Item, Row]]], bytes]
    read: Callable[[Path, int], list[Row]]


def _parquet_bytes(rows: Sequence[tuple[Item, Row]]) -> bytes:
    """A row per phrase and grid; `row` counts the images of the shard."""
    arrow, parquet = arrow_modules()
    records = [
        {"row": number, "index": item.index, "id": item.id, **record}
        for number, (item, row) in enumerate(rows)
        for record in row["phrases"]
    ]
    written = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(records, schema=_schema(arrow)), written, compression="zstd")
    return written.getvalue()


def _read_parquet(path: Path, count: int) -> list[Row]:
    _, parquet = arrow_modules()
    rows: list[Row] = [{"phrases": []} for _ in range(count)]
    for record in parquet.read_table(path).to_pylist():
        rows[record.pop("row")]["phrases"].append(
            {name: record[name] for name in record if name not in ("index", "id")}
        )
    return rows


def _schema(arrow: Any) -> Any:
    """The columns of what `Attend` finds, the same in every shard."""
    heads = {"layer": arrow.int32(), "head": arrow.int32(), "following": arrow.float64()}
    heads |= {"mass": arrow.float64(), "on_sinks": arrow.float64()}
    columns = {"row": arrow.int32(), "index": arrow.int64(), "id": arrow.string()}
    columns |= {"phrase": arrow.string(), "start": arrow.int32(), "end": arrow.int32(), "grid": arrow.string()}
    columns |= {"box": arrow.list_(arrow.float64()), "level": arrow.string()}
    columns |= dict.fromkeys(("reliability", "agreement", "on_sinks", "difference"), arrow.float64())
    columns |= {"sinks": arrow.list_(arrow.list_(arrow.int32()))}
    columns |= {"heads": arrow.list_(arrow.struct(list(heads.items())))}
    columns |= {"map": arrow.list_(arrow.list_(arrow.float32()))}
    return arrow.schema(list(columns.items()))


def arrow_modules() -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.parquet`.

    Raises:
        OptionError: They are not installed.
    """
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise OptionError("Parquet files need an extra: pip install 'vlm-adapters[parquet]'.") from error


FORMATS = {
    "safetensors": _Format(_tensor_bytes, _read_tensors),
    "jsonl": _Format(_line_bytes, _read_lines),
    "parquet": _Format(_parquet_bytes, _read_parquet),
}
"""How shards are written and read, by the ending of their files."""
