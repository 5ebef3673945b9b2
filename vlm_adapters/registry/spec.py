"""The declaration of an adapter by a plugin, made before anything slow is imported."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Literal

from vlm_adapters.errors import PluginError
from vlm_adapters.limits import shown

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_RELEASE = re.compile(r"\d+(\.\d+){0,3}")
_LONGEST = 300
_EXTRA = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True, repr=False)
class AdapterSpec:
    """One adapter that a plugin offers.

    Attributes:
        name: The `model_type` in the `config.json` of its checkpoints: letters, digits, `_` and `-`.
        target: `"module:Class"`, imported when the adapter is first used. The class has a classmethod
            `from_pretrained(checkpoint, *, device, dtype, revision, trust_remote_code, **options)`; other keywords of
            `load_adapter` reach it only if a caller gave them.
        extra: The extra of the plugin's distribution that installs what the adapter needs, if any.
        requires: Top-level modules that must be importable for it to work; they are looked for, not imported.
        min_transformers: First release of transformers that can run the family, such as `"5.20"`; None if all that the
            library admits can.
        checkpoints: Hub ids of the checkpoints that the adapter supports.
        case: `"module:CASE"`, an `AdapterCase` with which `adapters check` checks the adapter.
        image_processors: Names of the processor classes that `wrap_image_processor` wraps.
        wrapper: `"module:Class"`, the `ImageProcessorWrapper` for these classes.
        published: `"module:function"`, a function from a hub id to an adapter at full size on the meta device, without
            weights; it returns None for a checkpoint that the plugin has no config of.
        pointing: The coordinates in which its models, asked in words, answer with boxes: `"pixels"` of the resized
            image, or `"thousandths"` of its sides; None where they are not known to point.
        architectures: Names under `architectures` in a `config.json` without a `model_type`, by which its checkpoints
            are recognised then.

    Examples:
        >>> from vlm_adapters import AdapterSpec, hookimpl
        >>> @hookimpl
        ... def adapter_specs():
        ...     return [AdapterSpec("my_vlm", "my_plugin.adapter:MyBackbone")]
        >>> [spec.name for spec in adapter_specs()]
        ['my_vlm']
    """

    name: str
    target: str
    extra: str | None = None
    requires: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    case: str | None = None
    image_processors: tuple[str, ...] = ()
    wrapper: str | None = None
    published: str | None = None
    min_transformers: str | None = None
    pointing: Literal["pixels", "thousandths"] | None = None
    architectures: tuple[str, ...] = ()

    def __repr__(self) -> str:
        given = [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "name"]
        shown_fields = "".join(f", {name}={shown(value)}" for name, value in given if value)
        return f"AdapterSpec({shown(self.name)}{shown_fields})"

    def __post_init__(self) -> None:
        if not _matches(_NAME, self.name):
            raise PluginError(
                f"The adapter name {shown(self.name)} is malformed. Use the model_type of its checkpoints: "
                "letters, digits, '_' and '-', a letter or digit first."
            )
        if not _matches(_TARGET, self.target):
            raise PluginError(
                f"The target {shown(self.target)} of the adapter {self.name!r} is malformed. "
                "Write 'package.module:Class'."
            )
        if self.extra is not None and not _matches(_EXTRA, self.extra):
            raise PluginError(
                f"The extra {shown(self.extra)} of the adapter {self.name!r} is malformed. "
                "Name one extra, without brackets."
            )
        for field, form in (("case", "CASE"), ("wrapper", "Class"), ("published", "function")):
            if (address := getattr(self, field)) is not None and not _matches(_TARGET, address):
                raise PluginError(
                    f"The {field} {shown(address)} of the adapter {self.name!r} is malformed. "
                    f"Write 'package.module:{form}'."
                )
        if self.min_transformers is not None and not _matches(_RELEASE, self.min_transformers):
            raise PluginError(
                f"The field min_transformers of the adapter {self.name!r} is {shown(self.min_transformers)}. "
                'Give a release, such as "5.20".'
            )
        if self.pointing not in (None, "pixels", "thousandths"):
            raise PluginError(
                f"The field pointing of the adapter {self.name!r} is {shown(self.pointing)}. "
                'Give "pixels", "thousandths" or None.'
            )
        self._check_names("requires", "top-level modules")
        self._check_names("checkpoints", "hub ids")
        self._check_names("image_processors", "names of classes")
        self._check_names("architectures", "names of classes")
        if dotted := [module for module in self.requires if not module.isidentifier()]:
            raise PluginError(
                f"The adapter {self.name!r} requires {shown(dotted)}, which are not names of top-level modules. "
                "Give the name after 'import', without dots."
            )

    def _check_names(self, field: str, meaning: str) -> None:
        names = getattr(self, field)
        if not isinstance(names, tuple) or not all(map(_is_word, names)):
            raise PluginError(
                f"The field {field} of the adapter {self.name!r} is {shown(names)}. "
                f"Give a tuple of {meaning}, as strings."
            )


def _is_word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and bool(value.strip()) and value.isprintable()


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and pattern.fullmatch(value) is not None
