"""The rules that hold the library together: which way imports go, what a plugin may use, how long a file is."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import vlm_adapters

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
CORE = ROOT / "vlm_adapters"
PLUGINS = [*sorted((ROOT / "plugins").glob("*/vlm_adapters_*")), *(ROOT / "examples").glob("*/vlm_adapters_*")]

# a folder (or a file of the top level) imports from the lines above it, and from within itself
ROOMS = (
    {"errors", "limits", "progress", "reading"},
    {"pixels"},
    {"embedded", "images"},
    {"answer", "video"},
    {"message"},
    {"prompt", "geometry"},
    {"conversion"},
    {"backbone"},
    {"registry"},
    {"hf"},
    {"data"},
    {"decoder"},
    {"heads"},
    {"grounding"},
    {"evaluation"},
    {"output"},  # above evaluation: a gallery shows the records of one
    {"testing"},
    {"training", "scaffold", "discovery"},
    {"bulk", "inspection"},  # above training: a bench builds a cache
    {"web"},
    {"cli"},
    {"__main__"},
)
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}

MOST_LINES = 330
"""About 300, with room for the last touch to a file that is already at its size."""

# what a plugin may import besides the names of `vlm_adapters` itself
PUBLIC_MODULES = (
    "vlm_adapters.backbone",
    "vlm_adapters.data",
    "vlm_adapters.discovery",
    "vlm_adapters.errors",
    "vlm_adapters.geometry",
    "vlm_adapters.hf",
    "vlm_adapters.images",
    "vlm_adapters.limits",
    "vlm_adapters.prompt",
    "vlm_adapters.registry",
    "vlm_adapters.testing",
    "vlm_adapters.video",
)


def files(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Every import of a file, at whatever depth and under TYPE_CHECKING too, as module and name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == (path.suffix == ".pyi"), f"{named(path)}: write imports in full"
            module = ".".join([*path.relative_to(ROOT).parent.parts, str(node.module)]) if node.level else node.module
            yield from ((str(module), alias.name) for alias in node.names)


def modules() -> dict[str, Path]:
    """The modules of the core by their dotted names; a package that has a stub is what its stub imports."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files(CORE)}
    paths |= {name: stub for name, path in paths.items() if (stub := path.with_suffix(".pyi")).exists()}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def core_imports() -> dict[str, set[str]]:
    """Which modules of the core every module imports; the top `__init__` is a list of addresses, and left out."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        if name == "vlm_adapters":
            continue
        pairs = [pair for pair in imports(path) if pair[0].split(".")[0] == "vlm_adapters" and pair[1] != "__version__"]
        targets = {f"{module}.{inner}" if f"{module}.{inner}" in known else module for module, inner in pairs}
        found[name] = targets - {name}
    return found


def room_of(module: str) -> str:
    """The folder, or the file of the top level, that a module stands in."""
    return module.split(".")[1]


def test_every_room_has_its_line() -> None:
    assert {room_of(module) for module in core_imports()} == set(RANK)


def test_imports_go_one_way() -> None:
    pairs = [(module, target) for module, targets in core_imports().items() for target in targets]
    wrong = [(a, b) for a, b in pairs if room_of(a) != room_of(b) and RANK[room_of(a)] <= RANK[room_of(b)]]
    assert not wrong


def test_the_only_way_back_is_from_results_to_what_draws_them() -> None:
    back = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                target = ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else ""
                if target.startswith("vlm_adapters.") and RANK[room_of(name)] <= RANK[room_of(target)]:
                    back.append((name, target))
    assert back == [("vlm_adapters.grounding.display", "vlm_adapters.output")]


def test_imports_make_no_circle_anywhere() -> None:
    try:
        TopologicalSorter(core_imports()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_neither_the_core_nor_its_tests_import_a_plugin() -> None:
    found = [(named(path), module) for path in files(CORE, ROOT / "tests") for module, _ in imports(path)]
    assert not [pair for pair in found if pair[1].startswith("vlm_adapters_")]


def test_a_plugin_imports_public_names_only() -> None:
    wrong = []
    for path in files(*PLUGINS):
        for module, name in imports(path):
            if module == "vlm_adapters":
                public = name in vlm_adapters.__all__
            else:
                allowed = any(module == room or module.startswith(f"{room}.") for room in PUBLIC_MODULES)
                public = not module.startswith("vlm_adapters.") or (allowed and not name.startswith("_"))
            wrong += [] if public else [f"{named(path)}: {module} {name}"]
    assert not wrong


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


def test_every_public_name_resolves() -> None:
    assert not [name for name in vlm_adapters.__all__ if getattr(vlm_adapters, name) is None]


def test_public_names_are_sorted_and_shown() -> None:
    assert vlm_adapters.__all__ == sorted(vlm_adapters.__all__)
    assert set(vlm_adapters.__all__) <= set(dir(vlm_adapters))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        importlib.import_module("vlm_adapters").nothing  # noqa: B018 - the look-up is what is tested


def test_a_file_can_be_read_at_a_sitting() -> None:
    lengths = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files(CORE, *PLUGINS)}
    assert not {name: lines for name, lines in lengths.items() if lines > MOST_LINES}
