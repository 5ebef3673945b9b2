"""The commands that take many images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vlm_adapters.bulk import read_results
from vlm_adapters.data.open import open_dataset
from vlm_adapters.heads.attention import attention_maps
from vlm_adapters.prompt import Prompt
from vlm_adapters.registry.loading import load_adapter

Run = Callable[..., int]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three scenes and a damaged image."""
    folder = tmp_path_factory.mktemp("images")
    for index, scene in enumerate(open_dataset("scenes:count=3,seed=4")):
        scene.image.save(folder / f"{index}.png")
    (folder / "damaged.png").write_bytes(b"\x89PNG")
    return folder


def test_extract_says_what_failed(
    adapters: Run, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("extract", str(images), "a pink cross", "--phrase", "cross", "--layers", "0,-1", "--heads", "1")
    assert adapters(*command, "--out", str(tmp_path / "out")) == 0
    printed = capsys.readouterr().out
    assert "images 4, failed 1" in printed
    assert "'damaged.png': The image" in printed
    shapes = {item.id: row["fine.attention"].shape[:3] for item, row in read_results(tmp_path / "out")}
    assert shapes == dict.fromkeys(["0.png", "1.png", "2.png"], (1, 2, 1))


def test_hidden_states_need_no_text(adapters: Run, images: Path, tmp_path: Path) -> None:
    assert adapters("extract", str(images), "--hidden-layers", "0,-1", "--out", str(tmp_path / "out"), "--json") == 0
    rows = [row for _, row in read_results(tmp_path / "out")]
    assert [(row["fine.hidden"].shape[0], "fine.attention" in row) for row in rows] == [(2, False)] * 3


def test_ground_gives_the_masks_of_the_single_image(
    adapters: Run, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "lines.jsonl"
    (tmp_path / "0.png").write_bytes((images / "0.png").read_bytes())
    line = {"image": "0.png", "text": "a pink cross and a pink star", "phrases": ["a pink cross", "a pink star"]}
    lines.write_text(json.dumps(line) + "\n" + json.dumps({"image": "0.png", "id": "without a text"}) + "\n")
    assert adapters("ground", str(lines), "--out", str(tmp_path / "many")) == 0
    printed = capsys.readouterr().out
    assert "images 2, failed 1" in printed
    assert "There is no phrase to ground" in printed
    options = [word for phrase in line["phrases"] for word in ("--phrase", str(phrase))]
    assert adapters("ground", str(tmp_path / "0.png"), str(line["text"]), *options, "--out", str(tmp_path / "one")) == 0
    one = json.loads((tmp_path / "one" / "grounding.json").read_text())
    ((_, found),) = read_results(tmp_path / "many")
    assert [phrase["mask"] for phrase in found["phrases"]] == [phrase["mask"] for phrase in one["phrases"]]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("extract", "{images}"), "There is nothing to extract"),
        (("extract", "{images}", "--phrase", "cross"), "phrases without TEXT"),
        (("extract", "{images}", "a cross", "--layers", "first"), "--layers 'first' is not all, none, or numbers"),
        (("extract", "scenes:count=2", "a cross"), "has its own texts"),
        (("attend", "{images}"), "There is no text for the images"),
        (("ground", "{images}"), "There is no text for the images"),
        (("ground", "{images}", "a cross", "--ask", "What is it?"), "--ask and --answer are for one image"),
    ],
)
def test_mistakes_show_before_the_model(
    adapters: Run,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    message: str,
) -> None:
    words = [word.format(images=images) for word in command]
    assert adapters(*words, "--model", "nothing", "--out", str(tmp_path / "out")) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_attend_gives_the_maps_of_the_single_image(adapters: Run, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    assert adapters("attend", str(images), "a pink cross", "--heads", "2", "--out", str(tmp_path / "out")) == 0
    adapter = load_adapter("tiny-qwen2_5_vl")
    for item, row in read_results(tmp_path / "out"):
        prompt = Prompt.describe(images / item.id, "a pink cross", ["a pink cross"])
        ((maps,),) = attention_maps(adapter, [prompt])
        (found,) = row["phrases"]
        np.testing.assert_allclose(found["map"], maps.together(0).numpy(), atol=1e-4)
        assert (found["phrase"], found["start"], found["end"]) == ("a pink cross", 0, 12)
        assert found["level"] == maps.reliability[0].level
        assert [(head["layer"], head["head"]) for head in found["heads"]] == [
            (head.layer, head.head) for head in maps.ranking[0][:2]
        ]
