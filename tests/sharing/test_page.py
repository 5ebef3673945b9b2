"""The blocks of docs/sharing.md that speak to the hub, run against the stand-in."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vlm_adapters import GroundedVLM, evaluate
from vlm_adapters.cli import main
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.evaluation import EvaluationSettings, open_for_protocol

if TYPE_CHECKING:
    from conftest import Hub

PAGE = Path(__file__).parents[2] / "docs" / "sharing.md"


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_the_page_can_be_followed(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, push, load, of_transformers = re.findall(
        r"^```text\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    monkeypatch.chdir(tmp_path)
    shutil.copytree(embedded_checkpoints()["tiny-llava"] / "decoder", tmp_path / "run" / "best")
    names: dict[str, Any] = {"vlm": GroundedVLM.from_pretrained("tiny-llava")}
    scenes = open_for_protocol("scenes:count=2,seed=4", "packed")
    card = evaluate(names["vlm"], scenes, EvaluationSettings(protocol="packed"), tmp_path / "evaluation")

    monkeypatch.setattr("sys.argv", shlex.split(command))
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    by_command = hub.files("owner/decoder")
    page = by_command["README.md"].decode()
    assert f"value: {card.number('all', 'mask', 'mIoU').value:.4f}" in page
    assert "| mIoU | " in page

    exec(push, names)  # noqa: S102 - it is our own page
    assert hub.files("owner/decoder")["model.safetensors"] == by_command["model.safetensors"]
    assert "### all: " in hub.files("owner/decoder")["README.md"].decode()
    hub.branches["owner/decoder"]["v1.0"] = hub.branches["owner/decoder"]["main"]
    exec(load, names)  # noqa: S102
    exec(of_transformers, names)  # noqa: S102
    scene = scenes[0]
    expected = names["vlm"].ground(scene.image, scene.text, [phrase.text for phrase in scene.phrases])
    found = names["ground"](scene.image, text=scene.text, phrases=[phrase.text for phrase in scene.phrases])
    assert [tuple(phrase["box"].values()) for phrase in found] == [phrase.box for phrase in expected.phrases]
