"""The notebook runs as it stands, cell after cell in one process, and shows what it promises."""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from vlm_adapters import Grounding
from vlm_adapters.errors import UnlikeSceneWarning
from vlm_adapters.output import Attention

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = {cell["id"]: "".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"}


def value_of(source: str, names: dict[str, Any]) -> object:
    """Run a cell as Jupyter does; gives the value of its last expression."""
    *body, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        exec(compile(source, "<cell>", "exec"), names)  # noqa: S102 - the notebook's own cells
        return None
    exec(compile(ast.Module(body, []), "<cell>", "exec"), names)  # noqa: S102
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)  # noqa: S307


@pytest.mark.slow
@pytest.mark.filterwarnings(f"error::{UnlikeSceneWarning.__module__}.{UnlikeSceneWarning.__name__}")
def test_every_cell_runs_after_those_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = {cell: value_of(source, names) for cell, source in CODE.items()}
    assert isinstance(shown["look"], Attention)
    for cell in ("ground", "chat", "train"):
        assert isinstance(shown[cell], Grounding), cell
    assert all(found.box for found in names["grounding"])
    assert names["turn"].groundings[0].answer.ids


def test_it_is_a_notebook_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)
    assert not [cell["id"] for cell in CELLS if cell.get("outputs")]
    assert NOTEBOOK.stat().st_size < 20_000


def test_it_uses_public_names_alone() -> None:
    for source in CODE.values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("vlm_adapters"):
                assert {alias.name for alias in node.names} <= set(importlib.import_module(str(node.module)).__all__)
