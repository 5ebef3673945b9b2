"""What several tests of the core stand on."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks: tests, and what they start, run on the CPU everywhere
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the hub, or waits for it

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor
from torch.nn import functional

from vlm_adapters.backbone.grids import BackboneInputs, Grids, ImageGrid
from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.backbone.request import GridRequest, resolve_heads, resolve_layers
from vlm_adapters.data.sample import Sample
from vlm_adapters.prompt import Phrase, Prompt
from vlm_adapters.testing.fakes import FakeAdapter

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


FAKE = """
from vlm_adapters import AdapterSpec, hookimpl

@hookimpl
def adapter_specs():
    return [AdapterSpec("fake", {target!r}, case={case!r})]
"""
"""A plugin that offers the fake adapter."""


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

    def clear(self) -> None:
        """Uninstall everything."""
        for module in self.modules:
            sys.modules.pop(module, None)
        self.modules.clear()
        shutil.rmtree(self.path)
        self.path.mkdir()
        importlib.invalidate_caches()

    def add_fake(self, case: str | None, *, target: str = "vlm_adapters.testing.fakes:FakeAdapter") -> None:
        """Write a plugin that offers the fake adapter, with this case."""
        self.add_plugin("acme-fake", FAKE.format(target=target, case=case), plugin="fake")


FAKE_CLASS = """
from vlm_adapters.testing.fakes import FakeAdapter

class LoadedFake(FakeAdapter):
    loads = []
    build = FakeAdapter

    @classmethod
    def from_pretrained(cls, checkpoint, **options):
        cls.loads.append(options)
        return cls.build()
"""


class FakePlugin:
    """An installed plugin for the model type `fake`, and a checkpoint of that type."""

    def __init__(self, site: Site) -> None:
        site.add_module("fake_adapter", FAKE_CLASS)
        site.add_fake(None, target="fake_adapter:LoadedFake")
        self._class = importlib.import_module("fake_adapter").LoadedFake
        folder = site.path / "fake"
        folder.mkdir()
        folder.joinpath("config.json").write_text('{"model_type": "fake"}', encoding="utf-8")
        self.checkpoint = str(folder)

    def gives(self, build: Callable[[], FakeAdapter]) -> None:
        """Have checkpoints loaded by this function, instead of as a `FakeAdapter`."""
        self._class.build = staticmethod(build)

    @property
    def loads(self) -> list[dict[str, object]]:
        """The options of every load so far."""
        loads: list[dict[str, object]] = self._class.loads
        return loads


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c() -> None:
    """A shell lets the processes that it starts in the background ignore Ctrl-C, which some tests press."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _no_accelerator() -> Iterator[None]:
    """No variable hides the accelerator of a Mac, so it is hidden from this process at least."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.accelerator, "is_available", lambda: False)
        yield


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty site folder, first on the path."""
    monkeypatch.delenv("VLM_ADAPTERS_PLUGINS", raising=False)
    folder = Site(tmp_path_factory.mktemp("site"))
    monkeypatch.syspath_prepend(str(folder.path))
    yield folder
    folder.clear()


@pytest.fixture
def fake(site: Site) -> FakePlugin:
    """Installs the fake adapter, so that `load_adapter(fake.checkpoint)` finds it."""
    return FakePlugin(site)


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


CELL = 10
COLOURS = ("red", "green", "blue")


class PlantedHeads:
    """Head 2.1 looks at the colour that a phrase names; 0.0 anywhere, 0.1 everywhere, 2.0 at one corner."""

    name = "planted"
    info = BackboneInfo("planted", "acme/planted", "abc123", 3, (0, 2), 2, 8, (CELL, CELL))

    def __init__(self) -> None:
        self.requests: list[GridRequest] = []
        self.texts: list[str] = []

    def maps(self, image: Image.Image, phrase: Phrase, shape: tuple[int, int]) -> Tensor:
        """`(2, 2, h, w)` of a phrase."""
        return _maps(image, phrase, shape)

    def preprocess(self, prompts: Sequence[Prompt]) -> BackboneInputs:
        positions = tuple(tuple(torch.zeros(1, dtype=torch.long) for _ in prompt.phrases) for prompt in prompts)
        return BackboneInputs(tuple(prompts), {}, positions)

    def locate_image_tokens(self, inputs: BackboneInputs) -> list[list[ImageGrid]]:
        return [[_grid(image, i) for i, image in enumerate(prompt.images)] for prompt in inputs.prompts]

    def extract(self, inputs: BackboneInputs, request: GridRequest) -> list[list[Grids]]:
        self.requests.append(request)
        self.texts += [prompt.text for prompt in inputs.prompts]
        layers, heads = resolve_layers(request.layers, (0, 2)), resolve_heads(request.heads, 2)
        found = []
        for prompt, grids in zip(inputs.prompts, self.locate_image_tokens(inputs), strict=True):
            of_prompt = []
            for grid, image in zip(grids, prompt.images, strict=True):
                maps = torch.zeros(0, 2, 2, *grid.shape)
                if prompt.phrases:
                    maps = torch.stack([self.maps(image, phrase, grid.shape) for phrase in prompt.phrases])
                chosen = maps[:, [(0, 2).index(layer) for layer in layers]][:, :, list(heads)]
                hidden = torch.zeros(0, 8, *grid.shape)
                of_prompt.append(Grids(grid, chosen, layers, heads, tuple(range(len(maps))), hidden))
            found.append(of_prompt)
        return found


