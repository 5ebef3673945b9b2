"""The files of a checkpoint, checked before anything that they ask for is done."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from vlm_adapters.errors import CheckpointError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, shown

_WEIGHTS = ".safetensors"
_TEXTS = (".json", ".jinja", ".txt", ".model")
_LAYERS = ("layers", "depth", "depths", "layer_num", "n_layer", "num_blocks", "n_blocks")
"""Endings of the keys of a config whose value is a number of layers."""


def read_json(path: Path, limits: Limits = DEFAULT_LIMITS) -> object:
    """Read a JSON file of a checkpoint.

    Raises:
        CheckpointError: It is missing, not a regular file, too large, or not JSON.
    """
    check_file(path, limits.max_config_bytes)
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"{path} cannot be read as JSON: {type(error).__name__}: {error}. Download the checkpoint again."
        ) from error
    return content


def check_file(path: Path, most_bytes: int | None = None) -> None:
    """Make sure that a path is a regular file, so that reading it ends.

    Args:
        path: The file.
        most_bytes: Its largest size; None for any.

    Raises:
        CheckpointError: It is missing, not a regular file, or too large.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"No {path.name} in {path.parent}. Give the directory of a checkpoint as `hf download` makes it."
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path} is not a regular file. Remove it, and download the checkpoint again.")
    if most_bytes is not None and found.st_size > most_bytes:
        raise CheckpointError(
            f"{path} has {found.st_size:,} bytes; at most {most_bytes:,} are read of such a file. "
            "Download the checkpoint again, or pass limits=Limits(max_config_bytes=...)."
        )


def check_folder(folder: Path, limits: Limits = DEFAULT_LIMITS) -> None:
    """Check the files of a checkpoint's folder before they are read: regular, and texts not too large.

    Raises:
        CheckpointError: A file is a pipe, a device or too large, or the index of the weights names none of the folder.
    """
    for path in _files(folder):
        check_file(path, limits.max_config_bytes if path.suffix in _TEXTS else None)
    index = folder / f"model{_WEIGHTS}.index.json"
    if index.exists():
        content = read_json(index, limits)
        shards = content.get("weight_map") if isinstance(content, dict) else None
        for shard in shards.values() if isinstance(shards, dict) else [None]:
            inside = isinstance(shard, str) and shard.endswith(_WEIGHTS) and os.path.basename(shard) == shard  # noqa: PTH119 - of text
            if not inside:
                raise CheckpointError(
                    f"{index} names {shown(shard)}, which is not a {_WEIGHTS} file of its folder. "
                    "Download the checkpoint again."
                )


def check_config(path: Path, limits: Limits = DEFAULT_LIMITS) -> object:
    """Read a `config.json`, and refuse numbers of layers that no model has, since their lists are made at once.

    Raises:
        CheckpointError: It cannot be read, or names too many layers.
    """
    content = read_json(path, limits)
    for key, value in _numbers(content):
        if key.endswith(_LAYERS) and value > limits.max_layers:
            raise CheckpointError(
                f"{path} asks for {key} = {shown(value)}; at most {limits.max_layers:,} layers are built. "
                "Download the checkpoint again, or pass limits=Limits(max_layers=...)."
            )
    return content


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder that transformers may read, those of its templates included."""
    for inner in (folder, folder / "additional_chat_templates"):
        if inner.is_dir():
            yield from (path for path in sorted(inner.iterdir()) if path.suffix in (*_TEXTS, _WEIGHTS))


def _numbers(content: object) -> Iterator[tuple[str, float]]:
    """All numbers of JSON with their keys, and those of lists with the key of the list."""
    waiting: list[tuple[str, object]] = [("", content)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(key, each) for each in value]
        elif isinstance(value, int | float):
            yield key, value
