"""Published checkpoints that a plugin builds from their configurations, without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.registry.conftest import checkpoint_in
from vlm_adapters.errors import CheckpointError, PluginError
from vlm_adapters.registry.loading import load_published, published_info

if TYPE_CHECKING:
    from conftest import Site


PUBLISHING = """
from vlm_adapters import AdapterSpec, hookimpl

@hookimpl
def adapter_specs():
    ids = ("acme/toy-1b", "acme/toy-9b")
    return [AdapterSpec("toy", "toy_adapter:ToyAdapter", checkpoints=ids, published="toy_published:build")]
"""

BUILDER = "def build(checkpoint): return 'the small one' if checkpoint == 'acme/toy-1b' else None"


@pytest.fixture
def published(site: Site) -> Site:
    site.add_plugin("acme-toy", PUBLISHING)
    site.add_module("toy_published", BUILDER)
    return site


def test_a_published_checkpoint_is_built_by_its_plugin(published: Site) -> None:
    assert published
    assert load_published("acme/toy-1b") == "the small one"  # type: ignore[comparison-overlap]


def test_what_no_plugin_knows_enough_of_is_none(published: Site) -> None:
    assert published
    for name in ["acme/toy-9b", "acme/other", "toy", "nothing at all"]:
        assert load_published(name) is None, name


def test_a_directory_is_not_a_published_checkpoint(published: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint_in(published.path / "acme" / "toy-1b")
    monkeypatch.chdir(published.path)
    assert load_published("acme/toy-1b") is None


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "The published 'toy_published:build' of the adapter 'toy' (plugin 'toy' of acme-toy 1.0) cannot be"),
        ("", "does not exist: toy_published has no name build. Update acme-toy"),
        ("build = 3", "is not a function, but 3"),
    ],
)
def test_a_wrong_builder_is_reported_with_its_distribution(site: Site, source: str, reason: str) -> None:
    site.add_plugin("acme-toy", PUBLISHING)
    site.add_module("toy_published", source)
    with pytest.raises(PluginError) as caught:
        load_published("acme/toy-1b")
    assert reason in str(caught.value)


def test_a_builder_whose_needs_are_not_installed_says_what_to_install(site: Site) -> None:
    site.add_plugin("acme-toy", PUBLISHING.replace("checkpoints=", "requires=('no_such_module',), checkpoints="))
    with pytest.raises(PluginError, match="needs no_such_module"):
        load_published("acme/toy-1b")


def test_a_list_of_known_sizes_leaves_out_what_is_not_installed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_ADAPTERS_PLUGINS", "toy")
    site.add_plugin("acme-toy", PUBLISHING.replace("checkpoints=", "requires=('no_such_module',), checkpoints="))
    with pytest.raises(CheckpointError, match=r"No plugin knows the sizes of 'acme/other'.*: none\.$"):
        published_info("acme/other")
