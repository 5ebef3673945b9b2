"""`adapters list`, as a stranger runs it: in a process of its own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import transformers

import vlm_adapters.cli as command_line
from vlm_adapters.errors import AdapterError

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Site

RUN = "from vlm_adapters.cli import main; main()"


def adapters(*arguments: str, path: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **variables}
    environment.pop("VLM_ADAPTERS_PLUGINS", None) if "VLM_ADAPTERS_PLUGINS" not in variables else None
    if path:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, "-c", RUN, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, encoding="utf-8")


def test_json_has_the_documented_keys(site: Site) -> None:
    site.add_plugin("acme-toy", version="2.3")
    done = adapters("list", "--json", path=site.path, VLM_ADAPTERS_PLUGINS="toy,gone")
    assert done.returncode == 0
    assert json.loads(done.stdout) == [
        {
            "name": "toy",
            "plugin": "toy",
            "distribution": "acme-toy",
            "version": "2.3",
            "state": "ready",
            "checkpoints": ["acme/toy-1b"],
        },
        {
            "name": None,
            "plugin": "gone",
            "distribution": None,
            "version": None,
            "state": "broken: VLM_ADAPTERS_PLUGINS names it, but no installed distribution offers it",
            "checkpoints": [],
        },
    ]


def test_a_plugin_that_prints_does_not_spoil_the_json(site: Site) -> None:
    site.add_plugin("acme-toy", "print('hello')")
    done = adapters("list", "--json", path=site.path, VLM_ADAPTERS_PLUGINS="toy")
    assert [entry["distribution"] for entry in json.loads(done.stdout)] == ["acme-toy"]


def test_the_table_fits_80_columns_and_says_what_is_broken(site: Site) -> None:
    checkpoints = tuple(f"Qwen/Qwen2.5-VL-{size}B-Instruct" for size in (3, 72))
    source = f"""
from vlm_adapters import AdapterSpec, hookimpl
@hookimpl
def adapter_specs():
    return [AdapterSpec("qwen2_5_vl", "a:B", extra="qwen", requires=("no_such_module",), checkpoints={checkpoints})]
"""
    site.add_plugin("vlm-adapters", source, plugin="qwen", version="0.1.0")
    site.add_plugin("acme-bad", "raise OSError('[bold]disk')", plugin="bad")
    done = adapters("list", path=site.path)
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert lines[0].split() == ["name", "plugin", "distribution", "state", "checkpoints"]
    assert lines[-1] == "broken: plugin 'bad' of acme-bad 1.0: OSError: [bold]disk"
    assert all(len(line) <= 80 for line in lines)
    for whole in ("qwen2_5_vl", "vlm-adapters[qwen]", checkpoints[0], "and 1 more"):
        assert whole in done.stdout


def test_having_no_plugins_is_reported() -> None:
    assert adapters("list", VLM_ADAPTERS_PLUGINS="").stdout == "No plugin is installed or allowed to load.\n"
    assert json.loads(adapters("list", "--json", VLM_ADAPTERS_PLUGINS="").stdout) == []


def test_nothing_heavy_is_loaded() -> None:
    script = f"""
import platform
import subprocess
import sys
sys.argv = ["adapters", "list"]
try:
    {RUN}
except SystemExit:
    heavy = {{"torch", "torchvision", "transformers", "numpy", "PIL", "pydantic", "huggingface_hub"}}
    print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_version_is_that_of_the_distribution_and_of_what_results_depend_on(site: Site) -> None:
    site.add_plugin("vlm-adapters", version="9.9")
    done = adapters("--version", path=site.path)
    first, *others = done.stdout.splitlines()
    assert (done.returncode, first) == (0, "vlm-adapters 9.9")
    assert f"transformers {transformers.__version__}" in others
    assert f"python {platform.python_version()}" in others


def test_versions_are_printed_without_importing_what_they_are_of() -> None:
    script = f"import sys; sys.argv = ['adapters', '--version']\ntry:\n    {RUN}\nexcept SystemExit:\n    pass\n"
    script += "assert not {'torch', 'transformers', 'tokenizers', 'peft'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)


def test_help_names_every_command() -> None:
    done = adapters("--help")
    assert done.returncode == 0
    assert all(f" {name} " in done.stdout for name in command_line.COMMANDS)


def test_a_wrong_use_is_one_line_too(subtests: pytest.Subtests) -> None:
    cases: list[tuple[list[str], str]] = [
        (["lits"], "No such command 'lits'. Did you mean 'list'? See `adapters --help`."),
        (["list", "--nosuch"], "No such option: --nosuch. See `adapters list --help`."),
        (["ground", "a.png", "a", "red", "circle"], "(red circle)"),
        (["demo", "--scene", "-1"], "Invalid value for '--scene'"),
    ]
    for arguments, message in cases:
        with subtests.test(arguments=arguments):
            done = adapters(*arguments)
            assert done.returncode == 2
            assert done.stderr.startswith("error: ")
            assert message in done.stderr
            assert len(done.stderr.splitlines()) == 1


def test_no_command_shows_the_help() -> None:
    done = adapters()
    assert done.returncode == 0
    assert "ground" in done.stdout


def test_an_error_of_the_user_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AdapterError("It broke\n  [here].")

    monkeypatch.setattr(command_line, "app", fail)
    with pytest.raises(SystemExit) as caught:
        command_line.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: It broke [here].\n"


PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "acme-second"
version = "4.2"

[project.entry-points.vlm_adapters]
second = "acme_second"
"""
PACKAGE = """
from vlm_adapters import AdapterSpec, hookimpl

@hookimpl
def adapter_specs():
    return [AdapterSpec("second", "acme_second.adapter:SecondAdapter")]
"""


def test_a_really_installed_second_distribution_is_found(tmp_path: Path) -> None:
    project, target = tmp_path / "project", tmp_path / "target"
    (project / "acme_second").mkdir(parents=True)
    (project / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (project / "acme_second" / "__init__.py").write_text(PACKAGE, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    command = [*pip, "--no-build-isolation", "--target", str(target), str(project)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed = json.loads(adapters("list", "--json", path=target).stdout)
    assert {
        "name": "second",
        "plugin": "second",
        "distribution": "acme-second",
        "version": "4.2",
        "state": "ready",
        "checkpoints": [],
    } in listed


def test_all_names_the_families_that_cannot_be_run(site: Site) -> None:
    site.add_plugin("acme-toy")
    done = adapters("list", "--all", "--json", path=site.path, VLM_ADAPTERS_PLUGINS="toy")
    states = {entry["name"]: entry["state"] for entry in json.loads(done.stdout)}
    assert states["toy"] == "ready"
    assert states["cogvlm2"].startswith("unsupported: remote code only")
    assert "cogvlm2 (THUDM/cogvlm2" in adapters("list", "--all", path=site.path).stdout
    assert "cogvlm2" not in adapters("list", path=site.path).stdout
