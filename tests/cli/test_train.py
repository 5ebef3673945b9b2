"""`adapters plan`, `adapters cache build` and `adapters train`, over the fake backbone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from vlm_adapters.training.recipe import recipe_names

if TYPE_CHECKING:
    from conftest import FakePlugin

Run = Callable[..., int]


@pytest.fixture
def recipe(fake: FakePlugin, tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    content = {
        "model": fake.checkpoint,
        "device": "cpu",
        "train": ["scenes:count=4,seed=3"],
        "validation": "scenes:count=2,seed=6",
        "cache": str(tmp_path / "cache"),
        "decoder": {"base_width": 2, "depth": 2, "canvas": 16},
        "epochs": 2,
        "batch_size": 2,
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_a_plan_is_close_to_what_the_cache_then_takes(
    adapters: Run, recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapters("plan", recipe, "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "cache").exists()
    assert adapters("cache", "build", recipe, "--json") == 0
    built = json.loads(capsys.readouterr().out)
    assert [one["folder"] for one in planned] == [one["folder"] for one in built]
    assert [one["samples"] for one in planned] == [one["samples"] for one in built] == [4, 2]
    for plan, cache in zip(planned, built, strict=True):
        assert plan["bytes"] == pytest.approx(cache["bytes"], rel=0.1)
        assert plan["seconds"] > 0
    assert adapters("plan", recipe) == 0
    assert capsys.readouterr().out.count("already") == 2


def test_a_recipe_is_trained_and_the_next_command_is_reported(
    adapters: Run, recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert adapters("train", recipe, "epochs=3", "--out", str(out)) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"6 steps, saved in {out}\nbest validation: mean IoU 0.")
    assert f"adapters ground IMAGE TEXT --model {out}/best" in printed.out
    assert "training: 6 of 6 steps, loss " in printed.err
    assert "cache of scenes:count=4,seed=3,first=0: 4 of 4 samples" in printed.err
    assert adapters("train", recipe, "epochs=3", "--out", str(out), "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["step"], content["total_steps"]) == (6, 6)


def test_a_mistake_in_the_validation_shows_before_anything_is_computed(
    adapters: Run, recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapters("train", recipe, "validation=scenes:cuont=2", "--out", str(tmp_path / "run")) == 1
    assert "cuont" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_the_recipes_of_the_library_are_listed(adapters: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapters("train", "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(recipe_names())
    assert adapters("train", "--list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == recipe_names()


def test_a_mistake_is_one_line_and_exit_code_1(
    subtests: pytest.Subtests, adapters: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    cases: list[tuple[list[str], str]] = [
        (["train"], "Name a recipe: one of flmm, quick, scenes,"),
        (["train", "nothing"], "There is no recipe 'nothing'"),
        (["train", "scenes", "epoch=2"], "Did you mean 'epochs'?"),
        (["train", "scenes", "train=['scenes:count=x']"], "count"),
        (
            ["cache", "build", "scenes", "cache=null"],
            "has no cache to build. Give it a folder: cache=FOLDER.",
        ),
        (["plan", "scenes", "head_profile=nowhere.json"], "No head profile can be read from nowhere.json"),
    ]
    for arguments, message in cases:
        with subtests.test(arguments=arguments):
            assert adapters(*arguments) == 1
            error = capsys.readouterr().err
            assert message in error
            assert error.count("\n") == 1


def test_what_is_not_installed_is_named(
    adapters: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for module in ("loop", "log", "events"):
        monkeypatch.delitem(sys.modules, f"vlm_adapters.training.{module}", raising=False)
    assert adapters("plan", "scenes") == 1
    assert "pip install 'vlm-adapters[train]'" in capsys.readouterr().err
