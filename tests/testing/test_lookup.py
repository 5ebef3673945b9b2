from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vlm_adapters.errors import PluginError, UnknownAdapterError
from vlm_adapters.testing.fakes import FAKE_CASE
from vlm_adapters.testing.lookup import find_case

if TYPE_CHECKING:
    from conftest import Site

CASE = "vlm_adapters.testing.fakes:FAKE_CASE"


def test_case_of_an_installed_plugin(site: Site) -> None:
    site.add_fake(CASE)
    assert find_case("fake") is FAKE_CASE


def test_case_that_cannot_be_used_is_a_plugin_error(subtests: pytest.Subtests, site: Site) -> None:
    cases: list[tuple[str | None, str]] = [
        (None, "of acme-fake 1.0 declares no case for the adapter 'fake'"),
        ("acme.nowhere:CASE", "cannot be imported: ModuleNotFoundError: No module named 'acme'"),
        ("vlm_adapters.testing.fakes:NOTHING", "is not an AdapterCase: found None"),
        ("vlm_adapters.testing.fakes:CELL", "is not an AdapterCase: found 16"),
    ]
    for case, message in cases:
        with subtests.test(case=case):
            site.clear()
            site.add_fake(case)
            with pytest.raises(PluginError, match=message):
                find_case("fake")


def test_a_case_that_builds_another_class_than_users_load_is_a_plugin_error(site: Site) -> None:
    site.add_module("acme_other", "class Other:\n    @classmethod\n    def from_pretrained(cls, *_, **__): ...\n")
    site.add_fake(CASE, target="acme_other:Other")
    with pytest.raises(PluginError, match="builds a FakeAdapter, and users load the target 'acme_other:Other'"):
        find_case("fake")


def test_a_case_that_cannot_be_loaded_is_a_plugin_error(site: Site) -> None:
    site.add_module(
        "acme_case",
        "from vlm_adapters.testing import AdapterCase\n\n"
        "def load(**_):\n    raise NotImplementedError('Build a tiny model here.')\n\n"
        "CASE = AdapterCase('fake', load=load, expected_grids=lambda size: [])\n",
    )
    site.add_fake("acme_case:CASE")
    with pytest.raises(PluginError, match=r"cannot be loaded: NotImplementedError: Build a tiny model here\.$"):
        find_case("fake")


def test_malformed_case_breaks_the_plugin(site: Site) -> None:
    site.add_fake("vlm_adapters.testing.fakes.FAKE_CASE")
    with pytest.raises(UnknownAdapterError, match=r"Write 'package\.module:CASE'"):
        find_case("fake")
