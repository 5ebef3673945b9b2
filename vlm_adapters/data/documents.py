"""JSON and YAML that strangers wrote: one rule for every reader, and bounded work.

Both are UTF-8, with or without a byte order mark. Whatever is wrong is an error of the type that the caller names.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterator

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from vlm_adapters.errors import AdapterError, DataError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, shown
from vlm_adapters.reading import read_at_most

_WIDE = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_DEEPEST_YAML = 100


def read_json(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS, *, fallback: str | None = None) -> object:
    """Read a JSON file.

    Args:
        path: The file.
        limits: What is accepted.
        fallback: The encoding of a file that is not UTF-8, for forms whose published reader has one.

    Raises:
        DataError: It is missing, not a regular file, not JSON in UTF-8, or beyond the limits.
    """
    name = os.fspath(path)
    try:
        content = read_at_most(path, limits.max_file_bytes)
        check_encoding(content)
        _check_containers(content, limits.max_containers)
        return json.loads(_decoded(content.removeprefix(codecs.BOM_UTF8), fallback))
    except FileNotFoundError:
        raise DataError(f"There is no file {name}. Check the path.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{name} cannot be read as JSON: {error}. Download it again.") from error
    except RecursionError as error:
        raise DataError(f"{name} cannot be read as JSON: brackets are nested too deeply. Download it again.") from error
    except MemoryError as error:
        raise DataError(f"{name} cannot be read as JSON: it takes more memory than there is. Divide it.") from error


def _decoded(content: bytes, fallback: str | None) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        if fallback is None:
            raise
        return content.decode(fallback)


def _check_containers(content: bytes, most: int) -> None:
    containers = content.count(b"[") + content.count(b"{")
    if containers > most:
        raise ValueError(f"it holds {containers:,} lists and objects; at most {most:,} are read")


def usable_text(text: str, limits: Limits) -> str:
    """Return the text of a sample if it is not too long and can be written as UTF-8.

    Raises:
        DataError: It is too long, or holds half of a character (a lone surrogate), as text that was cut there does.
    """
    if len(text) > limits.max_text:
        raise DataError(
            f"The text {shown(text)} has {len(text):,} characters; at most {limits.max_text:,} are read. Divide it, or "
            "pass Limits(max_text=...) to open_dataset."
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"The text {shown(text)} holds half of a character. Fix it in the file.") from None
    return text


def check_encoding(start: bytes) -> None:
    """Refuse text that is not in UTF-8, by the first bytes of its file.

    Raises:
        ValueError: It is UTF-16 or UTF-32.
    """
    wide = next((name for mark, name in _WIDE.items() if start.startswith(mark)), None)
    if wide is None and b"\0" in start[:4]:  # JSON and YAML begin with characters of ASCII
        wide = "UTF-16 or UTF-32"
    if wide:
        raise ValueError(f"it is {wide}, not UTF-8; save it as UTF-8")


def read_yaml(
    path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS, *, error: type[AdapterError] = DataError
) -> object:
    """Read a YAML file of plain values.

    Raises:
        AdapterError: It is missing, not a regular file, not YAML in UTF-8, or beyond the limits; the type is `error`.
    """
    name = os.fspath(path)
    try:
        content = read_at_most(path, limits.max_yaml_bytes)
        check_encoding(content)
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else cause
        raise error(f"{name} cannot be read as YAML: {reason}. Check the file.") from cause
    return parse_yaml(text, name, limits, error=error)


def parse_yaml(
    text: str, what: str, limits: Limits = DEFAULT_LIMITS, *, error: type[AdapterError] = DataError
) -> object:
    """Read YAML of plain values.

    Args:
        text: The YAML.
        what: Words for it at the beginning of a message.
        limits: What is accepted.
        error: The type of the error to raise.

    Raises:
        AdapterError: It is not YAML, or beyond the limits; the type is `error`.
    """
    try:
        return _plain_yaml(text, limits)
    except RecursionError as cause:
        raise error(f"{what} cannot be read as YAML: brackets are nested too deeply. Check the file.") from cause
    except Exception as cause:  # scalars that look like dates or numbers raise errors of every kind
        reason = shown(" ".join(_yaml_reason(cause).split()), 300)[1:-1]
        raise error(f"{what} cannot be read as YAML: {reason}. Check the file.") from cause


def _yaml_reason(cause: Exception) -> str:
    """What is wrong, and by line and column where it is."""
    mark = getattr(cause, "problem_mark", None)
    problem = getattr(cause, "problem", None)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark and problem else str(cause)


def _plain_yaml(text: str, limits: Limits) -> object:
    if len(text) > limits.max_yaml_bytes:
        raise ValueError(f"it is longer than {limits.max_yaml_bytes:,} characters")
    loader = yaml.SafeLoader(text)
    node = loader.get_single_node()
    if node is None:
        return None
    _check_size(node, limits.max_yaml_values)
    return loader.construct_document(node)


def _check_size(node: Node, most: int) -> None:
    """Count the values below a node, those behind an alias each time, and refuse one that holds itself."""
    sizes: dict[int, int] = {}
    inside: set[int] = set()
    pending: list[tuple[Node, bool]] = [(node, False)]
    while pending:
        current, is_done = pending.pop()
        if is_done:
            inside.discard(id(current))
            sizes[id(current)] = 1 + sum(sizes[id(child)] for child in _children(current))
            if sizes[id(current)] > most:
                raise ValueError(f"it holds more than {most:,} values, counted where anchors repeat them")
        elif id(current) in inside:
            raise ValueError("a value holds itself")
        elif id(current) not in sizes:
            if len(inside) > _DEEPEST_YAML:
                raise ValueError(f"brackets are nested more than {_DEEPEST_YAML} deep")
            inside.add(id(current))
            pending.append((current, True))
            pending.extend((child, False) for child in _children(current) if not _is_counted(child, sizes))


def _is_counted(node: Node, sizes: dict[int, int]) -> bool:
    if isinstance(node, ScalarNode):
        sizes[id(node)] = 1
    return id(node) in sizes


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, SequenceNode):
        yield from node.value
