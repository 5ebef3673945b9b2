"""`adapters evaluate` on the embedded model: its files, what it prints, and its error messages."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_adapters.cli.evaluate_command import command_line
from vlm_adapters.data.convert import write_folder
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.data.rle import decode_rle, encode_rle
from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.evaluation.record import read_records
from vlm_adapters.evaluation.summary import summarise
from vlm_adapters.output import gallery

TINY = "tiny-qwen2_5_vl"
SCENES = f"scenes:count=5,seed={HELD_OUT_SEED}"


@pytest.fixture(scope="module")
def ran(adapters: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    out = tmp_path_factory.mktemp("run") / "out"
    arguments = ["evaluate", TINY, SCENES, "--protocol", "packed", "--batch-size", "2", "--out", str(out)]
    assert adapters(*arguments, "--device", "cpu") == 0
    return out


def test_the_numbers_of_the_card_are_those_of_the_records(ran: Path) -> None:
    card = json.loads((ran / "card.json").read_text(encoding="utf-8"))
    records = read_records(ran / "records.jsonl")
    assert card["phrases"] == len(records) == sum(len(scene.phrases) for scene in Scenes(5, seed=HELD_OUT_SEED))
    computed = {number.metric: number.value for number in summarise(records)}
    assert {number["metric"]: number["value"] for number in card["numbers"]} == computed
    assert card["fingerprint"]["data"] == f"{SCENES},first=0"
    assert not [path for path in ran.rglob("*") if path.name.endswith(".tmp")]


def test_the_records_are_those_of_the_masks_and_of_the_truth(ran: Path) -> None:
    scenes = Scenes(5, seed=HELD_OUT_SEED)
    ious = []
    for record in read_records(ran / "records.jsonl"):
        found = decode_rle({"size": list(record.size), "counts": record.final.counts})
        ious.append(mask_iou(found, scenes[record.index].masks[record.phrase]))
        assert record.final.iou == ious[-1]
        assert record.words == scenes[record.index].phrases[record.phrase].text
    assert np.mean(ious) > 0.7


class Images(HTMLParser):
    """Collects the images of a page by their descriptions, and the headings of its cases."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.sources: list[tuple[str, bytes]] = []
        self.ious: list[float] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: str(value) for name, value in attrs}
        if tag == "img":
            self.sources.append((values["alt"], base64.b64decode(values["src"].split(",")[1])))
        if tag == "article":
            self.ious.append(float(values["data-iou"]))


def test_the_gallery_is_one_file_with_the_best_the_worst_and_random_cases(ran: Path) -> None:
    page = Images((ran / "gallery.html").read_text(encoding="utf-8"))
    ious = sorted(record.final.iou for record in read_records(ran / "records.jsonl"))
    assert len(page.ious) == min(len(ious), 3 * gallery.CASES)
    assert [round(iou, 4) for iou in (min(page.ious), max(page.ious))] == [round(ious[0], 4), round(ious[-1], 4)]
    assert len(page.sources) == 3 * len(page.ious)
    assert not (ran / "gallery").exists()
    for _, content in page.sources:
        with Image.open(io.BytesIO(content)) as image:
            assert max(image.size) <= gallery.SIDE


def test_a_true_mask_is_drawn_where_it_is(ran: Path) -> None:
    page = Images((ran / "gallery.html").read_text(encoding="utf-8"))
    (record, _), *_ = gallery.choose_cases(read_records(ran / "records.jsonl"), 0)
    truth = Scenes(5, seed=HELD_OUT_SEED)[record.index].masks[record.phrase]
    first = next(content for words, content in page.sources if words == "true mask")
    with Image.open(io.BytesIO(first)) as image:
        pixels = np.asarray(image.resize((truth.shape[1], truth.shape[0]))).astype(int)
    coloured = np.ptp(pixels, axis=2) > 40
    assert mask_iou(coloured, truth) > 0.93


