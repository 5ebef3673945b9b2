"""The examples for trainers run as they stand, are short, and do what they say."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from vlm_adapters import GroundedVLM, list_adapters, load_adapter
from vlm_adapters.data.formats.scenes import Scenes

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = ("plain_pytorch_loop", "discover_adapters", "attention_loss", "frozen_vlm")


@pytest.fixture
def run(pytestconfig: pytest.Config) -> Callable[[str], str]:
    """Runs an example; its warnings fail it where they fail tests."""

    def run(name: str) -> str:
        warnings = pytestconfig.getoption("pythonwarnings") or ["default"]
        command = [sys.executable, "-W", warnings[-1], str(EXAMPLES / f"{name}.py")]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout

    return run


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def numbers(pattern: str, text: str) -> list[float]:
    return [float(found) for found in re.findall(pattern + r" +(-?[\d.]+)", text)]


def test_attention_is_trained_beside_the_words_in_the_trainer_of_trl(run: Callable[[str], str]) -> None:
    pytest.importorskip("trl", reason="no dependency of the library: pip install trl")
    before, after = numbers("(?:before|after):", run("attention_loss_trl"))
    assert after > before


def test_an_answer_follows_the_region_that_attention_is_steered_to(run: Callable[[str], str]) -> None:
    (followed,) = numbers("followed", run("steer_attention"))
    assert followed >= 0.8


def test_a_model_trained_on_images_follows_a_shape_through_a_video(tmp_path: Path, capsys: Any) -> None:
    example("follow_a_shape").main(folder=str(tmp_path))
    printed = capsys.readouterr().out
    (followed,), (stayed,) = numbers("in the video", printed), numbers("first mask stayed", printed)
    assert followed > 0.6
    assert stayed < 0.3
    assert {path.name for path in tmp_path.iterdir()} == {"sheet.png", "animation.gif"}


@pytest.mark.parametrize("name", SHORT)
def test_an_example_has_fewer_than_40_lines_of_code(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, documented) and ast.get_docstring(node)
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    assert sum(bool(line.strip()) for number, line in enumerate(text.splitlines(), 1) if number not in docstrings) < 40


def test_the_loss_of_the_plain_loop_goes_down(run: Callable[[str], str]) -> None:
    losses = numbers("loss", run("plain_pytorch_loop"))
    assert len(losses) == 3
    assert losses[-1] < 0.8 * losses[0]


def test_a_trainer_finds_what_is_installed_and_sizes_its_head(run: Callable[[str], str]) -> None:
    *found, backbone, head = run("discover_adapters").splitlines()
    assert [line.split()[0] for line in found] == [entry.name for entry in list_adapters()]
    assert backbone == "tiny-llava is a llava: 48 channels, width 128"
    assert head.startswith("logits (3, 1, 16, 16)")


def test_the_backbone_is_swapped_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["discover_adapters.py", "tiny-qwen2_5_vl"])
    example("discover_adapters").main()
    assert "tiny-qwen2_5_vl is a qwen2_5_vl: 48 channels, width 128" in capsys.readouterr().out


def test_a_backbone_without_an_adapter_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["discover_adapters.py", "no-such-backbone"])
    with pytest.raises(SystemExit, match=r"^The config's backbone cannot be used: .*no-such-backbone"):
        example("discover_adapters").main()


def test_tuned_by_its_attention_a_backbone_looks_inside(run: Callable[[str], str]) -> None:
    before, after = numbers("(?:before|after):", run("attention_loss"))
    assert after > 1.4 * before


def test_the_share_inside_is_that_of_the_maps() -> None:
    adapter = load_adapter("tiny-qwen2_5_vl", device="cpu")
    scenes = Scenes(2)
    shares = example("attention_loss").share_inside(adapter, scenes)
    assert len(shares) == sum(len(scene.phrases) for scene in scenes)
    extracted = adapter.extract(adapter.preprocess([scene.prompt for scene in scenes]))
    expected = []
    for scene, (grids,) in zip(scenes, extracted, strict=True):
        maps = grids.attention[:, -2:].mean(dim=(1, 2))
        size = scene.masks.shape[1:]
        # Qwen's grid covers just the image, so placing is resizing.
        placed = functional.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0].numpy()
        expected += [one[mask].sum() / one.sum() for one, mask in zip(placed, scene.masks, strict=True)]
    assert shares.numpy() == pytest.approx(np.array(expected), abs=1e-4)


def test_accelerate_launches_a_training(tmp_path: Path) -> None:
    data = ["train=scenes:count=4,seed=3", "validation=scenes:count=2,seed=6"]
    train = ["-m", "vlm_adapters", "train", "scenes", *data, "epochs=1", "--out", str(tmp_path / "run")]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    subprocess.run([*launch, *train], cwd=tmp_path, check=True, capture_output=True, timeout=300)
    assert (tmp_path / "run" / "best").exists()


def test_losses_of_the_frozen_vlm_go_down(run: Callable[[str], str]) -> None:
    printed = run("frozen_vlm")
    losses = numbers("loss", printed)
    assert len(losses) == 10
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    assert "predict: (3, 312, 282)" in printed


def test_the_frozen_vlm_weighs_samples_by_their_phrases() -> None:
    model = example("frozen_vlm").FrozenVLM(GroundedVLM.from_pretrained("tiny-qwen2_5_vl", device="cpu"))
    scenes = [next(scene for scene in Scenes(20) if len(scene.phrases) == count) for count in (2, 4)]
    with torch.no_grad():
        both, first, second = (model.compute_loss(part) for part in (scenes, scenes[:1], scenes[1:]))
    assert list(both) == ["loss", "loss_mask", "loss_dice", "accuracy", "aiou"]
    for name, value in both.items():
        assert value.item() == pytest.approx((2 * first[name].item() + 4 * second[name].item()) / 6, abs=1e-5)
    assert both["loss"].item() == pytest.approx(both["loss_mask"].item() + both["loss_dice"].item(), abs=1e-6)
    masks = torch.from_numpy(scenes[0].masks).float()
    logits = model.predict(scenes[0])
    expected = functional.binary_cross_entropy_with_logits(logits, masks).item()
    assert first["loss_mask"].item() == pytest.approx(expected, abs=1e-6)
    found, wanted = (logits > 0).numpy(), scenes[0].masks
    ious = [(one & other).sum() / (one | other).sum() for one, other in zip(found, wanted, strict=True)]
    assert first["aiou"].item() == pytest.approx(np.mean(ious), abs=1e-5)
    assert np.mean(ious) > 0.6


def test_only_the_decoder_of_the_frozen_vlm_is_trained() -> None:
    vlm = GroundedVLM.from_pretrained("tiny-qwen2_5_vl", device="cpu")
    model = example("frozen_vlm").FrozenVLM(vlm)
    model.compute_loss(Scenes(1))["loss"].backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)
    assert {id(parameter) for parameter in trained} == {id(one) for one in vlm.decoder.unet.parameters()}
    assert not any(parameter.requires_grad for parameter in vlm.adapter.model.parameters())


def test_the_examples_use_public_names_alone() -> None:
    for path in EXAMPLES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("vlm_adapters"):
                names = {alias.name for alias in node.names}
                assert names <= set(importlib.import_module(str(node.module)).__all__), path.name


def test_a_head_of_your_own_is_trained_and_evaluated(run: Callable[[str], str]) -> None:
    assert len((EXAMPLES / "own_head.py").read_text(encoding="utf-8").splitlines()) < 60
    before, after = numbers("mean IoU", run("own_head"))
    assert before < 0.2
    assert after > 0.35
