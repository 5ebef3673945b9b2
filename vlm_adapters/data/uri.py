"""Data sets as one line of text: `kind:key=value,key=value`.

A value is plain up to the next comma, or JSON where it begins with `"` or `[`: `folder:path="a, b",limit=10`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from vlm_adapters.errors import DataError
from vlm_adapters.limits import shown

Value = str | int | Sequence["Value"]
"""The value of a key."""

_LONGEST = 100_000
_SYNTAX = "Write kind:key=value,key=value, and a value with commas in double quotes"


def format_uri(kind: str, values: Mapping[str, Value | None]) -> str:
    """Write a data set as one line, its keys in the order of `values`; values that are None are left out."""
    pairs = (f"{key}={_format_value(value)}" for key, value in values.items() if value is not None)
    return f"{kind}:{','.join(pairs)}"


def parse_uri(uri: str) -> tuple[str, dict[str, Value]]:
    """Split a line into the kind of the data set and the values of its keys.

    Raises:
        DataError: The line does not have this syntax, or repeats a key.
    """
    if len(uri) > _LONGEST:
        raise DataError(f"The data set {shown(uri, 200)} has {len(uri):,} characters. Write it as a .yaml file.")
    kind, _, rest = uri.partition(":")
    values: dict[str, Value] = {}
    while rest:
        key, equals, rest = rest.partition("=")
        if key in values:
            raise DataError(f"The data set {shown(uri, 200)} has the key {shown(key)} twice. {_SYNTAX}.")
        if not (equals and key.isidentifier()):
            raise DataError(f"The data set {shown(uri, 200)} has {shown(key)} where a key and '=' belong. {_SYNTAX}.")
        values[key], rest = _parse_value(rest, uri)
        if rest == ",":
            raise DataError(f"The data set {shown(uri, 200)} ends with a comma. {_SYNTAX}.")
        rest = rest.removeprefix(",")
    return kind, values


def _format_value(value: Value) -> str:
    plain = str(value)
    if isinstance(value, int) or (isinstance(value, str) and "," not in plain and plain[:1] not in ('"', "[")):
        return plain
    return json.dumps(value, ensure_ascii=False)


def _parse_value(text: str, uri: str) -> tuple[Value, str]:
    """The value at the beginning of `text`, and what follows it."""
    if text[:1] not in ('"', "["):
        value, comma, rest = text.partition(",")
        return value, comma + rest
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"The data set {shown(uri, 200)} has quotes or brackets that do not close: {error}. {_SYNTAX}."
        ) from None
    if text[end : end + 1] not in ("", ","):
        raise DataError(f"The data set {shown(uri, 200)} has {shown(text[end:])} after a value in quotes. {_SYNTAX}.")
    return value, text[end:]
