"""What several tests of the core stand on."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TOY = """
from vlm_adapters import AdapterSpec, hookimpl

@hookimpl
def adapter_specs():
    return [AdapterSpec("toy", "toy_adapter:ToyAdapter", checkpoints=("acme/toy-1b",))]
"""


class Site:
    """A folder on `sys.path` into which tests put distributions, as an installer would leave them there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.modules: set[str] = set()

    def add_module(self, module: str, source: str) -> None:
        (self.path / f"{module}.py").write_text(source, encoding="utf-8")
        self.modules.add(module)
        importlib.invalidate_caches()

    def add_plugin(self, distribution: str, source: str = TOY, *, plugin: str = "toy", version: str = "1.0") -> Path:
        """Write one distribution with one plugin; its dist-info folder is returned."""
        module = f"{distribution.replace('-', '_')}_plugin"
        self.add_module(module, source)
        info = self.path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", encoding="utf-8"
        )
        info.joinpath("entry_points.txt").write_text(f"[vlm_adapters]\n{plugin} = {module}\n", encoding="utf-8")
        importlib.invalidate_caches()
        return info


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty site folder, first on the path."""
    monkeypatch.delenv("VLM_ADAPTERS_PLUGINS", raising=False)
    folder = Site(tmp_path / "site")
    folder.path.mkdir()
    monkeypatch.syspath_prepend(str(folder.path))
    yield folder
    for module in folder.modules:
        sys.modules.pop(module, None)
