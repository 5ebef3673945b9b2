"""A run that was interrupted anywhere is resumed, with any number of processes, and ends with the same records."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.evaluation.conftest import ColourGrounder
from vlm_adapters.data.ahead import map_ahead
from vlm_adapters.data.dataset import Dataset, Problem
from vlm_adapters.data.sealed import sealed
from vlm_adapters.errors import DataError, OutputError
from vlm_adapters.evaluation.fingerprint import RunFingerprint
from vlm_adapters.evaluation.partial_results import PartialResults, merge
from vlm_adapters.evaluation.run import Evaluation
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.testing.fakes import FakeAdapter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vlm_adapters.evaluation.record import Record
    from vlm_adapters.grounding.base import Grounder
    from vlm_adapters.prompt import Prompt

SquaresOf = Callable[..., Dataset]

FINGERPRINT = RunFingerprint(
    model="m",
    checkpoint="acme/m",
    revision="abc",
    options={"max_pixels": 100},
    method="colours",
    digests={"decoder/model.safetensors": "00"},
    data="squares:count=7",
    data_fingerprint="00",
    samples=7,
    protocol="packed",
    sentences=None,
    batch_size=2,
    device="cpu",
    dtype="float32",
    versions={"torch": "2"},
)


@pytest.fixture
def evaluation(grounder: Grounder, squares: SquaresOf) -> Evaluation:
    return Evaluation(grounder, squares(7, broken=[3]), "packed", 2)


def work(evaluation: Evaluation, folder: Path, process: int = 0, count: int = 1, *, most: int = 99) -> None:
    """Do a process's share, or its first batches."""
    results = PartialResults(folder, FINGERPRINT)
    done = results.batches()
    left = [number for number in evaluation.batch_numbers if number % count == process and number not in done]
    for _ in results.append(process, map(evaluation.batch, left[:most])):
        pass


