"""Loading with transformers: the caller's options decide, not the settings in a checkpoint's files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoProcessor,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.hub import cached_file

from vlm_adapters.errors import AdapterError, CheckpointError, LoadingWarning, OptionError
from vlm_adapters.hf.lora import add_lora
from vlm_adapters.hf.placement import resolve_device, resolve_dtype
from vlm_adapters.hf.sizes import check_normaliser, no_larger_than_its_files
from vlm_adapters.limits import DEFAULT_LIMITS, Limits
from vlm_adapters.registry.checkpoint_files import check_config, check_folder
from vlm_adapters.registry.checkpoints import LoraFolder
from vlm_adapters.registry.versions import NEWEST_RUN, is_older, typed_errors

_HUB_KEYWORDS = ("token", "cache_dir", "local_files_only", "subfolder")
_FLASH_PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
_NEUTRAL = {"output_attentions": False, "output_hidden_states": False, "return_dict": True}
"""Values of the settings of a config.json that change what a pass returns."""
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_LOADS_SHARED_WEIGHTS = "1.15"
_FAILURES = (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError)


@dataclass(frozen=True)
class Pretrained:
    """A loaded checkpoint.

    Attributes:
        model: The model, with all its weights.
        processor: The processor of the checkpoint.
        revision: The commit on the hub; None for a folder.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    revision: str | None


@dataclass(frozen=True)
class Placement:
    """The device and form in which weights are loaded.

    Attributes:
        device: Device to move the loaded model to; None where a device map or a quantiser places it.
        on_cpu: Whether no part of the model is on an accelerator.
        options: Arguments for `from_pretrained` of transformers.
    """

    device: torch.device | None
    on_cpu: bool
    options: Mapping[str, Any]

    @classmethod
    def of(
        cls, device: str | int | torch.device, dtype: str | torch.dtype, loader: Mapping[str, Any], *, quantised: bool
    ) -> Placement:
        """Resolve the caller's options.

        Args:
            device: A device, as `resolve_device` takes it.
            dtype: A dtype, as `resolve_dtype` takes it.
            loader: Those of `LOADER_KEYWORDS` that the caller gave.
            quantised: Whether the checkpoint itself is quantised.

        Raises:
            OptionError: The options contradict each other, or need a package that is not installed.
        """
        mapped = {name: loader[name] for name in ("device_map", "max_memory", "offload_folder") if name in loader}
        if mapped and "device_map" not in mapped:
            raise OptionError(f"{next(iter(mapped))} needs a device_map. Give one, such as device_map='auto'.")
        if mapped and device != "auto":
            raise OptionError(f"Both device={device!r} and device_map place the model. Give one of them.")
        target = resolve_device(device)
        devices = _devices_of(mapped["device_map"]) if mapped else [target]
        on_cpu = all(each.type == "cpu" for each in devices)
        options: dict[str, Any] = {"dtype": resolve_dtype(dtype, on_cpu=on_cpu)}
        if "quantization_config" in loader:
            options["quantization_config"] = _quantization(loader["quantization_config"], options["dtype"])
        if quantised or "quantization_config" in loader:
            mapped.setdefault("device_map", {"": target})
        if mapped and not find_spec("accelerate"):
            raise OptionError(
                "device_map and quantization_config need accelerate, which is not installed: "
                "pip install 'vlm-adapters[train]'."
            )
        if isinstance(mapped.get("device_map"), Mapping):
            _check_offloading(mapped["device_map"])
        return cls(None if mapped else target, on_cpu, options | mapped)