def test_a_second_run_finds_everything_done(
    ran: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (ran / "records.jsonl").read_bytes(), (ran / "partial_results" / "process-000.jsonl").read_bytes()
    arguments = [
        "evaluate",
        TINY,
        SCENES,
        "--protocol",
        "packed",
        "--batch-size",
        "2",
        "--out",
        str(ran),
        "--device",
        "cpu",
    ]
    assert adapters(*arguments, "--json", "--seed", "3") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((ran / "card.json").read_text(encoding="utf-8"))
    assert "5/5" in printed.err
    assert (
        (ran / "records.jsonl").read_bytes(),
        (ran / "partial_results" / "process-000.jsonl").read_bytes(),
    ) == before


def test_what_is_printed_says_what_ran_and_where_the_files_are(
    ran: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "evaluate",
        TINY,
        SCENES,
        "--protocol",
        "packed",
        "--batch-size",
        "2",
        "--out",
        str(ran),
        "--device",
        "cpu",
    ]
    assert adapters(*arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("method: decoder, trained on qwen2_5_vl\npacked, 5 samples, 5 images, ")
    assert re.search(r"mIoU +0\.\d{4} \[0\.\d{4}, 0\.\d{4}\]", printed)
    assert str(ran / "gallery.html") in printed


def test_a_run_with_other_arguments_says_how_it_differs(
    ran: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", TINY, SCENES, "--protocol", "isolated", "--batch-size", "2", "--out", str(ran)]
    assert adapters(*arguments, "--device", "cpu") == 1
    error = capsys.readouterr().err
    assert (
        "belongs to a different run: protocol: 'packed' there, 'isolated' here. Give another folder (--out)"
        in error.splitlines()[-1]
    )


def test_old_numbers_are_not_reported_for_changed_masks(
    tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    plain, file = tmp_path / "plain", tmp_path / "plain" / "samples.jsonl"
    write_folder(Scenes(2, seed=HELD_OUT_SEED), plain, range(2))
    arguments = ["evaluate", TINY, str(plain), "--protocol", "packed", "--device", "cpu", "--json", "--out"]
    assert adapters(*arguments, str(tmp_path / "old")) == 0
    old = json.loads(capsys.readouterr().out)
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for phrase in (phrase for line in lines for phrase in line["phrases"]):
        phrase["mask"] = encode_rle(~decode_rle(phrase["mask"]))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert adapters(*arguments, str(tmp_path / "old")) == 1
    assert "belongs to a different run: data_fingerprint: '" in capsys.readouterr().err.splitlines()[-1]
    assert adapters(*arguments, str(tmp_path / "new")) == 0
    new = json.loads(capsys.readouterr().out)
    assert new["numbers"] != old["numbers"]
    assert new["fingerprint"]["data_fingerprint"] != old["fingerprint"]["data_fingerprint"]


def test_isolated_phrases_are_evaluated_by_heads_too(
    tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", TINY, "scenes:count=1,seed=4", "--protocol", "isolated", "--method", "heads", "--json"]
    assert adapters(*arguments, "--out", str(tmp_path), "--device", "cpu") == 0
    card = json.loads(capsys.readouterr().out)
    assert card["fingerprint"]["method"].startswith("heads, without training")
    assert "head_profile" in card["fingerprint"]["digests"]
    assert {record.prompt for record in read_records(tmp_path / "records.jsonl")} == {
        phrase.text for phrase in Scenes(1, seed=4)[0].phrases
    }


def test_the_card_holds_the_command_that_repeats_the_run(ran: Path) -> None:
    command = shlex.split(json.loads((ran / "card.json").read_text(encoding="utf-8"))["command"])
    assert command[:6] == ["adapters", "evaluate", TINY, SCENES, "--protocol", "packed"]
    assert command[-4:] == ["--batch-size", "2", "--seed", "0"]
    assert not {"--sam", "--out"} & set(command)


def test_the_command_says_how_the_model_was_loaded() -> None:
    options = {"protocol": "packed", "sam": None, "attn_implementation": "eager", "quantization": "nf4"}
    command = command_line("a model", "scenes:count=3", options)
    assert shlex.split(command)[:4] == ["adapters", "evaluate", "a model", "scenes:count=3"]
    assert command.endswith("--protocol packed --attn-implementation eager --quantization nf4")


def test_a_mistake_is_one_line_and_exit_code_1(
    tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        ([TINY, SCENES, "--protocol", "packed", "--sentences", "first"], "has one text per sample"),
        ([TINY, "scenes:number=5", "--protocol", "packed"], "has no key 'number'"),
        (["nowhere", SCENES, "--protocol", "packed"], "No checkpoint 'nowhere'"),
        ([TINY, SCENES, "--protocol", "packed", "--sam", "nowhere.pth"], "There is no file 'nowhere.pth'"),
    ):
        assert adapters("evaluate", *arguments, "--out", str(tmp_path / "out")) == 1
        *before, error = capsys.readouterr().err.strip().splitlines()
        assert error.startswith("error: ")
        assert message in error
        assert not [line for line in before if "Loading weights" not in line]
        assert not (tmp_path / "out").exists()
