"""Pickles: those of Python 2 are read, and none of them can do anything."""

from __future__ import annotations

import copyreg
import datetime as dt
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from vlm_adapters.data.formats.plain_pickle import read_plain_pickle
from vlm_adapters.errors import DataError

PLAIN = [{"a": [1, -2, 10**30, 0.5, None, True], "b": ("c", "é😀"), "d": {"e": []}}]


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


class Instance:
    """Anything that is not a plain container."""


def test_plain_containers_are_read_from_every_protocol(tmp_path: Path) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "a.p").write_bytes(pickle.dumps(PLAIN, protocol))
        assert read_plain_pickle(tmp_path / "a.p") == PLAIN, protocol


def test_the_strings_of_python_2_are_text(tmp_path: Path, python2_pickle: Callable[[object, int], bytes]) -> None:
    strings: list[tuple[object, object]] = [
        (b"dog", "dog"),
        (b"caf\xc3\xa9", "café"),
        (b"caf\xe9", "café"),
        ("sofa 😀", "sofa 😀"),
        (7, 7),
    ]
    for (written, read), protocol in product(strings, [0, 2]):
        (tmp_path / "a.p").write_bytes(python2_pickle([{b"raw": written}], protocol))
        assert read_plain_pickle(tmp_path / "a.p") == [{"raw": read}], (written, protocol)


def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(
    subtests: pytest.Subtests, tmp_path: Path
) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with subtests.test(protocol=protocol):
            trace = tmp_path / f"trace{protocol}"
            hidden = [{"ref_id": 1, "sentences": [{"raw": Runs(f"touch {trace}")}]}]
            (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(hidden, protocol))
            with pytest.raises(
                DataError, match=r"refs\(unc\)\.p wants to load (posix|nt)\.system, but only plain lists"
            ):
                read_plain_pickle(tmp_path / "refs(unc).p")
            assert not trace.exists()
            pickle.loads((tmp_path / "refs(unc).p").read_bytes())  # noqa: S301 - it is the one that would have run
            assert trace.exists()


def test_whatever_would_be_imported_is_refused_by_its_name(subtests: pytest.Subtests, tmp_path: Path) -> None:
    cases = [
        (pickle.dumps([np.int64(3)], 2), "wants to load numpy"),
        (pickle.dumps({"a": [pickle.dumps, 1]}, 4), r"wants to load _?pickle\.dumps"),
        (pickle.dumps(Instance, 0), r"wants to load .*\.Instance"),
        (pickle.dumps(dt.date(2020, 1, 2), 4), r"wants to load datetime\.date"),
        (pickle.dumps(OrderedDict(a=1), 2), r"wants to load collections\.OrderedDict"),
        (pickle.dumps({1}, 2), r"wants to load (builtins|__builtin__)\.set"),
        (b"cos\nsystem\n(S'true'\ntR.", r"wants to load os\.system"),
        (b"(S'true'\nios\nsystem\n.", r"wants to load os\.system"),
        (b"(cos\nsystem\nS'true'\no.", r"wants to load os\.system"),
        (b"Pelsewhere\n.", "wants to load the external object 'elsewhere'"),
        (b"\x80\x02X\x09\x00\x00\x00elsewhereQ.", "wants to load the external object 'elsewhere'"),
    ]
    for content, message in cases:
        with subtests.test(content=content):
            (tmp_path / "a.p").write_bytes(content)
            with pytest.raises(DataError, match=message):
                read_plain_pickle(tmp_path / "a.p")


def test_the_registry_of_extensions_cannot_be_used_to_import(tmp_path: Path) -> None:
    copyreg.add_extension("os", "system", 0xEE)
    try:
        (tmp_path / "a.p").write_bytes(b"\x80\x02\x82\xee(S'true'\ntR.")
        with pytest.raises(DataError, match=r"wants to load os\.system"):
            read_plain_pickle(tmp_path / "a.p")
    finally:
        copyreg.remove_extension("os", "system", 0xEE)


def test_a_damaged_pickle_is_reported(subtests: pytest.Subtests, tmp_path: Path) -> None:
    cases = [b"", b"no pickle", pickle.dumps(PLAIN, 2)[:-5], b"\x80\x02J.", b"]q\x00}b.", b"(lp0\nS'a\n."]
    for content in cases:
        with subtests.test(content=content):
            (tmp_path / "a.p").write_bytes(content)
            with pytest.raises(DataError, match=r"a\.p is not a readable pickle: .*\. Download it again\."):
                read_plain_pickle(tmp_path / "a.p")


def test_a_missing_pickle_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.p cannot be read: No such file or directory\. Check the path\."):
        read_plain_pickle(tmp_path / "a.p")
