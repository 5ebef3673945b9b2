"""The options that say how a model is loaded reach what loads it, in every command."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from vlm_adapters.cli import app
from vlm_adapters.errors import OptionError
from vlm_adapters.grounding import load as choose
from vlm_adapters.registry import loading

COMMANDS = {
    "info": ["info", "acme/toy"],
    "probe": ["probe", "acme/toy"],
    "calibrate": ["calibrate", "acme/toy"],
    "attend": ["attend", "{image}", "a cat", "--model", "acme/toy"],
    "ground": ["ground", "{image}", "a cat", "--model", "acme/toy"],
    "evaluate": ["evaluate", "acme/toy", "scenes:count=1,seed=1", "--protocol", "packed"],
}
GIVEN = ["--device", "cuda:1", "--dtype", "bf16", "--attn-implementation", "eager", "--quantization", "nf4"]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_options_of_loading_reach_the_loader(
    command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image = tmp_path / "image.png"
    Image.new("RGB", (8, 8)).save(image)
    loaded: list[dict[str, object]] = []

    def load(_: str, **options: object) -> object:
        loaded.append(options)
        raise OptionError("that was all")

    monkeypatch.setattr(loading, "load_adapter", load)
    monkeypatch.setattr(choose, "load_grounder", load)
    done = CliRunner().invoke(app, [word.format(image=image) for word in command] + GIVEN)
    assert str(done.exception) == "that was all"
    (options,) = loaded
    expected = {"device": "cuda:1", "dtype": "bf16", "attn_implementation": "eager", "quantization_config": "nf4"}
    assert {name: options[name] for name in expected} == expected
