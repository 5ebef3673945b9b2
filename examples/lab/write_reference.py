"""Write docs/reference, a page per public module, which mkdocstrings fills from docstrings: `make pages` runs this."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

from report import table

import vlm_adapters

_LIBRARY = vlm_adapters.__name__
PAGES = Path(__file__).parents[2] / "docs" / "reference"

MODULES = (
    "prompt",
    "answer",
    "images",
    "video",
    "geometry",
    "backbone",
    "registry",
    "hf",
    "data",
    "decoder",
    "heads",
    "grounding",
    "output",
    "evaluation",
    "training",
    "bulk",
    "discovery",
    "testing",
    "errors",
    "limits",
)
"""In the order of the way of the data."""


def module_page(name: str) -> str:
    """The page of a public module: what it lists in `__all__`, or all that has no leading underscore."""
    module = importlib.import_module(f"vlm_adapters.{name}")
    members = (
        f"\n    options:\n      members: [{', '.join(sorted(module.__all__))}]" if hasattr(module, "__all__") else ""
    )
    return f"::: vlm_adapters.{name}{members}\n"


def index() -> str:
    """The page of the names of `vlm_adapters` itself, each with the page that describes it, and of all modules."""
    names = [(f"[`{name}`][{_home(name)}]", _summary(getattr(vlm_adapters, name))) for name in vlm_adapters.__all__]
    modules = [
        (f"[`{name}`]({name}.md)", _summary(importlib.import_module(f"vlm_adapters.{name}"))) for name in MODULES
    ]
    return f"""# Reference

What stands on these pages is public; everything else may change in any release ([Versions](../versions.md)). The pages
are made from the docstrings.

## The names of `vlm_adapters`

{table(("name", "what it is"), names)}

## Modules

{table(("module", "what is in it"), modules)}
"""


def pages() -> dict[str, str]:
    """Names and texts of all pages."""
    return {"index.md": index(), **{f"{name}.md": module_page(name) for name in MODULES}}


def _home(name: str) -> str:
    """Where a name of the top level is described: the public module that lists it."""
    room = getattr(vlm_adapters, name).__module__.split(".")[1] if name != "hookimpl" else "registry"
    return f"vlm_adapters.{room}.{name}"


def _summary(documented: object) -> str:
    doc = inspect.getdoc(documented) or ""
    return doc.split("\n\n", maxsplit=1)[0].replace("\n", " ")


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    for old in PAGES.iterdir():
        old.unlink()
    for file, text in pages().items():
        (PAGES / file).write_text(text, encoding="utf-8")
