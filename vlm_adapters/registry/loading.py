"""Loading the adapter of a checkpoint by name."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CheckpointError, OptionError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, shown
from vlm_adapters.registry.checkpoints import find_checkpoint
from vlm_adapters.registry.discovery import adapter_class, find_adapter, list_adapters, published_builder
from vlm_adapters.registry.load_options import dtype_name
from vlm_adapters.registry.versions import typed_errors

if TYPE_CHECKING:
    import torch

    from vlm_adapters.backbone.protocol import BackboneAdapter, BackboneInfo

_LOG = logging.getLogger(__name__)


def load_adapter(  # noqa: PLR0913 - what every training script passes
    name_or_path: str | os.PathLike[str],
    *,
    device: str | int | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    attn_implementation: str | Mapping[str, str] | None = None,
    device_map: str | int | torch.device | Mapping[str, str | int | torch.device] | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
    offload_folder: str | os.PathLike[str] | None = None,
    quantization_config: object | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    subfolder: str = "",
    limits: Limits | None = None,
    batch_windows: bool | None = None,
    **options: object,
) -> BackboneAdapter:
    """Load a checkpoint with the adapter for its `model_type`.

    All arguments but `device`, `dtype`, `revision` and `trust_remote_code` reach the adapter's class only if given.

    Args:
        name_or_path: An embedded checkpoint (`"tiny-qwen2_5_vl"`), a directory, or a hub id
            (`"Qwen/Qwen2.5-VL-3B-Instruct"`), tried in this order; write `./name` for a directory with the name of an
            embedded checkpoint. A directory that holds a LoRA is loaded together with its base.
        device: Device of the model, as torch names it; `"auto"` leaves it to the adapter.
        dtype: Precision of the weights, also as `"bf16"` or `"fp16"`; `"auto"` leaves it to the adapter.
        revision: Branch, tag or commit of a hub id.
        trust_remote_code: Whether code from the checkpoint may run.
        attn_implementation: Kernel of the attention, such as `"sdpa"` or `"eager"`.
        device_map: Devices of the modules of the model, or `"auto"`, instead of `device`.
        max_memory: Most bytes per device, for `device_map="auto"`.
        offload_folder: Folder for weights that the map places on `"disk"`.
        quantization_config: `"nf4"` or `"int8"` (bitsandbytes), or a quantization config of transformers.
        token: Access token for gated repositories of the hub.
        cache_dir: Folder of the files downloaded from the hub.
        local_files_only: Whether to make no request to the hub.
        subfolder: Folder within the directory or the repository.
        limits: What of the checkpoint's files and of images is accepted; None for `DEFAULT_LIMITS`.
        batch_windows: Whether windows of like size pass the vision tower together; None for the family's default.
        options: Options of the adapter, such as `min_pixels`.

    Raises:
        CheckpointError: There is no such checkpoint, or it has no readable `config.json` with a `model_type`.
        UnknownAdapterError: No installed plugin offers an adapter for it.
        PluginError: The plugin is broken or something must be installed first.
        OptionError: The adapter does not know an option, or its value cannot be used.

    Examples:
        >>> from vlm_adapters import load_adapter
        >>> adapter = load_adapter("tiny-qwen2_5_vl", device="cpu", min_pixels=200 * 200)
        >>> adapter.name, dict(adapter.info.options)["min_pixels"]
        ('qwen2_5_vl', 40000)
    """
    hub = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only or None}
    loader = {
        "attn_implementation": attn_implementation,
        "device_map": device_map,
        "max_memory": max_memory,
        "offload_folder": offload_folder,
        "quantization_config": quantization_config,
        "batch_windows": batch_windows,
        **hub,
    }
    name = model_name(name_or_path)
    folder = embedded_checkpoints().get(name, Path(name))
    if subfolder and os.path.isdir(folder):  # noqa: PTH112 - as in `find_checkpoint`
        name, subfolder = os.path.join(folder, subfolder), ""  # noqa: PTH118
    checkpoint = find_checkpoint(
        name, revision=revision, subfolder=subfolder, limits=limits or DEFAULT_LIMITS, **_given(hub)
    )
    if revision is not None and os.path.isdir(checkpoint.location):  # noqa: PTH112 - as in `find_checkpoint`
        raise CheckpointError(
            f"{name_or_path} is a folder, which has no revision {shown(revision)}. Leave the revision out."
        )
    adapter = adapter_class(find_adapter(checkpoint.model_type))
    arguments = {
        "device": device,
        "dtype": dtype_name(dtype) if isinstance(dtype, str) else dtype,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        **_given({**loader, "subfolder": subfolder or None, "limits": limits}),
        **options,
    }
    try:
        inspect.signature(adapter.from_pretrained).bind(checkpoint.location, **arguments)
    except TypeError as error:
        raise OptionError(f"{getattr(adapter, '__name__', adapter)}.from_pretrained: {error}.") from error
    _LOG.info("loading %s by the adapter %s", checkpoint.location, checkpoint.model_type)
    _LOG.debug("options of loading: %s", ", ".join(arguments))  # not their values: one may be a token
    with typed_errors(f"Loading {shown(name, 300)}", CheckpointError):
        loaded: BackboneAdapter = adapter.from_pretrained(checkpoint.location, **arguments)
    _LOG.info("loaded %s", checkpoint.location)
    return loaded


def model_name(name_or_path: str | os.PathLike[str]) -> str:
    """The name of a model as a string.

    Raises:
        CheckpointError: It is neither a string nor a path.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise CheckpointError(
            f"The name of a model is {shown(name_or_path)}, of type {type(name_or_path).__name__}. Give an embedded "
            f"model ({', '.join(embedded_checkpoints())}), a folder or a hub id."
        )
    return os.fspath(name_or_path)


def _given(options: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def load_published(name: str) -> BackboneAdapter | None:
    """Build the adapter of a published checkpoint at full size without its weights, from its plugin's files.

    The model is on the meta device: it has sizes and no values. Uses no network.

    Args:
        name: Hub id.

    Returns:
        None if no plugin has the config of this checkpoint, or if the name is that of a directory.

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
    """The `info` of a published checkpoint, without its weights.

    Args:
        name: Hub id, or name of an adapter, which stands for the first checkpoint that it supports.

    Raises:
        CheckpointError: No plugin has the config of this checkpoint.
    """
    entries = {entry.name: entry for entry in list_adapters() if entry.name and entry.checkpoints and not entry.broken}
    if adapter := load_published(entries[name].checkpoints[0] if name in entries else name):
        return adapter.info
    ready = [entry for entry in entries.values() if entry.state == "ready"]
    known = [str(entry.name) for entry in ready if load_published(entry.checkpoints[0])]
    raise CheckpointError(
        f"No plugin knows the sizes of {name!r}. Give the hub id of a checkpoint that `adapters info` shows as "
        f"published, or one of these adapters: {', '.join(known) or 'none'}."
    )
