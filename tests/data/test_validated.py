"""The first mistake of a file as a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError, field_validator

from vlm_adapters.data.validated import Mistake, first_mistake, read_model
from vlm_adapters.errors import CacheError, CheckpointError
from vlm_adapters.limits import did_you_mean


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    depth: PositiveInt = 1

    @field_validator("depth")
    @classmethod
    def _even(cls, depth: int) -> int:
        if depth % 2:
            raise ValueError("depth is odd")
        return depth


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: PositiveInt
    width: PositiveInt
    part: Part = Part(depth=2)


def mistake_in(content: str) -> Mistake:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate_json(content)
    return first_mistake(caught.value)


def test_a_mistake_has_its_key_and_value() -> None:
    mistake = mistake_in('{"format": 1, "width": 1, "part": {"depth": -3}}')
    assert mistake == ("part.depth", "Input should be greater than 0", "greater_than", -3)
    assert str(mistake) == "part.depth: Input should be greater than 0"


def test_a_validator_of_ours_speaks_for_itself() -> None:
    assert str(mistake_in('{"format": 1, "width": 1, "part": {"depth": 3}}')) == "part.depth: depth is odd"


def test_what_is_not_json_has_no_key() -> None:
    assert str(mistake_in("{")).startswith("Invalid JSON: ")


def test_a_misspelt_key_is_reported_before_the_missing_one() -> None:
    assert str(mistake_in('{"format": 1, "witdh": 3}')) == "witdh: Extra inputs are not permitted"


def test_a_wrong_format_is_reported_before_the_keys_of_that_format() -> None:
    assert mistake_in('{"format": 0, "height": 3}').key == "format"


def test_a_similar_word_is_suggested() -> None:
    assert did_you_mean("witdh", Settings.model_fields) == " Did you mean 'width'?"
    assert did_you_mean("colour", Settings.model_fields) == ""


def test_a_file_that_fits_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"format": 1, "width": 5}', encoding="utf-8")
    read = read_model(tmp_path / "a.json", Settings, what="plan", error=CacheError, remedy="Make one.")
    assert read == Settings(format=1, width=5)


def test_a_file_that_does_not_fit_is_the_error_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"format": 1}', encoding="utf-8")
    with pytest.raises(CacheError, match=r"^/.*a\.json is not a plan: width: Field required\. Make one\.$"):
        read_model(tmp_path / "a.json", Settings, what="plan", error=CacheError, remedy="Make one.")


def test_a_missing_file_is_the_error_asked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^No plan can be read from .*a\.json: No such file.*\. Make one\.$"):
        read_model(tmp_path / "a.json", Settings, what="plan", error=CheckpointError, remedy="Make one.")
