"""The examples in docstrings: every public name has one, and all of them run."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import vlm_adapters

MARK = "hookimpl"
"""An object of pluggy without a docstring of its own; the example of `AdapterSpec` uses it."""
ROOT = Path(vlm_adapters.__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "vlm_adapters").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", [name for name in vlm_adapters.__all__ if name != MARK])
def test_a_public_name_has_an_example(name: str) -> None:
    (found,) = doctest.DocTestFinder(recurse=False).find(getattr(vlm_adapters, name), name, globs={})
    assert found.examples


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report: list[str] = []
    for example in doctest.DocTestFinder().find(importlib.import_module(module), globs={}):
        doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=report.append)
    assert not report, "".join(report)
