"""Writing a plugin of data: layouts that were discovered, and the conformance suite as their test."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from vlm_adapters.data.files import whole_folder
from vlm_adapters.discovery.found import FoundLayouts
from vlm_adapters.errors import OutputError

_TEMPLATES = Path(__file__).parent / "templates"


def check_free(folder: Path) -> None:
    """Make sure that a folder can become that of a project.

    Raises:
        OutputError: It is not empty, or is not a folder.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputError(f"{folder} is not an empty folder, and nothing is overwritten. Give a new folder.")


def write_plugin(found: FoundLayouts, checkpoint: str, folder: Path) -> list[Path]:
    """Write the plugin project, and return the paths of its files.

    Args:
        found: What was discovered.
        checkpoint: Folder or hub id of the checkpoint that was probed.
        folder: Folder of the project; it must not exist yet, or be empty.

    Raises:
        OutputError: The folder is not empty, or cannot be written to.
    """
    package = f"vlm_adapters_{re.sub(r'[^a-z0-9]+', '_', found.model_type.lower())}"
    values = {
        "model_type": found.model_type,
        "package": package,
        "distribution": package.replace("_", "-"),
        "checkpoint": repr(str(Path(checkpoint).resolve()) if Path(checkpoint).is_dir() else checkpoint),
        "grid_names": repr(found.grid_names),
    }
    files = {
        path.relative_to(_TEMPLATES).with_suffix("").as_posix().replace("package/", f"{package}/"): Template(
            path.read_text(encoding="utf-8")
        ).substitute(values)
        for path in sorted(_TEMPLATES.rglob("*.txt"))
    }
    files[f"{package}/layouts.json"] = found.to_json()
    with whole_folder(folder) as temporary:
        for name, text in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return [folder / name for name in files]
