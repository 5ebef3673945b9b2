"""The plugin of the tutorial: its page shows its files, and a stranger who installs it can list, check and ground."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.testing import ALL_CHECKS

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "examples" / "write_a_plugin"
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
LABELLED = re.compile(r"^`(?P<file>[^`\n]+)`\n\n```\w+\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MOST_LINES = 120

SAVE_TINY_MODEL = """
import sys
from pathlib import Path

from vlm_adapters import GroundedVLM, load_adapter
from vlm_adapters_video_llama_3.case import load

folder = Path(sys.argv[1])
tiny = load()
tiny.model.save_pretrained(folder)
tiny.processor.save_pretrained(folder)
GroundedVLM.untrained(load_adapter(folder), base_width=8).save_pretrained(folder / "decoder")
"""


def project_files() -> dict[str, str]:
    return {
        path.relative_to(PROJECT).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(PROJECT.rglob("*"))
        if path.suffix in (".py", ".toml") and not path.is_relative_to(PROJECT / ".venv")
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the plugin is installed as a distribution of its own."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PROJECT, folder / "project")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    run([*pip, "--no-build-isolation", "--target", str(folder / "site"), str(folder / "project")], folder)
    return folder / "site"


def run(command: list[str], folder: Path, site: Path | None = None) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if site:
        environment["PYTHONPATH"] = str(site)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_shows_every_file_as_it_is() -> None:
    assert {block["file"]: block["code"] for block in LABELLED.finditer(PAGE)} == project_files()


def test_the_package_is_short() -> None:
    package = [text for name, text in project_files().items() if name.startswith("vlm_adapters_")]
    assert sum(len(text.splitlines()) for text in package) < MOST_LINES


def test_every_line_of_shell_is_covered() -> None:
    assert [line for block in SHELL.findall(PAGE) for line in block.splitlines()] == [
        "adapters scaffold video_llama_3 --out vlm-adapters-video-llama-3",  # tests/scaffold
        "cd vlm-adapters-video-llama-3",
        'pip install --editable ".[test]"',
        "adapters list",
        "adapters check video_llama_3",
        "pytest",
    ]


def test_it_is_listed_as_a_distribution_of_its_own(site: Path, tmp_path: Path) -> None:
    listed = json.loads(run(["adapters", "list", "--json"], tmp_path, site))
    assert {
        "name": "video_llama_3",
        "plugin": "video_llama_3",
        "distribution": "vlm-adapters-video-llama-3",
        "version": "0.1.0",
        "state": "ready",
        "checkpoints": ["lkhl/VideoLLaMA3-2B-Image-HF", "lkhl/VideoLLaMA3-7B-Image-HF"],
    } in listed


def test_it_passes_every_check_that_applies_to_it(site: Path, tmp_path: Path) -> None:
    results = json.loads(run(["adapters", "check", "video_llama_3", "--json"], tmp_path, site))
    others = {result["check"]: result["state"] for result in results if result["state"] != "passed"}
    of_videos = [name for name in (check.__name__ for check in ALL_CHECKS) if name.startswith("check_video_")]
    not_taken = [name for name in of_videos if name != "check_video_is_taken_or_refused"]
    assert others == dict.fromkeys([*not_taken, "check_frame_of_coordinates"], "skipped")  # nor does it point


def test_its_own_test_runs_the_suite(site: Path, tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "tests", tmp_path / "tests")
    some = "grid_shapes or orientation or rows_equal_eager"
    output = run([sys.executable, "-m", "pytest", "-W", "error", "-k", some, str(tmp_path / "tests")], tmp_path, site)
    assert f"3 passed, {len(ALL_CHECKS) - 3} deselected" in output


def test_it_grounds_an_image(site: Path, tmp_path: Path) -> None:
    scene = Scenes(1)[0]
    scene.image.save(tmp_path / "scene.png")
    run([sys.executable, "-c", SAVE_TINY_MODEL, "model"], tmp_path, site)
    phrases = [option for phrase in scene.phrases for option in ("--phrase", phrase.text)]
    command = ["adapters", "ground", "scene.png", scene.text, *phrases, "--model", "model/decoder", "--out", "out"]
    run(command, tmp_path, site)
    report = json.loads((tmp_path / "out" / "grounding.json").read_text(encoding="utf-8"))
    assert [found["text"] for found in report["phrases"]] == [phrase.text for phrase in scene.phrases]
    for index in range(len(scene.phrases)):
        with Image.open(tmp_path / "out" / f"mask_{index:02d}.png") as image:
            assert image.size == scene.image.size
    with Image.open(tmp_path / "out" / "overlay.png") as image:
        assert image.height > scene.image.height  # a legend is below the image
