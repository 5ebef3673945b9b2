"""The releases of transformers that the library was run on, and messages about others.

The range is open upwards: a newer release is used with one warning, and errors name both versions.
"""

from __future__ import annotations

import platform
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from vlm_adapters.errors import AdapterError, PluginError

FLOOR = "5.16.0"
"""The oldest transformers that gives the same results as the newest. Older ones have tokenizers that two threads cannot
share, other names of processors and, before 5.6, wrong positions for the images of Qwen2.5-VL."""
NEWEST_RUN = "5.24.0"
"""The newest transformers on which the conformance suite and the recorded maps were run."""
_PACKAGES = ("vlm-adapters", "torch", "transformers", "tokenizers", "huggingface-hub", "peft")


class NewerReleaseWarning(UserWarning):
    """The installed transformers is newer than any that the library was run on."""


def versions() -> dict[str, str]:
    """Versions of the library, of Python and of the packages that a result depends on. Imports none of them."""
    found = {name: _installed(name) for name in _PACKAGES}
    return {name: number for name, number in found.items() if number} | {"python": platform.python_version()}


def is_older(package: str, release: str) -> bool:
    """Whether an installed package is older than a release of it."""
    found = _installed(package)
    return found is not None and _numbers(found) < _numbers(release)


def describe(found: Mapping[str, str]) -> str:
    """Write versions in one line: `python 3.11.7, torch 2.14.1, ...`."""
    return ", ".join(f"{name} {number}" for name, number in found.items())


def check_transformers() -> None:
    """Make sure that the installed transformers is not too old, and warn once if it is newer than any that was tested.

    Raises:
        PluginError: The installed transformers is older than `FLOOR`.
    """
    found = _installed("transformers")
    if found is None:
        return  # an adapter need not use transformers
    if _numbers(found) < _numbers(FLOOR):
        raise PluginError(
            f"transformers {found} is installed, and releases older than {FLOOR} give wrong maps or none. "
            f'Install a newer one: pip install "transformers>={FLOOR}".'
        )
    if _numbers(found) > _numbers(NEWEST_RUN):
        _warn_once(
            f"transformers {found} is newer than {NEWEST_RUN}, the newest that vlm-adapters was run on "
            "(docs/compatibility.md). Check a family with `adapters check NAME`, or install "
            f"transformers=={NEWEST_RUN}."
        )


@contextmanager
def typed_errors(action: str, kind: type[AdapterError]) -> Iterator[None]:
    """Turn errors of other libraries inside the block into an error of this library that names the versions.

    An `AdapterError`, an out-of-memory error and everything that is not an `Exception` pass through unchanged.

    Args:
        action: Action of the block, as the beginning of a sentence: `"Loading tiny-llava"`.
        kind: Class of the error to raise.
    """
    try:
        yield
    except (AdapterError, MemoryError):
        raise
    except Exception as error:
        if _is_out_of_memory(error):
            raise
        message = " ".join(str(error).split())[:300].rstrip(".")
        reason = f"{type(error).__name__}: {message}" if message else type(error).__name__
        raise kind(
            f"{action} failed with {reason}. Found transformers {_installed('transformers')}; the newest that was run "
            f"is {NEWEST_RUN} (docs/compatibility.md)."
        ) from error


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _numbers(release: str) -> tuple[int, ...]:
    """Parse a release: `(5, 24, 0)` for `5.24.0` and for its pre-releases, such as `5.24.0.dev0`."""
    found = re.match(r"\d+(\.\d+)*", release)
    return tuple(map(int, found[0].split("."))) if found else ()


def _is_out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")  # without torch imported, no error of torch
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, NewerReleaseWarning, stacklevel=2)
