"""Discovery: what is listed, what is broken and why, and that nothing broken harms the rest."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING

import pytest

from vlm_adapters.errors import PluginError, UnknownAdapterError
from vlm_adapters.registry.discovery import adapter_class, find_adapter, list_adapters
from vlm_adapters.registry.entry import AdapterEntry
from vlm_adapters.registry.spec import AdapterSpec

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Site

HEAD = "from vlm_adapters import AdapterSpec, hookimpl\n"
HOOK = HEAD + "@hookimpl\ndef adapter_specs():\n    "


def entries_of(distribution: str) -> list[AdapterEntry]:
    return [entry for entry in list_adapters() if entry.distribution == distribution]


def entry_of(distribution: str) -> AdapterEntry:
    (entry,) = entries_of(distribution)
    return entry


def offering(name: str, **fields: object) -> str:
    return HOOK + f"return [AdapterSpec({name!r}, 'toy_adapter:ToyAdapter', **{fields!r})]"


def test_a_plugin_is_listed_with_its_distribution(site: Site) -> None:
    site.add_plugin("acme-toy", version="2.3")
    entry = entry_of("acme-toy")
    assert (entry.name, entry.plugin, entry.version, entry.state) == ("toy", "toy", "2.3", "ready")
    assert entry.checkpoints == ("acme/toy-1b",)


def test_a_plugin_installed_later_is_found(site: Site) -> None:
    site.add_plugin("acme-toy")
    assert entry_of("acme-toy").state == "ready"
    site.add_plugin("acme-more", offering("more"), plugin="more")
    assert entry_of("acme-more").state == "ready"


def test_a_missing_extra_is_named_as_pip_wants_it(site: Site) -> None:
    site.add_plugin("acme-toy", offering("toy", extra="big", requires=("json", "no_such_module_here")))
    assert entry_of("acme-toy").state == "needs acme-toy[big]"
    with pytest.raises(PluginError, match=r'needs acme-toy\[big\]: pip install "acme-toy\[big\]"'):
        find_adapter("toy")


def test_a_newer_transformers_that_a_family_needs_is_named(site: Site) -> None:
    site.add_plugin("acme-toy", offering("toy", min_transformers="999.1"))
    site.add_plugin("acme-more", offering("more", min_transformers="5.0"), plugin="more")
    assert entry_of("acme-toy").state == "needs transformers>=999.1"
    assert entry_of("acme-more").state == "ready"
    with pytest.raises(PluginError, match=r'needs transformers>=999\.1: pip install "transformers>=999\.1"'):
        find_adapter("toy")


def test_missing_modules_without_an_extra_are_named(site: Site) -> None:
    site.add_plugin("acme-toy", offering("toy", requires=("json", "no_such_module_here")))
    assert entry_of("acme-toy").state == "needs no_such_module_here"
    with pytest.raises(PluginError, match="install what provides no_such_module_here"):
        find_adapter("toy")


def test_a_required_module_is_not_imported(site: Site) -> None:
    site.add_module("toy_heavy", "raise RuntimeError")
    site.add_plugin("acme-toy", offering("toy", requires=("toy_heavy",)))
    assert entry_of("acme-toy").state == "ready"


def test_a_required_module_without_a_spec_counts_as_there(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "toy_stub", types.ModuleType("toy_stub"))
    site.add_plugin("acme-toy", offering("toy", requires=("toy_stub",)))
    assert entry_of("acme-toy").state == "ready"


BROKEN = {
    "raises on import": ("raise RuntimeError('no\\nluck')", "RuntimeError: no luck"),
    "exits on import": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "raises what is no Exception": ("class Odd(BaseException): ...\nraise Odd('odd')", "Odd: odd"),
    "misses a module": ("import no_such_module_here", "No module named 'no_such_module_here'"),
    "is no Python": ("def :", "SyntaxError"),
    "raises an error without words": (
        "class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute",
        "Mute",
    ),
    "has no hook": (HEAD, "offers no adapters; mark its function adapter_specs() with @hookimpl"),
    "forgets to mark the hook": (HEAD + "def adapter_specs(): return []", "mark its function adapter_specs()"),
    "misspells the hook": (HEAD + "@hookimpl\ndef adapter_spec(): return []", "the unknown hook adapter_spec;"),
    "hides a misspelt hook": (HEAD + "@hookimpl\ndef _adapter_specs(): return []", "the unknown hook _adapter_specs;"),
    "wants an argument": (HEAD + "@hookimpl\ndef adapter_specs(model): return []", "model"),
    "raises in the hook": (HOOK + "raise OSError('disk')", "OSError: disk"),
    "exits in the hook": (HOOK + "raise SystemExit", "SystemExit"),
    "returns nothing": (HOOK + "pass", "offers no adapters"),
    "returns an empty list": (HOOK + "return []", "offers no adapters"),
    "returns one spec": (HOOK + "return AdapterSpec('toy', 'a:B')", "must return an iterable of AdapterSpec"),
    "offers a string": (HOOK + "return ['toy']", "offers 'toy', a str, not an AdapterSpec"),
    "offers a class": (HOOK + "return [AdapterSpec]", "a type, not an AdapterSpec"),
    "breaks while it offers": (HOOK + "yield AdapterSpec('toy', 'a:B')\n    1 / 0", "ZeroDivisionError"),
    "malforms the name": (offering("Toy 2.5"), "The adapter name 'Toy 2.5' is malformed"),
}


def test_a_broken_plugin_is_reported_and_the_others_still_work(subtests: pytest.Subtests, site: Site) -> None:
    for name, (source, reason) in BROKEN.items():
        with subtests.test(name):
            site.clear()
            site.add_plugin("acme-bad", source, plugin="bad")
            site.add_plugin("zeta-toy")
            bad = entry_of("acme-bad")
            assert bad.state.startswith("broken: ")
            assert reason in bad.state
            assert "\n" not in bad.state
            assert (bad.name, bad.plugin, bad.version) == (None, "bad", "1.0")
            assert entry_of("zeta-toy").state == "ready"
            assert find_adapter("toy").distribution == "zeta-toy"
            with pytest.raises(PluginError, match=r"The plugin 'bad' of acme-bad 1\.0 is broken: "):
                adapter_class(bad)


def test_somebody_at_the_keyboard_can_interrupt_a_plugin(site: Site) -> None:
    site.add_plugin("acme-toy", "import signal; signal.raise_signal(signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        list_adapters()


@pytest.mark.parametrize("content", [b"[vlm_adapters]\nno equals sign", b"[vlm_adapters]\ntoy = \xff"])
def test_unreadable_metadata_is_reported_and_the_others_still_work(site: Site, content: bytes) -> None:
    info = site.add_plugin("acme-bad")
    (info / "entry_points.txt").write_bytes(content)
    site.add_plugin("zeta-toy")
    bad = entry_of("acme_bad-1.0")
    assert "broken: the metadata in" in bad.state
    assert entry_of("zeta-toy").state == "ready"


@pytest.mark.parametrize("order", [("acme-toy", "zeta-toy"), ("zeta-toy", "acme-toy")])
def test_of_two_with_one_name_the_first_by_distribution_keeps_it(site: Site, order: tuple[str, str]) -> None:
    for distribution in order:
        site.add_plugin(distribution)
    assert entry_of("acme-toy").state == "ready"
    assert entry_of("zeta-toy").state == "broken: the name 'toy' is held by the plugin 'toy' of acme-toy 1.0"
    assert entry_of("zeta-toy").name == "toy"
    assert find_adapter("toy").distribution == "acme-toy"


def test_a_built_in_adapter_keeps_its_name(site: Site) -> None:
    site.add_plugin("acme-toy")
    site.add_plugin("vlm-adapters", version="9.9")  # hides the installed one, as the first on the path does
    assert entry_of("vlm-adapters").state == "ready"
    assert entry_of("acme-toy").state == "broken: the name 'toy' is held by the plugin 'toy' of vlm-adapters 9.9"


def test_a_clash_costs_only_the_name_it_is_about(site: Site) -> None:
    site.add_plugin("acme-toy")
    both = "return [AdapterSpec(name, 'a:B') for name in ('toy', 'more')]"
    site.add_plugin("zeta-toy", HOOK + both)
    assert [(entry.name, entry.state.split(":")[0]) for entry in entries_of("zeta-toy")] == [
        ("toy", "broken"),
        ("more", "ready"),
    ]


def test_only_the_first_on_the_path_counts(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add_plugin("acme-toy", version="1.0")
    older = type(site)(tmp_path / "older")
    older.path.mkdir()
    older.add_plugin("acme-toy", version="0.1")
    monkeypatch.setattr(sys, "path", [*sys.path, str(older.path)])
    assert entry_of("acme-toy").version == "1.0"


def test_the_variable_restricts_what_loads(
    subtests: pytest.Subtests, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases: list[tuple[str, list[str]]] = [("toy", ["toy"]), (" toy , more,", ["more", "toy"]), ("", []), (" ", [])]
    site.add_plugin("acme-toy")
    site.add_plugin("acme-more", offering("more"), plugin="more")
    site.add_plugin("acme-never", "raise SystemExit", plugin="never")
    for value, plugins in cases:
        with subtests.test(value=value):
            monkeypatch.setenv("VLM_ADAPTERS_PLUGINS", value)
            assert [entry.plugin for entry in list_adapters()] == plugins
            assert "acme_never_plugin" not in sys.modules


def test_an_unknown_name_in_the_variable_is_reported(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add_plugin("acme-toy")
    monkeypatch.setenv("VLM_ADAPTERS_PLUGINS", "toy,tooy")
    ready, unknown = list_adapters()
    assert (ready.plugin, ready.state) == ("toy", "ready")
    assert unknown.plugin == "tooy"
    assert unknown.state == "broken: VLM_ADAPTERS_PLUGINS names it, but no installed distribution offers it"


def test_an_unknown_model_type_says_what_there_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add_plugin("acme-toy")
    site.add_plugin("acme-bad", "raise OSError('disk')", plugin="bad")
    monkeypatch.setenv("VLM_ADAPTERS_PLUGINS", "toy,bad")
    with pytest.raises(UnknownAdapterError) as caught:
        find_adapter("toyy")
    assert str(caught.value) == (
        "No adapter for the model type 'toyy'. Did you mean toy? Known: toy. "
        "Broken, and one of them may offer it: plugin 'bad' of acme-bad 1.0 (OSError: disk). "
        "VLM_ADAPTERS_PLUGINS='toy,bad' restricts what loads. "
        "Install a plugin that offers it, or write one: adapters scaffold toyy --out DIR."
    )


def test_the_class_is_imported_on_first_use(site: Site) -> None:
    site.add_plugin("acme-toy")
    entry = find_adapter("toy")
    assert "toy_adapter" not in sys.modules
    site.add_module("toy_adapter", "class ToyAdapter:\n    from_pretrained = classmethod(print)")
    assert adapter_class(entry).__name__ == "ToyAdapter"  # type: ignore[attr-defined]


def test_a_wrong_target_is_reported_with_its_distribution(subtests: pytest.Subtests, site: Site) -> None:
    cases: list[tuple[str | None, str]] = [
        (None, "cannot be imported: ModuleNotFoundError: No module named 'toy_adapter'"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("", "does not exist: toy_adapter has no name ToyAdapter"),
        ("ToyAdapter = 3", "is not a class, but 3"),
        ("class ToyAdapter: ...", "has no classmethod from_pretrained"),
    ]
    for source, reason in cases:
        with subtests.test(source=source):
            site.clear()
            site.add_plugin("acme-toy")
            if source is not None:
                site.add_module("toy_adapter", source)
            with pytest.raises(PluginError) as caught:
                adapter_class(find_adapter("toy"))
            assert reason in str(caught.value)
            assert "(plugin 'toy' of acme-toy 1.0)" in str(caught.value)
            assert "Update acme-toy" in str(caught.value)


def test_names_of_the_hub_are_good_names() -> None:
    for name in ["qwen2_5_vl", "phi-msft", "NVLM_D", "3m"]:
        assert AdapterSpec(name, "a.b:C").name == name, name


def test_a_malformed_spec_says_what_to_write(subtests: pytest.Subtests) -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"name": ""}, "name '' is malformed"),
        ({"name": "two words"}, "malformed"),
        ({"name": "-dash"}, "malformed"),
        ({"name": "a/b"}, "malformed"),
        ({"name": "toy\n"}, "malformed"),
        ({"name": None}, "name None is malformed"),
        ({"target": "a.b.C"}, "Write 'package.module:Class'"),
        ({"target": "a:b:C"}, "malformed"),
        ({"target": ".a:C"}, "malformed"),
        ({"target": int}, "malformed"),
        ({"case": "a.b"}, "The case 'a.b' of the adapter 'toy' is malformed. Write 'package.module:CASE'"),
        ({"wrapper": "a.b"}, "Write 'package.module:Class'"),
        (
            {"published": "a.b"},
            "The published 'a.b' of the adapter 'toy' is malformed. Write 'package.module:function'",
        ),
        ({"extra": "vlm-adapters[qwen]"}, "without brackets"),
        ({"extra": ""}, "malformed"),
        ({"requires": "json"}, "Give a tuple of top-level modules"),
        ({"requires": ["json"]}, "Give a tuple"),
        ({"requires": (3,)}, "Give a tuple"),
        ({"requires": ("os.path",)}, "without dots"),
        ({"checkpoints": "acme/toy"}, "Give a tuple of hub ids"),
        ({"checkpoints": (" ",)}, "Give a tuple of hub ids"),
        ({"image_processors": "ToyProcessor"}, "Give a tuple of names of classes"),
        ({"wrapper": "a.b.C"}, "Write 'package.module:Class'"),
        ({"architectures": ["ToyForCausalLM"]}, "Give a tuple of names of classes"),
    ]
    for fields, reason in cases:
        with (
            subtests.test(fields=fields),
            pytest.raises(PluginError, match=reason.replace("(", r"\(").replace("[", r"\[")),
        ):
            AdapterSpec(**{"name": "toy", "target": "a:C", **fields})  # type: ignore[arg-type]
