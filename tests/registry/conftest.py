"""A toy model, its plugin and its checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vlm_adapters.registry import checkpoints, loading

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Site

ADAPTER = """
class ToyAdapter:
    @classmethod
    def from_pretrained(cls, checkpoint, **options):
        return checkpoint, options
"""


@pytest.fixture
def toy(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of the toy model, with its plugin installed and embedded under the alias `tiny-toy`."""
    site.add_plugin("acme-toy")
    site.add_module("toy_adapter", ADAPTER)
    directory = checkpoint_in(tmp_path / "tiny-toy")
    for module in (loading, checkpoints):
        monkeypatch.setattr(module, "embedded_checkpoints", lambda: {"tiny-toy": directory})
    return directory


def checkpoint_in(directory: Path, config: str = '{"model_type": "toy"}') -> Path:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(config, encoding="utf-8")
    return directory
