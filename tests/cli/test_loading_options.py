"""Loading options reach the class of the adapter, in every command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from typer.testing import CliRunner

from vlm_adapters.cli import app
from vlm_adapters.errors import OptionError

if TYPE_CHECKING:
    from conftest import FakePlugin

    from vlm_adapters.testing.fakes import FakeAdapter

COMMANDS = {
    "info": ["info", "{model}"],
    "probe": ["probe", "{model}"],
    "calibrate": ["calibrate", "{model}"],
    "attend": ["attend", "{image}", "a cat", "--model", "{model}"],
    "ground": ["ground", "{image}", "a cat", "--model", "{model}"],
    "evaluate": ["evaluate", "{model}", "scenes:count=1,seed=1", "--protocol", "packed"],
}
GIVEN = ["--device", "cuda:1", "--dtype", "bf16", "--attn-implementation", "eager", "--quantization", "nf4"]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_options_of_loading_reach_the_adapter(command: list[str], fake: FakePlugin, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    Image.new("RGB", (8, 8)).save(image)

    def fail() -> FakeAdapter:
        raise OptionError("that was all")

    fake.gives(fail)
    arguments = [word.format(image=image, model=fake.checkpoint) for word in command]
    done = CliRunner().invoke(app, arguments + GIVEN)
    assert str(done.exception) == "that was all"
    (options,) = fake.loads
    expected = {"device": "cuda:1", "dtype": "bfloat16", "attn_implementation": "eager", "quantization_config": "nf4"}
    assert {name: options[name] for name in expected} == expected
