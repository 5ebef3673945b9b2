"""Loading arguments that every adapter over transformers takes, whatever its family. Imports no torch."""

from __future__ import annotations

from difflib import get_close_matches

LOADER_KEYWORDS = (
    "attn_implementation",
    "device_map",
    "max_memory",
    "offload_folder",
    "quantization_config",
    "token",
    "cache_dir",
    "local_files_only",
    "subfolder",
    "limits",
    "batch_windows",
)
"""Arguments that `load_adapter` passes on to transformers, and never to the constructor of a family."""

COMMON_KEYWORDS = ("device", "dtype", "revision", "trust_remote_code", *LOADER_KEYWORDS)
"""Arguments that every adapter over transformers takes."""

NEVER_FROM_A_FILE = frozenset(
    {*COMMON_KEYWORDS, "torch_dtype", "use_safetensors", "weights_only", "code_revision", "use_auth_token", "proxies"}
)
"""Arguments that a file may not set: they could run code, send a token, or fetch other files."""

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_OTHER_NAMES = {
    "torch_dtype": "dtype",
    "load_in_4bit": "quantization_config='nf4'",
    "load_in_8bit": "quantization_config='int8'",
    "use_auth_token": "token",
}


def dtype_name(name: str) -> str:
    """The name of a dtype in torch, such as `bfloat16` for `bf16`."""
    return _DTYPES.get(name, name.removeprefix("torch."))


def unknown_option(owner: str, unknown: str, known: tuple[str, ...]) -> str:
    """Write the error message for an unknown option.

    Args:
        owner: Name of the adapter's class.
        unknown: The option.
        known: Options of the family.
    """
    near = _OTHER_NAMES.get(unknown) or next(iter(get_close_matches(unknown, (*known, *COMMON_KEYWORDS), n=1)), None)
    hint = f" Did you mean {near}?" if near else ""
    return (
        f"{owner} has no option {unknown}. Its options are: {', '.join(known) or 'none'}; every adapter takes "
        f"{', '.join(COMMON_KEYWORDS)}.{hint}"
    )
