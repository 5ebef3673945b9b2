"""Data sets named in one line: `kind:key=value,key=value`.

A value is plain up to the next comma, or JSON where it begins with `"` or `[`: `folder:path="a, b",limit=10`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from vlm_adapters.errors import DataError

Value = str | int | Sequence["Value"]
"""What a key may hold."""

_FORM = "Write kind:key=value,key=value, and a value with commas in double quotes"


def write_named(kind: str, keys: Mapping[str, Value | None]) -> str:
    """Name a data set in one line, in the order of `keys`; those that are None are left out."""
    told = (f"{key}={_write(value)}" for key, value in keys.items() if value is not None)
    return f"{kind}:{','.join(told)}"


def read_named(named: str) -> tuple[str, dict[str, Value]]:
    """Take a line apart: the kind, and its keys with their values.

    Raises:
        DataError: It is not of this form, or says a key twice.
    """
    kind, _, rest = named.partition(":")
    keys: dict[str, Value] = {}
    while rest:
        key, equals, rest = rest.partition("=")
        if not (equals and key.isidentifier()) or key in keys:
            wrong = f"says {key!r} twice" if key in keys else f"has {key!r} where a key and '=' belong"
            raise DataError(f"The data set {named!r} {wrong}. {_FORM}.")
        keys[key], rest = _read(rest, named)
        if rest == ",":
            raise DataError(f"The data set {named!r} ends with a comma. {_FORM}.")
        rest = rest.removeprefix(",")
    return kind, keys


def _write(value: Value) -> str:
    plain = str(value)
    if isinstance(value, int) or (isinstance(value, str) and "," not in plain and plain[:1] not in ('"', "[")):
        return plain
    return json.dumps(value, ensure_ascii=False)


def _read(rest: str, named: str) -> tuple[Value, str]:
    if rest[:1] not in ('"', "["):
        value, comma, rest = rest.partition(",")
        return value, comma + rest
    try:
        value, end = json.JSONDecoder().raw_decode(rest)
    except ValueError as error:
        raise DataError(f"The data set {named!r} has quotes or brackets that do not close: {error}. {_FORM}.") from None
    if rest[end : end + 1] not in ("", ","):
        raise DataError(f"The data set {named!r} has {rest[end:]!r} after a value in quotes. {_FORM}.")
    return value, rest[end:]
