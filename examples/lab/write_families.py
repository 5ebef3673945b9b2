"""Write docs/families: a page per plugin, from its README, its declarations and tiny random models of its families.

`make pages` runs this. A page says what the README of the plugin says, and shows how each family lays an image out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from report import table

from vlm_adapters import AdapterSpec, BackboneAdapter, Prompt, list_adapters, open_dataset
from vlm_adapters.output import grid_drawing
from vlm_adapters.testing import find_case
from vlm_adapters.testing.matrix import table as matrix

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "families"
SCENE = "scenes:count=1,seed=2"
POINTS = {None: "", "pixels": "pixels of the resized image", "thousandths": "thousandths of the image"}

LAYOUTS = """## How an image becomes tokens

One image as the tiny random models of the conformance suite see it; numbers are positions in the sequence. Published
checkpoints have more and smaller cells: `adapters info CHECKPOINT --image 640x480` counts them, without weights."""


def declared() -> dict[str, list[AdapterSpec]]:
    """Plugins of this distribution, and what each offers."""
    entries = [entry for entry in list_adapters() if entry.distribution == "vlm-adapters"]
    return {
        plugin: [entry.spec for entry in group if entry.spec is not None]
        for plugin, group in groupby(entries, lambda entry: entry.plugin)
    }


def drawings(specs: Sequence[AdapterSpec]) -> dict[str, list[str]]:
    """Drawings of the layouts of a plugin's adapters, and which adapters each holds for."""
    prompt = Prompt.describe(open_dataset(SCENE)[0].image, "a blue square", ["a blue square"])
    found: dict[str, list[str]] = {}
    for spec in specs:
        adapter: BackboneAdapter = find_case(spec.name).load()
        (grids,) = adapter.locate_image_tokens(adapter.preprocess([prompt]))
        found.setdefault(grid_drawing(prompt.images[0], grids), []).append(spec.name)
    return found


def page(plugin: str, specs: Sequence[AdapterSpec], pictures: Mapping[str, Sequence[str]]) -> str:
    """The page of a plugin.

    Args:
        plugin: Name of its entry point, and of its folder.
        specs: What it offers.
        pictures: File of a drawing -> the adapters that it holds for.
    """
    readme = (ROOT / "plugins" / plugin / "README.md").read_text(encoding="utf-8")
    _, text = readme.split("\n\n", 1)
    text = text.replace("](../../docs/", "](../").strip()
    title = re.split(r" for `vlm-adapters`", text, maxsplit=1)[0]
    drawn = "\n\n".join(f"{_codes(names)}:\n\n![The grids of {names[0]}]({file})" for file, names in pictures.items())
    rows = [(_code(spec.name), _needs(spec), POINTS[spec.pointing], _codes(spec.checkpoints)) for spec in specs]
    support = json.loads((ROOT / "plugins" / "support.json").read_text(encoding="utf-8"))["adapters"]
    reported = matrix({spec.name: support[spec.name] for spec in specs})
    return f"""<!-- `make pages` writes this from plugins/{plugin}/README.md and the declarations of the plugin. -->

# {title}

{text}

{LAYOUTS}

{drawn}

## Checkpoints

{table(("adapter", "needs", "writes boxes in", "checkpoints"), rows)}

## What the conformance suite reported

[Families](../families.md) has the versions, and the same of all others.

{reported}
"""


def _code(name: str) -> str:
    return f"`{name}`"


def _codes(names: Sequence[str]) -> str:
    return ", ".join(map(_code, names))


def _needs(spec: AdapterSpec) -> str:
    release = f", transformers {spec.min_transformers}" if spec.min_transformers else ""
    return f"`vlm-adapters[{spec.extra}]`{release}" if spec.extra else f"`vlm-adapters`{release}"


def files_of(plugin: str, specs: Sequence[AdapterSpec]) -> dict[str, str]:
    """Names and texts of all files of a plugin: its page and its drawings."""
    drawn = drawings(specs)
    names = {drawing: f"{plugin}-{adapters[0]}.svg" for drawing, adapters in drawn.items()}
    pictures = {names[drawing]: adapters for drawing, adapters in drawn.items()}
    return {f"{plugin}.md": page(plugin, specs, pictures), **{name: drawing for drawing, name in names.items()}}


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    for old in PAGES.iterdir():
        old.unlink()
    for each, offered in declared().items():
        for name, text in files_of(each, offered).items():
            (PAGES / name).write_text(text, encoding="utf-8")
