"""What commands print with `--json` is what `adapters schema` says, key by key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from vlm_adapters.cli.results import PRINTED, schema_of
from vlm_adapters.data.formats.scenes import Scenes

Run = Callable[..., int]
SET = "scenes:count=2,seed=5"
CACHED = f"scenes train={SET} validation=null cache=OUT"
COMMANDS = {
    "list": "list --all",
    "info": "info tiny-llava",
    "info, an adapter": "info llava",
    "info, what fits": "info tiny-llava --device-memory 8GiB",
    "ground": "ground IMAGE a-circle -o OUT",
    "ground, many": f"ground {SET} -o OUT",
    "chat": "chat IMAGE --ask What? -o OUT --max-new-tokens 6",
    "attend": "attend IMAGE a-circle -o OUT",
    "extract": f"extract {SET} -o OUT",
    "evaluate": f"evaluate tiny-llava {SET} --protocol packed -o OUT",
    "calibrate": "calibrate tiny-llava --samples 2 -o OUT",
    "probe": "probe tiny-llava",
    "check": "check llava --only check_orientation",
    "check, all of a kind": "check gone",
    "discover": "discover tiny-llava --size 60x40",
    "data check": f"data check {SET}",
    "plan": CACHED.replace("scenes", "plan scenes --samples 1", 1),
    "cache build": f"cache build {CACHED}",
    "train": f"train scenes cache=null train={SET} validation=null epochs=1 decoder.base_width=4 -o OUT",
    "train, the list": "train --list",
    "bench": "bench --parts rows --layers 1 --heads 2 --length 64 --rows 2 --repeats 1 --seconds 0",
    "doctor": "doctor",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_what_its_schema_allows(
    name: str, adapters: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Scenes(1)[0].image.save(tmp_path / "scene.png")
    paths = {"IMAGE": str(tmp_path / "scene.png"), "OUT": str(tmp_path / "out"), "cache=OUT": f"cache={tmp_path}"}
    code = adapters(*(paths.get(word, word) for word in COMMANDS[name].split()), "--json")
    printed = json.loads(capsys.readouterr().out)
    assert code in (0, 1)
    schema = schema_of("error" if "error" in printed else name.partition(",")[0])
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(printed)
    assert ("error" in printed) == (name == "check, all of a kind")


def test_every_schema_is_tried() -> None:
    assert {name.partition(",")[0] for name in COMMANDS} | {"error"} == set(PRINTED)


def test_a_schema_allows_no_other_keys() -> None:
    listed: dict[str, Any] = dict.fromkeys(("name", "plugin", "distribution", "version"))
    listed |= {"state": "ready", "checkpoints": []}
    validator = Draft202012Validator(schema_of("list"))
    validator.validate([listed])
    for wrong in ({**listed, "more": 1}, {key: value for key, value in listed.items() if key != "state"}):
        with pytest.raises(ValidationError):
            validator.validate([wrong])


def test_the_command_prints_the_schema(adapters: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapters("schema", "data", "check") == 0
    assert json.loads(capsys.readouterr().out) == schema_of("data check")
    assert adapters("schema") == 0
    assert capsys.readouterr().out.splitlines() == list(PRINTED)
    assert adapters("schema", "grond") == 1
    assert "Did you mean 'ground'?" in capsys.readouterr().err
