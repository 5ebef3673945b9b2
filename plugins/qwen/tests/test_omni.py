"""A checkpoint of an Omni model, as the hub has it, gives its thinker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5OmniConfig, Qwen3OmniMoeConfig

from vlm_adapters import Prompt, TransformersBackbone, load_adapter
from vlm_adapters.testing.support import image
from vlm_adapters_qwen.tiny import qwen2_5_omni_thinker, qwen3_omni_moe_thinker


def save_whole(adapter: TransformersBackbone, config_class: Any, folder: Path) -> None:
    """Write the checkpoint of a thinker and, beside it, a weight of what speaks."""
    adapter.model.save_pretrained(folder)
    adapter.processor.save_pretrained(folder)
    config_class(thinker_config=adapter.model.config.to_dict(), enable_audio_output=False).save_pretrained(folder)
    weights = {f"thinker.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    weights["talker.model.norm.weight"] = torch.ones(4)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("tiny", "config_class"),
    [(qwen2_5_omni_thinker, Qwen2_5OmniConfig), (qwen3_omni_moe_thinker, Qwen3OmniMoeConfig)],
)
def test_the_thinker_of_a_whole_checkpoint_is_loaded(
    tiny: Callable[[], TransformersBackbone], config_class: Any, tmp_path: Path
) -> None:
    thinker = tiny()
    save_whole(thinker, config_class, tmp_path)
    loaded = load_adapter(str(tmp_path))
    assert loaded.name == thinker.name
    prompt = Prompt.describe(image((84, 112)), "a cat on a mat", ["a mat"])
    one, other = (each.extract(each.preprocess([prompt]))[0][0] for each in (thinker, loaded))
    torch.testing.assert_close(other.attention, one.attention)
