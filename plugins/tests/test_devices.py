"""Nothing mixes tensors of two devices, shown without a second device: see `pretend_device.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

SCRIPT = Path(__file__).with_name("pretend_device.py")

needs_a_pretend_device = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch cannot pretend to have a device",
)


def on_the_device(*arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_no_test_of_a_plugin_sees_an_accelerator() -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


@needs_a_pretend_device
def test_what_torch_refuses_is_refused() -> None:
    cases = ["there + here", "torch.cat([there, here])", "here[there]", "there.numpy()"]
    lines = [f"    try:\n        {code}\n    except MixedDevicesError:\n        print({code!r})\n" for code in cases]
    command = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "import torch\nfrom pretend_device import DEVICE, MixedDevicesError, accelerated\n"
        "with accelerated():\n"
        "    here = torch.arange(3)\n    there = here.to(DEVICE)\n"
        "    assert (there[here] + there + torch.tensor(1)).cpu().tolist() == [1, 3, 5]\n"
    )
    done = subprocess.run([sys.executable, "-c", command + "".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == cases


@needs_a_pretend_device
@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava_next", "qwen2_5_vl"])
def test_the_suite_and_the_adapter_keep_devices_apart(name: str) -> None:
    results = on_the_device("suite", name)
    assert len(results) > 50
    assert [line for line in results if " failed " in line] == []


@needs_a_pretend_device
@pytest.mark.slow
def test_decoders_evaluation_and_training_keep_devices_apart() -> None:
    assert on_the_device("chain", "tiny-qwen2_5_vl") == ["tiny-qwen2_5_vl the same masks"]