class CorneredHeads(PlantedHeads):
    """Heads 0.0 and 0.1 look at a corner each, whatever is asked; 2.0 at the colour that is named; 2.1 everywhere."""

    def maps(self, image: Image.Image, phrase: Phrase, shape: tuple[int, int]) -> Tensor:
        first, last, even = torch.zeros(shape), torch.zeros(shape), torch.full(shape, 0.9 / (shape[0] * shape[1]))
        first[0, 0] = last[-1, -1] = 0.9
        follows = _maps(image, phrase, shape)[1, 1]
        return torch.stack([first, last, 0.9 * follows / follows.sum(), even]).view(2, 2, *shape)


def _grid(image: Image.Image, index: int) -> ImageGrid:
    h, w = image.height // CELL, image.width // CELL
    return ImageGrid(torch.arange(h * w).view(h, w), (0, 0, image.width, image.height), index)


def _maps(image: Image.Image, phrase: Phrase, shape: tuple[int, int]) -> Tensor:
    """`(2, 2, h, w)`."""
    named = next((index for index, colour in enumerate(COLOURS) if colour in phrase.text), None)
    pixels = torch.from_numpy(np.array(image)).float() / 255
    colours = functional.adaptive_avg_pool2d(pixels.permute(2, 0, 1), shape)
    others = colours.mean(0) if named is None else (colours.sum(0) - colours[named]) / 2
    excess = torch.zeros(shape) if named is None else (colours[named] - others).clamp(min=0)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(len(phrase.text)))
    corner = torch.zeros(shape)
    corner[0, 0] = 1
    even = torch.ones(shape)
    maps = torch.stack([0.02 * noise, 0.8 * even, 0.01 * corner + 0.001 * even, 0.2 * even + 4 * excess + 0.01 * noise])
    maps = maps / maps[3].sum()
    return maps.view(2, 2, *shape)


@pytest.fixture
def planted() -> PlantedHeads:
    return PlantedHeads()


@pytest.fixture
def cornered() -> CorneredHeads:
    return CorneredHeads()


def _sample(index: int) -> Sample:
    """A red and a green square on black, not always in the same places."""
    boxes = [(20 + 10 * (index % 3), 10, 60, 50), (100, 40 + 10 * (index % 2), 140, 90)]
    image = Image.new("RGB", (160, 110))
    masks = np.zeros((2, 110, 160), np.bool_)
    for mask, (left, top, right, bottom), colour in zip(masks, boxes, ("#ff0000", "#00ff00"), strict=True):
        ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), colour)
        mask[top:bottom, left:right] = True
    text = "a red square and a green square"
    phrases = (Phrase.find(text, "a red square"), Phrase.find(text, "a green square"))
    name = f"squares-{index}"
    return Sample(id=name, image_id=name, text=text, phrases=phrases, image=image, masks=masks)


@pytest.fixture
def squares() -> list[Sample]:
    return [_sample(index) for index in range(4)]


def _photograph(seed: int = 0, size: tuple[int, int] = (240, 320)) -> Image.Image:
    """An image with the spectrum of a photograph: at every scale something, in every colour."""
    rng = np.random.default_rng(seed)
    across, down = np.meshgrid(np.fft.fftfreq(size[1]), np.fft.fftfreq(size[0]))
    fall = np.maximum(np.hypot(across, down), 1e-3) ** -1.3
    channels = [np.fft.ifft2(np.fft.fft2(rng.standard_normal(size)) * fall).real for _ in range(3)]
    pixels = 128 + 50 * np.stack([channel / channel.std() for channel in channels], axis=-1)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def photograph() -> Callable[..., Image.Image]:
    """Makes a photograph, by a seed and its `(H, W)`."""
    return _photograph
