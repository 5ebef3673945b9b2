"""Whatever a plugin does while it is listed, it is shown as broken with its distribution, and the others work on."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import DistributionFinder
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlm_adapters.registry.discovery import find_adapter, list_adapters
from vlm_adapters.registry.spec import AdapterSpec

if TYPE_CHECKING:
    from conftest import Site

HOOK = "from vlm_adapters import AdapterSpec, hookimpl\n{before}\n@hookimpl\ndef adapter_specs():\n    {body}"
ODD = """
class Odd:
    def __getattr__(self, name): raise {error}
    def __repr__(self): raise {error}
    def __str__(self): raise {error}
    def __eq__(self, other): raise {error}
    def __hash__(self): raise {error}
"""
SUBCLASS = """
class Spec(AdapterSpec):
    armed = False
    def __getattribute__(self, name):
        if name in {names!r} and type(self).armed: raise {error}
        return super().__getattribute__(name)
spec = Spec("bad", "a:B", requires=("json",))
Spec.armed = True
"""
FINDER = """
import sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "half_installed": raise {error}
sys.meta_path.insert(0, Finder)
"""
ERRORS = (
    "ImportError('half')",
    "SystemExit(3)",
    "KeyboardInterrupt",
    "RecursionError",
    "BaseException('odd')",
    "MemoryError",
)
FIELDS = list(AdapterSpec.__dataclass_fields__)


def plugins() -> dict[str, str]:
    """Sources of plugins, by what they do."""
    found = {}
    for error in ERRORS:
        found |= {
            f"raises {error} on import": f"raise {error}",
            f"raises {error} in the hook": HOOK.format(before="", body=f"raise {error}"),
            f"raises {error} late": HOOK.format(before="", body=f"yield AdapterSpec('bad', 'a:B')\n    raise {error}"),
            f"offers an object that raises {error}": HOOK.format(before=ODD.format(error=error), body="return [Odd()]"),
            f"returns an object that raises {error}": HOOK.format(before=ODD.format(error=error), body="return Odd()"),
            f"raises {error} when found": HOOK.format(
                before=FINDER.format(error=error),
                body="return [AdapterSpec('bad', 'a:B', requires=('half_installed',))]",
            ),
            f"has an error whose text raises {error}": "class E(Exception):\n    def __str__(self): "
            f"raise {error}\nraise E",
        }
        for name in FIELDS:
            before = SUBCLASS.format(names=(name,), error=error)
            found[f"raises {error} at {name}"] = HOOK.format(before=before, body="return [spec]")
    for value in (
        "None",
        "7",
        "b'bad'",
        "['bad']",
        "object()",
        "'bad\\n\\x1b[31m'",
        "''",
        "('',)",
        "(7,)",
        "'a' * 10**6",
    ):
        for name in ("name", "target", "requires", "checkpoints", "case", "extra"):
            if (name, value) in {("case", "None"), ("extra", "None")}:
                continue
            body = (
                f"spec = AdapterSpec('bad', 'a:B')\n    object.__setattr__(spec, {name!r}, {value})\n    return [spec]"
            )
            found[f"sets {name} to {value}"] = HOOK.format(before="", body=body)
    return found | {
        "never ends": HOOK.format(before="", body="while True: yield AdapterSpec('bad', 'a:B')"),
        "removes a module": "import sys\ndel sys.modules['json']\n" + HOOK.format(before="", body="return []"),
        "removes the library": HOOK.format(
            before="import sys",
            body="[sys.modules.pop(name) for name in list(sys.modules) if name.startswith('vlm_adapters')]\n"
            "    return [AdapterSpec('bad', 'a:B')]",
        ),
        "replaces itself": "import sys\nsys.modules[__name__] = 7",
        "offers a long text": HOOK.format(before="", body="return ['a' * 10**7]"),
        "offers a list of itself": HOOK.format(
            before="bomb = []\nfor _ in range(60): bomb = [bomb] * 9", body="return [bomb]"
        ),
        "raises a long text": "raise ValueError('\\x1b[31m' + 'a' * 10**7)",
    }


@pytest.mark.parametrize("source", plugins().values(), ids=plugins())
def test_a_hostile_plugin_is_listed_as_broken_and_the_others_work_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    site.add_plugin("acme-bad", source, plugin="bad")
    site.add_plugin("zeta-toy")
    (bad,) = [entry for entry in list_adapters() if entry.distribution == "acme-bad"]
    assert bad.state.startswith("broken: ")
    assert len(bad.state) < 2000
    assert bad.state.isprintable()
    assert find_adapter("toy").distribution == "zeta-toy"


def test_a_subclass_of_str_is_listed_as_its_text(site: Site) -> None:
    before = "class Text(str):\n    def __str__(self): raise ValueError\n    __repr__ = __hash__ = __format__ = __str__"
    site.add_plugin("acme-odd", HOOK.format(before=before, body="return [AdapterSpec(Text('odd'), Text('a:B'))]"))
    (entry,) = [entry for entry in list_adapters() if entry.distribution == "acme-odd"]
    assert (f"{entry.name}", type(entry.name), entry.state) == ("odd", str, "ready")


@pytest.mark.parametrize("error", [ImportError("half"), OSError(5, "disk"), RecursionError()])
def test_a_finder_that_cannot_list_is_named(site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    class HalfInstalled(DistributionFinder):
        def find_spec(self, *_: object) -> None:
            return None

        def find_distributions(self, *_: object) -> list[object]:  # type: ignore[override]
            raise error

    monkeypatch.setattr(sys, "meta_path", [HalfInstalled(), *sys.meta_path])
    site.add_plugin("zeta-toy")
    (broken,) = [entry for entry in list_adapters() if entry.distribution == "HalfInstalled"]
    assert broken.state.startswith("broken: this finder cannot list its distributions: ")
    assert find_adapter("toy").distribution == "zeta-toy"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=60), metadata=st.binary(max_size=60))
def test_metadata_of_any_bytes_never_breaks_the_list(site: Site, content: bytes, metadata: bytes) -> None:
    info = site.path / "acme_bad-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "entry_points.txt").write_bytes(b"[vlm_adapters]\n" + content)
    (info / "METADATA").write_bytes(b"Name: acme-bad\n" + metadata)
    for entry in list_adapters():
        assert entry.state.isprintable()
        assert entry.origin.isprintable()
    assert find_adapter("llava").distribution == "vlm-adapters"


def test_the_command_lists_hostile_plugins(tmp_path: Path) -> None:
    info = tmp_path / "acme_bad-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: acme-bad\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[vlm_adapters]\nbad = acme_bad\n", encoding="utf-8")
    (tmp_path / "acme_bad.py").write_text("import sys\nprint('noise')\nsys.exit(0)", encoding="utf-8")
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from vlm_adapters.cli import main; main()",
    ]
    done = subprocess.run([*command, "list", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"acme-bad", "vlm-adapters"} <= {entry["distribution"] for entry in json.loads(done.stdout)}
