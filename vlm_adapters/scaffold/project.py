"""Writing the plugin project of a family."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from vlm_adapters.data.files import whole_folder
from vlm_adapters.errors import OutputError, PluginError
from vlm_adapters.registry.discovery import list_adapters, refuse_unsupported
from vlm_adapters.registry.entry import PLUGINS_VARIABLE

if TYPE_CHECKING:
    from vlm_adapters.scaffold.family import Family

_TEMPLATES = Path(__file__).parent / "templates"
_WIDTH = 88


def write_project(model_type: str, folder: Path) -> list[Path]:
    """Write a plugin project for a family, to be filled in, and return the paths of its files.

    Args:
        model_type: The `model_type` in the `config.json` of the family's checkpoints.
        folder: Folder of the project; it must not exist yet, or be empty.

    Raises:
        OutputError: The folder is not empty, or cannot be written to.
        PluginError: An adapter for the family exists, or none can be written with transformers.
        UnknownAdapterError: No adapter can be built for the family.
    """
    _check_free(folder)
    for entry in list_adapters():
        if entry.name == model_type and not entry.broken:
            raise PluginError(
                f"The {entry.origin} offers an adapter for {model_type}, and two adapters of one name clash. Use that "
                f"one, or set {PLUGINS_VARIABLE} to the plugins that should load."
            )
    refuse_unsupported(model_type)
    from vlm_adapters.scaffold.family import Family  # noqa: PLC0415 - imports transformers

    files = project_files(Family.of(model_type))
    with whole_folder(folder) as temporary:
        for name, text in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def _check_free(folder: Path) -> None:
    try:
        entries = len(list(folder.iterdir()))
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{folder} cannot be used: {error.strerror}. Give a new folder.") from error
    if entries:
        raise OutputError(f"{folder} has {entries} entries, and nothing is overwritten. Give a new folder.")


def project_files(family: Family) -> dict[str, str]:
    """The text of every file of the project, by its path within it."""
    suffix = re.sub(r"\W", "_", family.model_type)
    package = f"vlm_adapters_{suffix}"
    imports = (family.config, family.processor, "PreTrainedTokenizerFast")
    values = {
        "model_type": family.model_type,
        "package": package,
        "distribution": package.replace("_", "-"),
        "adapter": family.config.removesuffix("Config").replace("_", "") + "Adapter",
        "config": family.config,
        "processor": family.processor,
        "imports": "\n".join(f"    {name}," for name in sorted(imports, key=str.lower)),
        "tiny_config": _tiny_config(family),
        "processor_hint": _sentence(
            f"Build a small {family.processor} in tiny_processor() of case.py, with the chat template of the family's "
            f"checkpoints. It takes: {', '.join(family.processor_arguments)}.",
            8,
        ),
    }
    return {
        path.relative_to(_TEMPLATES).with_suffix("").as_posix().replace("package/", f"{package}/"): Template(
            path.read_text(encoding="utf-8")
        ).substitute(values)
        for path in sorted(_TEMPLATES.rglob("*.txt"))
    }


def _tiny_config(family: Family) -> str:
    """Source code of the entries of the tiny model's config."""
    text = ['"vocab_size": len(tokenizer)', "**TINY_TEXT"]
    if family.text is None:
        entries = [f"{line}," for line in text]
    else:
        text = [f'"model_type": "{family.text_type}"', *text]
        entries = [f'"{family.text}": {{', *(f"    {line}," for line in text), "},"]
    for name, tower in family.towers.items():
        entries += [f'"{name}": {{', *(f'    "{key}": {json.dumps(value)},' for key, value in tower.items()), "},"]
    return textwrap.indent("\n".join(entries), " " * 12)


def _sentence(text: str, indent: int) -> str:
    """Source code of a string, on as many lines as it needs."""
    pieces = textwrap.wrap(text, _WIDTH - indent - 3, drop_whitespace=False, break_on_hyphens=False)
    return "\n".join(f"{' ' * indent}{json.dumps(piece)}" for piece in pieces)
