"""The rules that hold the library together: which way imports go, what a plugin may use, how long a file is."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import vlm_adapters

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
CORE = ROOT / "vlm_adapters"
PLUGINS = [*sorted((ROOT / "plugins").glob("*/vlm_adapters_*")), *(ROOT / "examples").glob("*/vlm_adapters_*")]

# a room imports from the rooms above it, and from its own line
ROOMS = (
    {"errors", "unsupported", "load_options", "versions"},
    {"files", "coco"},
    {"spec", "images", "embedded"},
    {"hookspecs", "prompt", "request", "placement", "wrappers"},
    {"backbone", "abilities"},
    {"registry", "view"},
    {"checkpoints", "image_processor"},
    {"loading", "kernels", "language_model"},
    {"chat", "hidden", "rows", "byte_tokenizer"},
    {"capture"},
    {"extraction", "published", "lora"},
    {"pretrained"},
    {"transformers_backbone"},
    {"data"},
    {"decoder"},
    {"evaluation", "testing"},
    {"render", "probe", "bench", "scaffold"},
    {"exports", "gallery", "training"},
    {"cli", "web"},
    {"__main__"},
)
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}

MOST_LINES = 330
"""About 300, with room for the last touch to a file that is already at its size."""

# what a plugin may import besides the names of `vlm_adapters` itself
PUBLIC_MODULES = (
    "vlm_adapters.backbone",
    "vlm_adapters.capture",
    "vlm_adapters.data",
    "vlm_adapters.errors",
    "vlm_adapters.images",
    "vlm_adapters.prompt",
    "vlm_adapters.published",
    "vlm_adapters.request",
    "vlm_adapters.testing",
    "vlm_adapters.transformers_backbone",
)


def files(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Every import of a file that runs, at whatever depth, as module and name (empty for a plain import)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{named(path)}: write imports in full"
            yield from ((str(node.module), alias.name) for alias in node.names)


def room_of(module: str, name: str) -> str:
    """The room behind an import: `from vlm_adapters import errors` and `from vlm_adapters.errors import X` alike."""
    return name if module == "vlm_adapters" else module.split(".")[1]


@pytest.mark.parametrize(
    "path", [path for path in files(CORE) if path.parent != CORE or path.stem != "__init__"], ids=named
)
def test_imports_go_one_way(path: Path) -> None:
    room = path.relative_to(CORE).parts[0].removesuffix(".py")
    assert room in RANK, f"{named(path)}: say in ROOMS where this room stands"
    for module, name in imports(path):
        if module.split(".")[0] != "vlm_adapters" or name == "__version__":
            continue
        other = room_of(module, name)
        assert other in RANK, f"{named(path)} imports {module} {name}: import from the room that defines it"
        assert other == room or RANK[other] <= RANK[room], f"{named(path)} imports {other}, which stands below it"


@pytest.mark.parametrize("path", files(CORE), ids=named)
def test_the_core_imports_no_plugin(path: Path) -> None:
    assert not [module for module, _ in imports(path) if module.startswith("vlm_adapters_")]


@pytest.mark.parametrize("path", files(ROOT / "tests"), ids=named)
def test_the_tests_of_the_core_import_no_plugin(path: Path) -> None:
    assert not [module for module, _ in imports(path) if module.startswith("vlm_adapters_")]


@pytest.mark.parametrize("path", files(*PLUGINS), ids=named)
def test_a_plugin_imports_public_names_only(path: Path) -> None:
    for module, name in imports(path):
        if module == "vlm_adapters":
            assert name in vlm_adapters.__all__, f"{named(path)}: vlm_adapters has no public name {name}"
        elif module.startswith("vlm_adapters."):
            public = any(module == allowed or module.startswith(f"{allowed}.") for allowed in PUBLIC_MODULES)
            assert public, f"{named(path)}: {module} is not public"
            assert not name.startswith("_"), f"{named(path)}: {module}.{name} is private"


@pytest.mark.parametrize("plugin", PLUGINS, ids=named)
def test_a_plugin_is_declared_without_torch(plugin: Path) -> None:
    assert loaded_by(f"import {plugin.name}", path=plugin.parent) == set()


def test_the_library_is_imported_without_torch() -> None:
    assert loaded_by("import vlm_adapters; vlm_adapters.list_adapters(); vlm_adapters.AdapterSpec") == set()


def loaded_by(statement: str, path: Path = ROOT) -> set[str]:
    """Which heavy modules a statement loads in a fresh process."""
    script = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(path)!r}]
{statement}
print(*{{"torch", "transformers", "numpy"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", vlm_adapters.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(vlm_adapters, name) is not None


def test_public_names_are_sorted_and_shown() -> None:
    assert vlm_adapters.__all__ == sorted(vlm_adapters.__all__)
    assert set(vlm_adapters.__all__) <= set(dir(vlm_adapters))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        importlib.import_module("vlm_adapters").nothing  # noqa: B018 - the look-up is what is tested


@pytest.mark.parametrize("path", files(CORE, *PLUGINS), ids=named)
def test_a_file_can_be_read_at_a_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