def with_room(room: int) -> Callable[..., Any]:
    """`Path.open`, whose unbuffered files write short where a file would be longer, as a full disk does."""
    plain = Path.open

    class Short:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: bytes) -> int:
            left = max(0, room - self.file.tell())
            written: int = self.file.write(content[:left]) if left else 0
            return written

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    def opened(self: Path, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        file = plain(self, mode, buffering, **options)
        return Short(file) if buffering == 0 else file

    return opened


def outcome(folder: Path) -> tuple[list[Record], list[Problem]]:
    return merge(PartialResults(folder, FINGERPRINT).batches(), 7)


def test_every_sample_occurs_once_in_order_and_broken_ones_are_listed(evaluation: Evaluation, tmp_path: Path) -> None:
    work(evaluation, tmp_path)
    records, skipped = outcome(tmp_path)
    assert [record.index for record in records] == [0, 0, 1, 1, 2, 2, 4, 4, 5, 5, 6, 6]
    assert [record.phrase_id for record in records[:3]] == ["0/red", "0/green", "1/red"]
    assert skipped == [Problem("squares.jsonl:4", "Its mask is torn.")]


def test_several_processes_give_what_one_gives(evaluation: Evaluation, tmp_path: Path) -> None:
    work(evaluation, tmp_path / "one")
    for process in (2, 0, 1):
        work(evaluation, tmp_path / "three", process, 3)
    assert len(list((tmp_path / "three").iterdir())) == 3
    assert outcome(tmp_path / "three") == outcome(tmp_path / "one")


def test_what_is_done_is_not_done_again(evaluation: Evaluation, tmp_path: Path, grounder: Grounder) -> None:
    work(evaluation, tmp_path, most=3)
    before = len(grounder.texts)
    work(evaluation, tmp_path)
    assert len(grounder.texts) == before + 1
    work(evaluation, tmp_path)
    assert len(grounder.texts) == before + 1


def test_the_number_of_processes_may_change(evaluation: Evaluation, tmp_path: Path) -> None:
    work(evaluation, tmp_path / "one")
    work(evaluation, tmp_path / "other", 1, 2, most=1)
    work(evaluation, tmp_path / "other", 0, 3)
    work(evaluation, tmp_path / "other", 0, 1)
    assert outcome(tmp_path / "other") == outcome(tmp_path / "one")


@given(st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_is_cut_off_anywhere_is_completed(
    evaluation: Evaluation, tmp_path: Path, data: st.DataObject
) -> None:
    work(evaluation, tmp_path / "complete")
    (complete,) = (tmp_path / "complete").iterdir()
    content = complete.read_bytes()
    cut = tmp_path / "cut"
    cut.mkdir(exist_ok=True)
    (cut / complete.name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    work(evaluation, cut)
    assert (cut / complete.name).read_bytes() == content


def test_characters_that_end_lines_elsewhere_end_none_here(evaluation: Evaluation, tmp_path: Path) -> None:
    batch = evaluation.batch(0)
    strange = replace(batch.records[0], words="a\u2028b\u0085c\rd\ne\x0bf")
    results = PartialResults(tmp_path, FINGERPRINT)
    list(results.append(0, [replace(batch, records=(strange,))]))
    assert results.batches()[0].records == (strange,)


def test_the_results_of_a_different_run_are_refused(evaluation: Evaluation, tmp_path: Path) -> None:
    work(evaluation, tmp_path, most=1)
    changes: list[tuple[dict[str, object], str]] = [
        ({"protocol": "isolated"}, "protocol: 'packed' there, 'isolated' here"),
        ({"digests": {"decoder/model.safetensors": "01"}}, "digests: {'decoder/model.safetensors': '00'} there, {"),
        ({"data_fingerprint": "01"}, "data_fingerprint: '00' there, '01' here"),
        ({"batch_size": 4}, "batch_size: 2 there, 4 here"),
        ({"batch_size": 4, "dtype": "float64"}, "batch_size: 2 there, 4 here; dtype: 'float32' there, 'float64' here"),
    ]
    for changed, message in changes:
        with pytest.raises(OutputError) as error:
            PartialResults(tmp_path, replace(FINGERPRINT, **changed))
        assert f"process-000.jsonl belongs to a different run: {message}" in str(error.value)
        assert f"Give another folder (--out), or remove {tmp_path}." in str(error.value)


def test_a_missing_batch_is_reported(evaluation: Evaluation, tmp_path: Path) -> None:
    work(evaluation, tmp_path, most=3)
    with pytest.raises(OutputError, match="hold 6 samples, 6 of them distinct, and the data set has 7"):
        outcome(tmp_path)


def test_a_batch_that_was_done_twice_counts_once_if_it_is_the_same(evaluation: Evaluation, tmp_path: Path) -> None:
    work(evaluation, tmp_path)
    expected = outcome(tmp_path)
    (tmp_path / "process-001.jsonl").write_bytes((tmp_path / "process-000.jsonl").read_bytes())
    assert outcome(tmp_path) == expected
    (tmp_path / "process-001.jsonl").write_bytes(
        sealed(asdict(FINGERPRINT)) + sealed(asdict(replace(evaluation.batch(1), records=())))
    )
    message = r"Batch 1 was computed twice with different results, the second time in .*process-001"
    with pytest.raises(OutputError, match=message):
        outcome(tmp_path)


def test_a_damaged_line_is_reported(tmp_path: Path) -> None:
    message = r"Line 2 of .*process-000\.jsonl is damaged: .* Delete that line, or remove the file: what it held is"
    content: list[dict[str, object]] = [{"number": 0}, {"number": 0, "samples": 3}]
    lines = [b"[1, 2]\n", b"no JSON\n", json.dumps(content[0]).encode() + b"\n", *map(sealed, content)]
    for line in lines:
        (tmp_path / "process-000.jsonl").write_bytes(sealed(asdict(FINGERPRINT)) + line)
        with pytest.raises(OutputError, match=message):
            PartialResults(tmp_path, FINGERPRINT).batches()


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_is_noticed_or_its_batch_computed_again(
    evaluation: Evaluation, tmp_path: Path, data: st.DataObject
) -> None:
    work(evaluation, tmp_path / "complete")
    (complete,) = (tmp_path / "complete").iterdir()
    original = complete.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(original) - 1))
    flipped = bytearray(original)
    flipped[bit // 8] ^= 1 << bit % 8
    changed = tmp_path / "changed"
    changed.mkdir(exist_ok=True)
    (changed / complete.name).write_bytes(flipped)
    line = original.count(b"\n", 0, bit // 8) + 1
    if bit // 8 == len(original) - 1:  # the last line looks as a kill leaves one: it is computed again
        work(evaluation, changed)
        assert (changed / complete.name).read_bytes() == original
        return
    with pytest.raises(OutputError, match=rf"Line {line} of .*{complete.name} is damaged"):
        work(evaluation, changed)


def test_a_disk_without_room_is_an_error_at_once_and_what_was_done_stays_good(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(evaluation, tmp_path / "complete")
    (complete,) = (tmp_path / "complete").iterdir()
    original = complete.read_bytes()
    for room in range(0, len(original), 97):
        folder = tmp_path / f"room-{room}"
        with monkeypatch.context() as context:
            context.setattr(Path, "open", with_room(room))
            with pytest.raises(OutputError, match="No space left on device"):
                work(evaluation, folder)
        (left,) = folder.iterdir()
        assert original.startswith(left.read_bytes())
        assert left.read_bytes().endswith(b"\n")
        work(evaluation, folder)
        assert left.read_bytes() == original


def test_a_folder_that_is_removed_meanwhile_is_an_error_at_once(evaluation: Evaluation, tmp_path: Path) -> None:
    results = PartialResults(tmp_path / "folder", FINGERPRINT)
    written = results.append(0, map(evaluation.batch, evaluation.batch_numbers))
    next(written)
    shutil.rmtree(tmp_path / "folder")
    with pytest.raises(OutputError, match=r"process-000\.jsonl cannot be written: No such file or directory"):
        next(written)


def test_a_file_in_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be created: .*Give another folder"):
        PartialResults(tmp_path / "file", FINGERPRINT)


def test_a_broken_sample_is_an_error_where_the_set_does_not_skip(grounder: Grounder, squares: SquaresOf) -> None:
    dataset = squares(7, broken=[3])
    dataset.skips_broken = False
    with pytest.raises(DataError, match="Its mask is torn"):
        Evaluation(grounder, dataset, "packed", 2).batch(1)


class Ahead(ColourGrounder):
    """Takes a batch before it gives the masks of the one before, as a grounder may."""

    def masks_of_batches(
        self, batches: Iterable[Sequence[Prompt]], *, batch_size: int = 8
    ) -> Iterator[list[dict[str, NDArray[np.bool_]]]]:
        found = partial(self.masks, batch_size=batch_size)
        return map_ahead(found, batches, workers=1, most=2)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_are_the_same_with_any_number_of_workers(grounder: Grounder, squares: SquaresOf, workers: int) -> None:
    alone = Evaluation(grounder, squares(7, broken=[3]), "packed", 2, workers=0)
    expected = [alone.batch(number) for number in alone.batch_numbers]
    for grounds in (grounder, Ahead()):
        evaluation = Evaluation(grounds, squares(7, broken=[3]), "packed", 2, workers=workers)
        assert list(evaluation.batches(evaluation.batch_numbers)) == expected


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_batches_before_a_broken_sample_are_given_before_its_error(squares: SquaresOf, workers: int) -> None:
    dataset = squares(9, broken=[5])
    dataset.skips_broken = False
    evaluation = Evaluation(Ahead(), dataset, "packed", 2, workers=workers)
    given = []
    with pytest.raises(DataError, match="Its mask is torn"):
        given.extend(batch.number for batch in evaluation.batches(evaluation.batch_numbers))
    assert given == [0, 1]


def test_a_decoder_gives_the_batches_before_a_broken_sample_before_its_error(squares: SquaresOf) -> None:
    dataset = squares(9, broken=[5])
    dataset.skips_broken = False
    evaluation = Evaluation(GroundedVLM.untrained(FakeAdapter(), base_width=4), dataset, "isolated", 2)
    given = []
    with pytest.raises(DataError, match="Its mask is torn"):
        given.extend(batch.number for batch in evaluation.batches(evaluation.batch_numbers))
    assert given == [0, 1]