def load_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | int | torch.device,
    dtype: str | torch.dtype,
    revision: str | None,
    trust_remote_code: bool,
    loader: Mapping[str, Any],
) -> Pretrained:
    """Load a model and its processor; for a LoRA folder, the base with the LoRA in its layers.

    Args:
        name_or_path: Hub name or directory.
        device: A device, as `resolve_device` takes it.
        dtype: A dtype, as `resolve_dtype` takes it.
        revision: Commit, tag or branch on the hub.
        trust_remote_code: Whether code that the checkpoint brings may run.
        loader: Those of `LOADER_KEYWORDS` that the caller gave, and `auto_model`, the name of a class of transformers.

    Raises:
        CheckpointError: The checkpoint is missing or incomplete.
        OptionError: An option cannot be used.
    """
    lora = LoraFolder.read(Path(name_or_path))
    limits: Limits = loader.get("limits", DEFAULT_LIMITS)
    hub: dict[str, Any] = {name: loader[name] for name in _HUB_KEYWORDS if name in loader}
    hub |= {"revision": lora.base_revision if lora else revision, "trust_remote_code": trust_remote_code}
    Placement.of(device, dtype, loader, quantised=False)  # before anything is read, so that mistakes show at once
    source = lora.base if lora else os.fspath(name_or_path)
    with typed_errors(f"Loading {source}", CheckpointError):
        try:
            folder = _folder(source, hub)
            check_folder(folder, limits)
            content = check_config(folder / "config.json", limits)
            is_named = isinstance(content, dict) and "model_type" in content
            config = loader["config_class"].from_pretrained(source, output_attentions=False, **hub)
            processor = AutoProcessor.from_pretrained(source, **({} if is_named else {"config": config}), **hub)
            check_normaliser(getattr(processor, "tokenizer", None), limits)
            quantised = getattr(config, "quantization_config", None) is not None
            placement = Placement.of(device, dtype, loader, quantised=quantised)
            with no_larger_than_its_files(folder):
                loading = placement, loader.get("attn_implementation"), hub
                model = _model(getattr(transformers, loader["auto_model"]), source, config, *loading)
        except (AdapterError, torch.OutOfMemoryError):
            raise
        except _FAILURES as error:
            raise _failure(source, loader, error) from error
    _forget_generation_settings(model)
    model = model if placement.device is None else model.to(placement.device)  # type: ignore[arg-type]  # `to` of transformers is typed narrowly
    if lora:
        add_lora(model, lora)
        return Pretrained(model, processor, None)
    commit = getattr(model.config, "_commit_hash", None) or revision  # a branch moves, a commit stays
    return Pretrained(model, processor, commit)


def _folder(source: str, hub: Mapping[str, Any]) -> Path:
    """The folder of a checkpoint's files; of a hub's repository, that in the local cache."""
    if os.path.isdir(source):  # noqa: PTH112 - as in `find_checkpoint`
        return Path(source, hub.get("subfolder", ""))
    named = {name: hub[name] for name in ("revision", *_HUB_KEYWORDS) if name in hub}
    return Path(str(cached_file(source, "config.json", **named))).parent


def _model(
    auto_model: Any, source: str, config: PreTrainedConfig, placement: Placement, kernel: Any, hub: Mapping[str, Any]
) -> PreTrainedModel:
    """Load the model with all its weights; warn if another kernel runs than its config names."""
    unusable = _without_settings(config, placement, kernel)
    options = dict(placement.options) | ({"attn_implementation": kernel} if kernel else {})
    loaded: Any = auto_model.from_pretrained(
        source, config=config, use_safetensors=True, output_loading_info=True, **options, **hub
    )
    model: PreTrainedModel = loaded[0]
    _check_offloading(getattr(model, "hf_device_map", {}))  # the map that "auto" chose for the memory it found
    if missing := sorted(loaded[1]["missing_keys"]):  # transformers would fill them with random values
        raise CheckpointError(
            f"The checkpoint {source} lacks {len(missing)} of its weights, among them {missing[0]}. Download it again."
        )
    if unusable:
        used = model.config._attn_implementation  # noqa: SLF001 - transformers has no public reader
        warnings.warn(
            f"config.json of {source} names the attention kernel {', '.join(unusable)}, which is not available; "
            f"{used} is used instead.",
            LoadingWarning,
            stacklevel=5,
        )
    return model


