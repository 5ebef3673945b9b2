"""The examples in the docstrings of the public names."""

from __future__ import annotations

import doctest
from typing import TYPE_CHECKING

import pytest

import vlm_adapters

if TYPE_CHECKING:
    from pathlib import Path

MARK = "hookimpl"
"""An object of pluggy without a docstring of its own; the example of `AdapterSpec` uses it."""


@pytest.mark.parametrize("name", [name for name in vlm_adapters.__all__ if name != MARK])
def test_the_example_of_a_public_name_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = getattr(vlm_adapters, name)
    (example,) = doctest.DocTestFinder(recurse=False).find(shown, name, globs={})
    assert example.examples, f"{name} has no example"
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=report.append)
    assert not report, "".join(report)
