"""From the name of a checkpoint to its adapter."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CheckpointError
from vlm_adapters.registry import adapter_class, find_adapter, list_adapters, published_builder

if TYPE_CHECKING:
    import torch

    from vlm_adapters.backbone import BackboneAdapter, BackboneInfo

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found.

    Attributes:
        location: Its directory, or its hub id.
        model_type: What its `config.json` says; the name of its adapter.
    """

    location: str
    model_type: str


def load_adapter(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    **options: object,
) -> BackboneAdapter:
    """Load a checkpoint with the adapter for its `model_type`.

    Args:
        name_or_path: An embedded checkpoint (`"tiny-qwen2_5_vl"`), a directory, or a hub id
            (`"Qwen/Qwen2.5-VL-3B-Instruct"`), tried in this order; write `./name` for a directory with the name of an
            embedded checkpoint.
        device: Where the model lives; `"auto"` leaves it to the adapter.
        dtype: Precision of the weights; `"auto"` leaves it to the adapter.
        revision: Branch, tag or commit of a hub id.
        trust_remote_code: Whether code from the checkpoint may run.
        options: Options of the adapter, such as `min_pixels`.

    Raises:
        CheckpointError: There is no such checkpoint, or it has no readable `config.json` with a `model_type`.
        UnknownAdapterError: No installed plugin offers an adapter for it.
        PluginError: The plugin is broken or something must be installed first.
    """
    checkpoint = find_checkpoint(name_or_path, revision=revision)
    if revision is not None and Path(checkpoint.location).is_dir():
        raise CheckpointError(
            f"{name_or_path} is a folder, which has no revision {revision!r}. Leave the revision out."
        )
    adapter = adapter_class(find_adapter(checkpoint.model_type))
    return adapter.from_pretrained(
        checkpoint.location,
        device=device,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
        **options,
    )


def load_published(name: str) -> BackboneAdapter | None:
    """Build the adapter of a published checkpoint at full size without its weights, from what a plugin knows of it.

    Its model is on the meta device: it has sizes and no values. Uses no network.

    Args:
        name: Hub id.

    Returns:
        None where no plugin knows enough of it, or where the name is that of a directory.

    Raises:
        PluginError: The plugin is broken, or something must be installed first.
    """
    if os.path.isdir(name):  # noqa: PTH112 - as in `find_checkpoint`
        return None
    for entry in list_adapters():
        if entry.spec and entry.spec.published and not entry.broken and name in entry.checkpoints:
            return published_builder(entry)(name)
    return None


def published_info(name: str) -> BackboneInfo:
    """What a published checkpoint offers a decoder, without its weights.

    Args:
        name: Hub id, or the name of an adapter: the first checkpoint that it is meant for.

    Raises:
        CheckpointError: No plugin knows enough of it.
    """
    first = {entry.name: entry.checkpoints[0] for entry in list_adapters() if entry.checkpoints and not entry.broken}
    if adapter := load_published(first.get(name, name)):
        return adapter.info
    known = [name for name, checkpoint in first.items() if name and load_published(checkpoint)]
    raise CheckpointError(
        f"No plugin knows the sizes of {name!r}. Give the hub id of a checkpoint that `adapters info` shows as "
        f"published, or an adapter of these: {', '.join(known) or 'none'}."
    )


def find_checkpoint(name_or_path: str | os.PathLike[str], *, revision: str | None = None) -> Checkpoint:
    """Find a checkpoint by embedded name, directory or hub id, and read its `model_type`.

    Raises:
        CheckpointError: There is no such checkpoint, or it has no readable `config.json` with a `model_type`.
    """
    name = os.fspath(name_or_path)
    location = str(embedded_checkpoints().get(name, name))
    if os.path.isdir(location):  # noqa: PTH112 - unlike Path.is_dir, false for "" and for names no file can have
        return Checkpoint(location, _model_type(Path(location, "config.json")))
    if not _HUB_ID.fullmatch(name):
        raise CheckpointError(_no_checkpoint(name))
    return Checkpoint(name, _model_type(_hub_config(name, revision)))


def _model_type(path: Path) -> str:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"No config.json in {path.parent}. Give the directory of a checkpoint as `hf download` makes it."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}. Download the checkpoint again.") from error
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(model_type, str) or not model_type:
        raise CheckpointError(
            f"{path} names no model_type, by which the adapter is chosen. "
            "Give the directory of a transformers checkpoint."
        )
    return model_type


def _hub_config(repository: str, revision: str | None) -> Path:
    """The checkpoint's `config.json` from the local cache, else from the hub."""
    try:
        # a model_type does not change, so what is on disk needs no question to the hub
        return Path(hf_hub_download(repository, "config.json", revision=revision, local_files_only=True))
    except Exception:  # noqa: BLE001, S110 - not on disk: the hub is asked, and its answer is the one to report
        pass
    try:
        return Path(hf_hub_download(repository, "config.json", revision=revision))
    except Exception as error:
        at = f" --revision {revision}" if revision else ""
        raise CheckpointError(
            f"{repository!r} is no directory here, and its config.json cannot be had from the hub: "
            f"{_hub_reason(error, revision)}. Run `hf download {repository}{at}` where the hub can be reached, "
            f"or give the directory of a checkpoint. {_embedded_checkpoints_told()}"
        ) from error


def _hub_reason(error: Exception, revision: str | None) -> str:
    asked = (
        "HF_HUB_OFFLINE is set, so the hub was not asked" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
    )
    reasons: dict[type[Exception], str] = {  # the first that fits, so the special ones stand before their bases
        LocalEntryNotFoundError: f"it is not in the local cache, and {asked}",
        GatedRepoError: "the repository is gated; accept its terms on its page and run `hf auth login`",
        RepositoryNotFoundError: "there is no such repository, or it is private and needs `hf auth login`",
        RevisionNotFoundError: f"the repository has no revision {revision!r}",
        EntryNotFoundError: "the repository has no config.json, so it is no transformers checkpoint",
    }
    told = " ".join(f"{type(error).__name__}: {error}".split())
    return next((reason for kind, reason in reasons.items() if isinstance(error, kind)), told)


def _no_checkpoint(name: str) -> str:
    for entry in list_adapters():
        if entry.name == name:
            meant = ", ".join(entry.checkpoints) or "see the plugin's documentation"
            return (
                f"{name!r} is the name of an adapter, and a checkpoint is needed. It is meant for: {meant}. "
                f"{_embedded_checkpoints_told(name)}"
            )
    return (
        f"No checkpoint {name!r}: it is no directory here and no hub id (owner/name, such as "
        f"Qwen/Qwen2.5-VL-3B-Instruct, from `hf download`). {_embedded_checkpoints_told()}"
    )


def _embedded_checkpoints_told(model_type: str | None = None) -> str:
    """Which embedded checkpoints there are, of this model type if given, as a sentence."""
    names = [
        name
        for name, path in embedded_checkpoints().items()
        if model_type is None or _model_type(path / "config.json") == model_type
    ]
    return f"Embedded: {', '.join(names) or 'none'}."
