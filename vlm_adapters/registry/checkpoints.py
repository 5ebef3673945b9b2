"""From the name of a checkpoint to its location and model type: embedded, a directory, or on the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from huggingface_hub import hf_hub_download

from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CheckpointError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, did_you_mean, shown
from vlm_adapters.registry.checkpoint_files import check_config, check_folder, read_json
from vlm_adapters.registry.discovery import list_adapters, refuse_unsupported
from vlm_adapters.registry.hub import hub_reason

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

DECODER_TYPE: Final = "vlm_adapters_decoder"
"""The `model_type` in the `config.json` of a decoder, which no backbone has."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found.

    Attributes:
        location: Directory or hub id of the checkpoint.
        model_type: The `model_type` in its `config.json`, which is the name of its adapter.
    """

    location: str
    model_type: str


@dataclass(frozen=True)
class LoraFolder:
    """A folder that holds a LoRA and no model.

    Attributes:
        folder: The folder with `adapter_config.json`.
        base: Directory or hub id of the model that it belongs to.
        base_revision: Commit, tag or branch of the base on the hub.
    """

    folder: Path
    base: str
    base_revision: str | None

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the location of the base; None if the folder holds no LoRA, or also a model.

        Raises:
            CheckpointError: `adapter_config.json` names no base.
        """
        path = folder / "adapter_config.json"
        if os.path.exists(folder / "config.json") or not os.path.isfile(path):  # noqa: PTH110, PTH113 - as in `find_checkpoint`
            return None
        config = read_json(path)
        base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
        revision = config.get("revision") if isinstance(config, dict) else None
        if not isinstance(base, str) or not base:
            raise CheckpointError(
                f"{path} has no base_model_name_or_path, the model that the LoRA belongs to. "
                "Save the LoRA again with peft."
            )
        location = str(embedded_checkpoints().get(base, base))
        return cls(folder, location, revision if isinstance(revision, str) and revision else None)


def find_checkpoint(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    subfolder: str = "",
    limits: Limits = DEFAULT_LIMITS,
    **hub: Any,
) -> Checkpoint:
    """Find a checkpoint by embedded name, directory or hub id, and read its `model_type`.

    Args:
        name_or_path: Name of the checkpoint, as `load_adapter` takes it.
        revision: Branch, tag or commit of a hub id.
        subfolder: Folder within a repository on the hub.
        limits: What is accepted.
        hub: `token`, `cache_dir` and `local_files_only`, as `load_adapter` takes them.

    Raises:
        CheckpointError: There is no such checkpoint, or it has no readable `config.json` with a `model_type`.
        UnknownAdapterError: It is of a family that no adapter can be built for.
    """
    name = os.fspath(name_or_path)
    location = str(embedded_checkpoints().get(name, name))
    if os.path.isdir(location):  # noqa: PTH112 - false for "" and for names no file can have, where Path.is_dir is true or raises
        check_folder(Path(location), limits)
        if lora := LoraFolder.read(Path(location)):
            return Checkpoint(location, _base_of(lora, limits, hub).model_type)
        return Checkpoint(location, _model_type(Path(location, "config.json"), limits))
    refuse_unsupported(name)
    if not _HUB_ID.fullmatch(name):
        raise CheckpointError(_not_found(name))
    path = hub_config(name, {"revision": revision, "subfolder": subfolder or None, **hub})
    return Checkpoint(name, _model_type(path, limits))


def _base_of(lora: LoraFolder, limits: Limits, hub: Mapping[str, Any]) -> Checkpoint:
    try:
        if os.path.isdir(lora.base):  # noqa: PTH112 - as in `find_checkpoint`
            check_folder(Path(lora.base), limits)
            return Checkpoint(lora.base, _model_type(Path(lora.base, "config.json"), limits))
        return find_checkpoint(lora.base, revision=lora.base_revision, limits=limits, **hub)
    except CheckpointError as error:
        raise CheckpointError(
            f"{lora.folder} holds a LoRA over {shown(lora.base)}, which cannot be found: {error} Or load the base from "
            "elsewhere: `adapter.model = peft.PeftModel.from_pretrained(adapter.model, folder)`."
        ) from error


def _model_type(path: Path, limits: Limits = DEFAULT_LIMITS) -> str:
    config = check_config(path, limits)
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type == DECODER_TYPE:
        raise CheckpointError(
            f"{path} is that of a decoder, and a backbone is needed here. Give the decoder to "
            "GroundedVLM.from_pretrained or to `adapters ground --model`."
        )
    if isinstance(model_type, str) and model_type:
        return model_type
    architectures = config.get("architectures") if isinstance(config, dict) else None
    names = architectures if isinstance(architectures, list) else []
    for entry in list_adapters():
        if entry.spec and not entry.broken and any(name in entry.spec.architectures for name in names):
            return entry.spec.name
    raise CheckpointError(
        f"{path} has no model_type, by which the adapter is chosen, and names no class that a plugin knows. "
        "Give the directory of a transformers checkpoint."
    )


def hub_config(repository: str, options: Mapping[str, Any]) -> Path:
    """The path of a repository's `config.json`: in the local cache, else downloaded from the hub.

    Args:
        repository: Hub id.
        options: Those of huggingface_hub: `revision`, `token`, ...

    Raises:
        CheckpointError: It is neither in the cache, nor can it be downloaded.
    """
    revision = options.get("revision")
    try:
        # a model_type does not change, so a file in the cache is good without a request to the hub
        return Path(hf_hub_download(repository, "config.json", **{**options, "local_files_only": True}))
    except Exception:  # noqa: BLE001, S110 - not in the cache; the error of the request to the hub is the one to report
        pass
    try:
        return Path(hf_hub_download(repository, "config.json", **options))
    except Exception as error:
        at = f" --revision {revision}" if revision else ""
        reason = hub_reason(error, options, "config.json, so it is not a transformers checkpoint")
        raise CheckpointError(
            f"{repository!r} is not a local directory, and its config.json cannot be downloaded from the hub: "
            f"{reason}. Run `hf download {repository}{at}` where the hub can be reached, "
            f"or give the directory of a checkpoint. {_embedded_checkpoints_listed()}"
        ) from error


def _not_found(name: str) -> str:
    for entry in list_adapters():
        if entry.name == name:
            supported = ", ".join(entry.checkpoints) or "see the plugin's documentation"
            return (
                f"{name!r} is the name of an adapter, and a checkpoint is needed. It supports: {supported}. "
                f"{_embedded_checkpoints_listed(name)}"
            )
    meant = did_you_mean(name, [*embedded_checkpoints(), *(entry.name for entry in list_adapters() if entry.name)])
    return (
        f"No checkpoint {shown(name, 300)}: it is neither a local directory nor a hub id (owner/name, such as "
        f"Qwen/Qwen2.5-VL-3B-Instruct, from `hf download`).{meant} {_embedded_checkpoints_listed()}"
    )


def _embedded_checkpoints_listed(model_type: str | None = None) -> str:
    """A sentence that lists the embedded checkpoints, those of one model type if given."""
    names = [
        name
        for name, path in embedded_checkpoints().items()
        if model_type is None or _model_type(path / "config.json") == model_type
    ]
    return f"Embedded: {', '.join(names) or 'none'}."
