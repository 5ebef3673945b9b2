"""Decoders on the hub: which files of a repository are downloaded, and what is checked before they are.

Only files with the names of a decoder's are asked for, all of one commit, so nothing else that is in a repository
reaches this machine.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from vlm_adapters.decoder.checkpoint import CONFIG_FILE, BackboneReference, DecoderConfig, decoder_folder
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CheckpointError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, shown
from vlm_adapters.registry.checkpoint_files import read_json
from vlm_adapters.registry.checkpoints import DECODER_TYPE
from vlm_adapters.registry.hub import hub_reason, is_hub_id

HUB_KEYWORDS = ("revision", "token", "cache_dir", "local_files_only")
"""What huggingface_hub is called with."""

_REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]{0,99}")


def is_on_hub(name: str) -> bool:
    """Whether a decoder of this name would be looked for on the hub: it is `owner/name`, and no folder."""
    return is_hub_id(name) and not decoder_folder(Path(name)).is_dir()


def download_decoder(repository: str, limits: Limits = DEFAULT_LIMITS, **hub: Any) -> Path:
    """Download a decoder, unless it is in the local cache.

    Args:
        repository: Hub id.
        limits: The sizes that are accepted.
        hub: `revision`, `token`, `cache_dir` and `local_files_only`, as huggingface_hub takes them.

    Returns:
        The decoder's folder in the cache.

    Raises:
        CheckpointError: There is no such repository, it holds no decoder, or one that names a backbone which cannot be
            that of a shared decoder; a file is too large, or cannot be downloaded.
    """
    hub = {name: value for name, value in hub.items() if value}
    path = _downloaded(repository, CONFIG_FILE, limits, hub)
    _check_is_decoder(repository, path, limits)
    config = DecoderConfig.read(path, limits)
    if fault := sharing_fault(config.backbone):
        raise CheckpointError(f"The decoder {repository} names a backbone that is not loaded: {fault}.")
    hub["revision"] = path.parent.name  # the commit: the other files are of the same one
    for name in config.weight_files:
        _downloaded(repository, name, limits, hub)
    return path.parent


def is_decoder_config(config: object) -> bool:
    """Whether the content of a `config.json` is that of a decoder; earlier ones have no model type."""
    if not (isinstance(config, dict) and isinstance(config.get("backbone"), dict)):
        return False
    return bool(config.get("model_type", DECODER_TYPE) == DECODER_TYPE)


def sharing_fault(backbone: BackboneReference) -> str | None:
    """Why the backbone of a decoder cannot be found on another machine; None if it can."""
    if backbone.checkpoint not in embedded_checkpoints() and not is_hub_id(backbone.checkpoint):
        return f"{shown(backbone.checkpoint, 200)} is neither a hub id nor an embedded model"
    if backbone.revision is not None and not _REVISION.fullmatch(backbone.revision):
        return f"{shown(backbone.revision)} is no revision of a repository"
    return None


def _check_is_decoder(repository: str, path: Path, limits: Limits) -> None:
    config = read_json(path, limits)
    if is_decoder_config(config):
        return
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type is None:
        raise CheckpointError(f"{repository} holds no decoder: its {CONFIG_FILE} names no backbone. Give another one.")
    raise CheckpointError(
        f"{repository} is a backbone of the type {shown(model_type)} and holds no decoder. Give the id of a decoder "
        "that was trained on it, or ground without one: load_grounder, or `adapters ground --model`."
    )


def _downloaded(repository: str, name: str, limits: Limits, hub: dict[str, Any]) -> Path:
    most = limits.max_config_bytes if name == CONFIG_FILE else limits.max_decoder_bytes
    size = _from_hub(repository, name, {**hub, "dry_run": True}).file_size
    if size > most:
        raise CheckpointError(
            f"{name} of {repository} has {size:,} bytes; at most {most:,} are downloaded of such a file. If you trust "
            "its author, pass limits=Limits(...) with more."
        )
    return Path(_from_hub(repository, name, hub))


def _from_hub(repository: str, name: str, options: dict[str, Any]) -> Any:
    try:
        return hf_hub_download(repository, name, **options)
    except Exception as error:
        reason = hub_reason(error, options, f"{name}, so it holds no decoder")
        raise CheckpointError(
            f"There is no decoder {repository!r}: no such folder here, and on the hub {name} cannot be downloaded: "
            f"{reason}. Give the folder of a decoder, or run `hf download {repository}` where the hub can be reached. "
            "A model without a decoder gives masks with vlm_adapters.load_grounder, or `adapters ground`."
        ) from error
