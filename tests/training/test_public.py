"""The public names of the sub-package: all there, imported when they are first used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vlm_adapters import training


def test_every_public_name_resolves_and_is_shown() -> None:
    assert training.__all__ == sorted(training.__all__)
    assert all(getattr(training, name) is not None for name in training.__all__)
    assert set(training.__all__) <= set(dir(training))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        training.nothing  # noqa: B018 - the look-up is what is tested


def test_a_recipe_is_read_without_the_extra() -> None:
    script = (
        "import sys; sys.modules['accelerate'] = None; from vlm_adapters.training import Recipe; Recipe.read('flmm')"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, capture_output=True)
