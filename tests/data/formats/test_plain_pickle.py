"""Pickles: those of Python 2 are read, and none of them can do anything."""

from __future__ import annotations

import copyreg
import datetime as dt
import os
import pickle
import time
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


def shared_tuples(depth: int) -> bytes:
    """A tuple that holds another twice, which holds another twice, and so on."""
    return b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (n - 1, n - 1, n) for n in range(1, depth))


BOMBS = {
    "a memo of gigabytes": b"\x80\x02]r\x00\xc2\xeb\x0b.",
    "a memo of gigabytes in text": b"(lp200000000\n.",
    "a key that takes forever": b"\x80\x02}" + shared_tuples(60) + b"K\x01s.",
    "keys that take forever": b"\x80\x02}(" + shared_tuples(60) + b"K\x01u.",
    "keys in a dict of marks": b"\x80\x02(" + shared_tuples(60) + b"K\x01d.",
    "a deep tuple as key": b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s.",
    "thirty million lists": b"\x80\x02](" + b"]" * 30_000_000 + b"e.",
    "a long number": b"\x80\x02]\x8b\x00\x00\x10\x00" + b"\x7f" * 2**20 + b"a.",
    "five thousand digits": b"(lI" + b"9" * 5000 + b"\na.",
    "a bytearray": b"\x80\x05\x96" + b"\xff" * 7 + b"\x0f.",
    "an endless text": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x0f.",
    "a set": b"\x80\x04\x8f.",
    "copies": b"\x80\x02]" + b"2a" * 10 + b".",
}


def test_a_bomb_is_refused_at_once(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for name, content in BOMBS.items():
        with subtests.test(name):
            (tmp_path / "a.p").write_bytes(content)
            start = time.process_time()
            message = r"a\.p (is not a readable pickle|has a tuple as the key of a dict)"
            with pytest.raises(DataError, match=message) as caught:
                read_plain_pickle(tmp_path / "a.p")
            assert time.process_time() - start < 5
            assert len(str(caught.value)) < 500


def test_shared_tuples_that_are_values_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.p").write_bytes(b"\x80\x02](" + shared_tuples(60) + b"e.")
    found = read_plain_pickle(tmp_path / "a.p")
    assert isinstance(found, list)
    assert found[-1][0] is found[-1][1]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_not_a_file_is_not_opened(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "a.p")
    with pytest.raises(DataError, match="not a regular file"):
        read_plain_pickle(tmp_path / "a.p")


def test_a_missing_pickle_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.p cannot be read: No such file or directory\. Check the path\."):
        read_plain_pickle(tmp_path / "a.p")
