"""The command line, run in the tests' own process."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from vlm_adapters.cli import main


@pytest.fixture(scope="session")
def adapters() -> Callable[..., int]:
    """Runs the command line; gives its exit code."""

    def run(*arguments: str) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["adapters", *arguments])
            with pytest.raises(SystemExit) as stop:
                main()
        return int(stop.value.code or 0)

    return run
