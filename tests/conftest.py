"""What several tests of the core stand on."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks: tests, and what they start, run on the CPU everywhere

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    TinySam = Callable[[], Sam]

SIDE, PATCH, WIDTH = 96, 16, 16
"""Of the small Segment Anything model: canvas, patch and prompts."""

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


@pytest.fixture(autouse=True, scope="session")
def _no_accelerator() -> Iterator[None]:
    """No variable hides the accelerator of a Mac, so it is hidden from this process at least."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.accelerator, "is_available", lambda: False)
        yield


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


@pytest.fixture
def tiny_sam() -> TinySam:
    """Builds one with the same random weights every time: canvas 96, features 6 x 6, masks 24 x 24, width 16."""

    def build() -> Sam:
        cells = SIDE // PATCH
        torch.manual_seed(0)
        encoder = ImageEncoderViT(
            img_size=SIDE, patch_size=PATCH, embed_dim=16, depth=1, num_heads=2, out_chans=WIDTH, use_rel_pos=True
        )
        transformer = TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=2, mlp_dim=32)
        decoder = MaskDecoder(transformer_dim=WIDTH, transformer=transformer, iou_head_hidden_dim=16)
        sam = Sam(encoder, PromptEncoder(WIDTH, (cells, cells), (SIDE, SIDE), 16), decoder)
        for parameter in sam.parameters():
            if parameter.ndim > 1:  # as initialised, a small model's masks hardly depend on its prompts
                torch.nn.init.normal_(parameter, std=0.5)
        return sam.eval()

    return build