def _devices_of(device_map: Any) -> list[torch.device]:
    """The devices that a map names; a strategy such as `"auto"` means the accelerator, or the CPU without one."""
    values = list(device_map.values()) if isinstance(device_map, Mapping) else [device_map]
    strategies = ("auto", "balanced", "balanced_low_0", "sequential")
    return [
        torch.device("cpu") if each == "disk" else resolve_device("auto" if each in strategies else each)
        for each in values
    ]


def _check_offloading(device_map: Mapping[str, object]) -> None:
    """Refuse weights on the disk if accelerate would load wrong ones for layers that share weights."""
    if "disk" in device_map.values() and is_older("accelerate", _LOADS_SHARED_WEIGHTS):
        raise OptionError(
            f"accelerate {version('accelerate')} cannot load shared weights from the disk. Install "
            f"accelerate>={_LOADS_SHARED_WEIGHTS}, or place no part of the model on the disk."
        )


def _quantization(config: Any, dtype: str | torch.dtype) -> Any:
    """The quantization config of transformers; `"nf4"` and `"int8"` mean that of bitsandbytes."""
    if not isinstance(config, str):
        return config
    if config not in ("nf4", "int8"):
        raise OptionError(f"Unknown quantization {config!r}. Use nf4, int8, or a quantization config of transformers.")
    if not find_spec("bitsandbytes"):
        raise OptionError(
            f"quantization {config!r} needs bitsandbytes, which is not installed: pip install bitsandbytes."
        )
    if config == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = dtype if isinstance(dtype, torch.dtype) else torch.bfloat16
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def _configs(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """A config and all configs inside it."""
    yield config
    for name in config.sub_configs:
        if (inner := getattr(config, name, None)) is not None:
            yield from _configs(inner)


def _without_settings(config: PreTrainedConfig, placement: Placement, kernel: object) -> list[str]:
    """Reset the settings of a config that are the caller's to decide; return the kernels that cannot be used."""
    unusable = []
    for each in _configs(config):
        named = each._attn_implementation  # noqa: SLF001 - transformers has no public reader
        if named is not None and (kernel or not _can_run(named, placement)):
            each._attn_implementation = None  # noqa: SLF001 - nor a public writer before the model exists
            unusable.append(str(named))
        for name, value in _NEUTRAL.items():
            setattr(each, name, value)
        if hasattr(each, "_experts_implementation"):
            each._experts_implementation = None  # noqa: SLF001 - as above
        if hasattr(each, "use_cache"):
            each.use_cache = True
    return [] if kernel else sorted(set(unusable))


def _can_run(kernel: object, placement: Placement) -> bool:
    """Whether a kernel that a file names is installed; one on the hub is code, which a file may not run."""
    if kernel in ("eager", "sdpa"):
        return True
    if not isinstance(kernel, str) or kernel not in ALL_ATTENTION_FUNCTIONS.valid_keys():
        return False
    if not kernel.startswith("flash_attention"):
        return True
    return not placement.on_cpu and find_spec(_FLASH_PACKAGES.get(kernel, kernel)) is not None


def _forget_generation_settings(model: PreTrainedModel) -> None:
    """Drop all settings of a generation_config.json but ids: it may set sampling, beams, or other results."""
    if (config := getattr(model, "generation_config", None)) is not None:
        ids = {name: getattr(config, name, None) for name in _IDS}
        model.generation_config = GenerationConfig(**{name: value for name, value in ids.items() if value is not None})


def _failure(source: str, loader: Mapping[str, Any], error: Exception) -> CheckpointError | OptionError:
    message = " ".join(str(error).split())[:300].rstrip(".!") or type(error).__name__
    if isinstance(error, ImportError | ValueError):
        for name in ("attn_implementation", "quantization_config"):
            if name in loader:
                return OptionError(
                    f"The checkpoint {source} cannot be loaded with {name}={str(loader[name])[:100]}: {message}. "
                    f"Leave {name} out, or install what it needs."
                )
    return CheckpointError(
        f"The checkpoint {source} cannot be loaded: {message}. "
        "Check that its files are complete (config, processor, tokenizer, *.safetensors). "
        f"Found transformers {version('transformers')}; the newest that was run is {NEWEST_RUN}."
    )
