"""One line of the list of adapters, and plain texts made of what a plugin says."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from vlm_adapters.errors import AdapterError, PluginError
from vlm_adapters.registry.spec import AdapterSpec

PLUGINS_VARIABLE = "VLM_ADAPTERS_PLUGINS"
"""Environment variable that restricts what loads: names of entry points, separated by commas; empty for none."""
_LONGEST = 500


@dataclass(frozen=True)
class AdapterEntry:
    """One line of the list of adapters: an adapter, or a plugin that is broken before it offers one.

    Attributes:
        plugin: Name of the entry point.
        distribution: Name of the distribution that installed it; `None` if it is not installed.
        version: Version of the distribution.
        spec: The plugin's declaration; `None` if the plugin broke before it declared one.
        needs: What must be installed first: `"vlm-adapters[qwen]"`, `"transformers>=5.20"`, or modules if the spec
            names no extra.
        broken: Reason why it cannot be used, in one line.
    """

    plugin: str
    distribution: str | None = None
    version: str | None = None
    spec: AdapterSpec | None = None
    needs: str | None = None
    broken: str | None = None

    @property
    def name(self) -> str | None:
        """The `model_type` of the adapter; `None` for a plugin that broke before it declared one."""
        return self.spec.name if self.spec else None

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Hub ids of the checkpoints that the adapter supports."""
        return self.spec.checkpoints if self.spec else ()

    @property
    def state(self) -> str:
        """`"ready"`, `"needs vlm-adapters[qwen]"` or `"broken: why"`."""
        if self.broken:
            return f"broken: {self.broken}"
        return f"needs {self.needs}" if self.needs else "ready"

    @property
    def origin(self) -> str:
        """Plugin, distribution and version as text, for messages."""
        return f"plugin {self.plugin!r} of {self.distribution or 'no distribution'} {self.version or ''}".rstrip()

    def ready_spec(self) -> AdapterSpec:
        """The spec, if the adapter can be used.

        Raises:
            PluginError: The plugin is broken, or something must be installed first.
        """
        if self.broken or not self.spec:
            raise PluginError(
                f"The {self.origin} is broken: {self.broken}. Fix or remove it, or leave it out of {PLUGINS_VARIABLE}."
            )
        if self.needs:
            is_requirement = self.spec.extra or ">=" in self.needs
            remedy = f'pip install "{self.needs}"' if is_requirement else f"install what provides {self.needs}"
            raise PluginError(f"The adapter {self.name!r} ({self.origin}) needs {self.needs}: {remedy}.")
        return self.spec


def plain(text: object) -> str:
    """A text of a plugin on one line, bounded, without control characters."""
    words = " ".join(str.__str__(text).split()) if isinstance(text, str) else type(text).__name__
    shown = "".join(
        character if character.isprintable() else f"\\x{ord(character):02x}" for character in words[:_LONGEST]
    )
    return shown if len(words) <= _LONGEST else f"{shown}..."


def reason_of(error: BaseException) -> str:
    """An error of a plugin on one line; its text is code of the plugin, which may fail as well."""
    try:
        lines = [str(error)] if isinstance(error, AdapterError) else traceback.format_exception_only(error)
    except BaseException:  # noqa: BLE001 - whatever the plugin does when it is asked for its text
        lines = [f"{type(error).__name__}, whose text cannot be made"]
    return plain(" ".join(lines))
