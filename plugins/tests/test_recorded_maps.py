"""The embedded backbones give, on every admitted release, the maps and hidden states that were recorded on the newest.

`python plugins/tests/test_recorded_maps.py` records them anew. The image is kept, too, for Pillow's releases draw a
scene with other pixels.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vlm_adapters import GridRequest, Prompt, load_adapter
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.registry.versions import NEWEST_RUN, versions

NAMES = sorted(embedded_checkpoints())
RECORDED = Path(__file__).parent / "recorded"
SCENE = Scenes(1, seed=HELD_OUT_SEED)[0]
CLOSE = 1e-4
"""The largest difference that is admitted, as a share of the largest value; machines differ by some 1e-6."""


def compute(name: str) -> dict[str, torch.Tensor]:
    """Every head's map of one phrase, its hidden states, and some channels of the image's, in all layers."""
    prompt = Prompt.describe(RECORDED / "scene.png", SCENE.text, [SCENE.phrases[0].text])
    adapter = load_adapter(name, device="cpu")
    layers = range(adapter.info.num_layers)
    request = GridRequest(hidden_layers=list(layers), phrase_hidden_layers=list(layers))
    grids = adapter.extract(adapter.preprocess([prompt]), request)[0][-1]
    assert grids.hidden is not None
    (phrase,) = grids.phrase_hidden
    found = {"attention": grids.attention, "hidden": grids.hidden[:, ::16], "phrase_hidden": phrase}
    return {key: tensor.contiguous() for key, tensor in found.items()}


@pytest.mark.parametrize("name", NAMES)
def test_maps_and_hidden_states_are_those_that_were_recorded(name: str) -> None:
    found = compute(name)
    with safe_open(RECORDED / f"{name}.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(found)
        for key, values in found.items():
            expected = file.get_tensor(key)
            torch.testing.assert_close(values, expected, rtol=0, atol=CLOSE * expected.abs().max().item(), msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_they_were_recorded_on_the_newest_release_that_was_run(name: str) -> None:
    with safe_open(RECORDED / f"{name}.safetensors", framework="pt") as file:
        assert file.metadata()["transformers"] == NEWEST_RUN


if __name__ == "__main__":
    SCENE.image.reduce(2).save(RECORDED / "scene.png")
    for checkpoint in NAMES:
        save_file(compute(checkpoint), RECORDED / f"{checkpoint}.safetensors", versions())
