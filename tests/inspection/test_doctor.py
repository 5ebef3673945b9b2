"""`adapters doctor`: what is installed, missing and too old, and its exit code."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest
from typer.testing import CliRunner

from vlm_adapters.cli import app
from vlm_adapters.inspection import doctor

DECLARED = (
    "torch>=2.12.1",
    "pillow>=13.0",
    'accelerate>=1.2; extra == "train"',
    'vlm-adapters[data]; extra == "train"',
    'pycocotools>=2.0.8; extra == "data"',
    'bitsandbytes>=0.46; sys_platform == "no_such_system" and extra == "data"',
)
INSTALLED = {
    "vlm-adapters": "0.1.0",
    "torch": "2.12.1",
    "pillow": "13.0.0",
    "accelerate": "1.15.0",
    "pycocotools": "2.0.8",
}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is installed, as a test changes it."""
    found = dict(INSTALLED)

    def version(name: str) -> str:
        if name not in found:
            raise PackageNotFoundError(name)
        return found[name]

    class Metadata:
        @staticmethod
        def get_all(_: str) -> list[str]:
            return ["train", "data", "llava"]

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(doctor, "requires", lambda _: list(DECLARED))
    monkeypatch.setattr(doctor, "metadata", lambda _: Metadata)
    return found


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["doctor", *arguments])
    return done.exit_code, done.stdout


def as_json() -> tuple[int, Any]:
    code, text = run("--json")
    return code, json.loads(text)


def test_a_good_installation_has_no_faults(installed: dict[str, str]) -> None:
    assert installed
    code, report = as_json()
    assert (code, report["faults"]) == (0, [])
    assert report["extras"] == {"train": [], "data": [], "llava": []}
    assert [package["name"] for package in report["packages"]] == ["torch", "pillow", "accelerate", "pycocotools"]


@pytest.mark.parametrize(
    ("name", "number"), [("torch", "2.6.0"), ("torch", "2.12.0"), ("pillow", "12.3.0"), ("pycocotools", "2.0.7")]
)
def test_a_package_below_its_floor_is_a_fault(installed: dict[str, str], name: str, number: str) -> None:
    installed[name] = number
    code, report = as_json()
    assert code == 1
    (fault,) = report["faults"]
    assert fault.startswith(f"{name}>=")
    assert "too old" in run()[1]


@pytest.mark.parametrize("number", ["2.12.1+cpu", "2.13.0.dev20260101", "3.0"])
def test_builds_and_newer_releases_are_good(installed: dict[str, str], number: str) -> None:
    installed["torch"] = number
    assert as_json()[0] == 0


def test_a_missing_requirement_is_a_fault(installed: dict[str, str]) -> None:
    del installed["pillow"]
    code, report = as_json()
    assert (code, report["faults"]) == (1, ["pillow>=13.0"])


def test_what_an_extra_lacks_is_no_fault(installed: dict[str, str]) -> None:
    del installed["pycocotools"]
    code, report = as_json()
    assert code == 0
    assert report["extras"] == {"train": ["pycocotools"], "data": ["pycocotools"], "llava": []}
    assert "lacks pycocotools" in run()[1]


def test_a_broken_torch_is_named(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed

    def broken(_: str) -> None:
        raise ImportError("libcudart.so: cannot open")

    monkeypatch.setattr(doctor, "import_module", broken)
    code, report = as_json()
    assert code == 1
    assert report["problem"] == "ImportError: libcudart.so: cannot open"


def test_a_library_that_is_only_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "requires", missing)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "vlm-adapters is not installed" in str(done.exception)
