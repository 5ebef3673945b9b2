"""What grounding takes, counted without values, beside what torch's allocator and bitsandbytes say of real models."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from vlm_adapters import GridRequest, MaskDecoder, TransformersBackbone, list_adapters, load_adapter
from vlm_adapters.cli import main
from vlm_adapters.decoder.features import PhraseFeatures
from vlm_adapters.inspection.fit import Wish, fit
from vlm_adapters.inspection.grounding_memory import GroundingMemory, Scene, grounding_memory, on_meta
from vlm_adapters.inspection.weights import weight_bytes
from vlm_adapters.registry.loading import load_published
from vlm_adapters.testing.lookup import find_case

QWEN, LLAVA, DEEPSEEK = "tiny-qwen2_5_vl", "tiny-llava", "tiny-deepseek_vl"
FULL_SIZE = "Qwen/Qwen3-VL-2B-Instruct"
SCENE = Scene((1200, 1600), 12)


def loaded(name: str, **options: Any) -> TransformersBackbone:
    adapter = load_adapter(name, device="cpu", **options)
    assert isinstance(adapter, TransformersBackbone)
    return adapter


def allocated(run: Callable[[], object]) -> int:
    """Most bytes that torch's allocator held at once beyond what it held before, as its profiler saw it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def counted(adapter: TransformersBackbone, decoder: MaskDecoder | None = None) -> GroundingMemory:
    return grounding_memory(on_meta(adapter, adapter.model.dtype), SCENE, GridRequest(), decoder)


@pytest.mark.filterwarnings("ignore::vlm_adapters.errors.UnlikeSceneWarning")
@pytest.mark.filterwarnings("ignore:.*[Pp]rofiler.*")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "options"), [(QWEN, {"max_pixels": 600_000}), (LLAVA, {}), (DEEPSEEK, {})])
def test_extraction_takes_what_torch_allocates_for_it(name: str, options: dict[str, Any], dtype: str) -> None:
    adapter = loaded(name, dtype=dtype, **options)
    inputs = adapter.preprocess([SCENE.prompt(adapter)])
    adapter.extract(inputs)
    memory = counted(adapter)
    assert memory.tokens == inputs.tensors["input_ids"].shape[1]
    assert memory.peak - memory.inputs == pytest.approx(allocated(lambda: adapter.extract(inputs)), rel=0.1)


@pytest.mark.parametrize("name", [entry.name for entry in list_adapters()])
def test_every_family_can_be_planned(name: str) -> None:
    adapter = find_case(name).load()
    scene = Scene((96, 128), 1)
    expected = adapter.preprocess([scene.prompt(adapter)]).tensors["input_ids"].shape[1]
    assert grounding_memory(on_meta(adapter, torch.float32), scene, GridRequest()).tokens == expected


@pytest.mark.filterwarnings("ignore::vlm_adapters.errors.UnlikeSceneWarning")
@pytest.mark.filterwarnings("ignore:.*[Pp]rofiler.*")
def test_the_decoder_takes_what_torch_allocates_for_it() -> None:
    adapter = loaded(LLAVA)
    decoder = MaskDecoder.untrained(adapter.info).eval()
    with torch.no_grad():
        grids = adapter.extract(adapter.preprocess([SCENE.prompt(adapter)]))[0]
        features = PhraseFeatures.of(grids, decoder.request, adapter.info)
        found = allocated(lambda: decoder([features]))
    memory = counted(adapter, decoder.to("meta"))
    assert memory.decoder == pytest.approx(found + memory.kept, rel=0.1)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("name", [QWEN, LLAVA])
def test_quantised_weights_take_what_bitsandbytes_makes_of_them(name: str, quantization: Any) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install bitsandbytes")
    model = loaded(name, quantization_config=quantization, dtype="bfloat16").model
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    found = sum(tensor.nbytes for tensor in tensors.values())
    for weight in model.parameters():
        state, scales = getattr(weight, "quant_state", None), getattr(weight, "SCB", None)
        found += state.absmax.nbytes + state.code.nbytes if state is not None else 0
        found += scales.nbytes if scales is not None else 0
    expected = weight_bytes(on_meta(loaded(name), torch.bfloat16).model, torch.bfloat16, quantization)
    assert expected == pytest.approx(found, rel=0.01)


def plan(phrases: int, gib: float, image: tuple[int, int] = (768, 1024), **wish: Any) -> Any:
    adapter = load_published(FULL_SIZE)
    assert adapter is not None
    return fit(adapter, Wish(Scene(image, phrases), int(gib * 2**30), **wish))


def test_what_fits_is_said_without_changes() -> None:
    report = plan(4, 8)
    assert report.answer.startswith("Fits in bfloat16: 4.")
    assert report.answer.endswith("of 8.0 GiB.")
    assert report.changes == ()
    assert [(form.name, form.fits) for form in report.forms] == [
        ("float32", False),
        ("bfloat16", True),
        ("int8", True),
        ("nf4", True),
    ]
    assert (report.layers, report.heads) == (28, 16)


def test_what_does_not_fit_is_said_with_changes_that_do() -> None:
    report = plan(50, 5.2, (1536, 2048))
    assert report.answer.startswith("Does not fit in bfloat16: it takes ")
    assert 'Fits with quantization_config="int8": ' in report.answer
    kinds = (
        'quantization_config="int8": ',
        'quantization_config="nf4": ',
        "an image of at most ",
        "maps of ",
        " phrases at a time: ",
        '2 such devices, device_map="balanced" in bfloat16: ',
    )
    for kind in kinds:
        assert any(kind in change for change in report.changes), kind
    image = next(change for change in report.changes if change.startswith("an image"))
    width, height = (int(word) for word in image.split() if word.isdecimal())
    assert plan(50, 5.2, (height, width)).answer.startswith("Fits in bfloat16")


def test_a_device_that_is_too_small_for_any_form_leaves_several_devices() -> None:
    report = plan(1, 1.4)
    assert report.answer.endswith("GiB.")
    assert "Nor does it fit with nf4" in report.answer
    assert [change for change in report.changes if "such devices" in change] == list(report.changes)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def info(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["adapters", "info", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, " ".join(printed.err.split())

    return run


def test_the_answer_stands_before_the_table(info: Run) -> None:
    code, text, _ = info(LLAVA, "--image", "640x480", "--phrases", "3", "--device-memory", "8GiB")
    assert code == 0
    assert "Fits in bfloat16: 0.5 GiB of 8.0 GiB." in text.split("Planned")[0]
    assert "640 wide, 480 high" in text
    assert "maps kept of it" in text.split("Planned")[1]


def test_the_answer_is_json_too(info: Run) -> None:
    code, text, _ = info(LLAVA, "--phrases", "3", "--device-memory", "8GB", "--sam", "vit_b", "--json")
    assert code == 0
    found = json.loads(text)["fit"]
    assert found["device_memory"] == 8 * 10**9
    assert [form["fits"] for form in found["forms"]] == [True] * 4
    assert found["forms"][0]["memory"]["sam"] > 2**30  # the scores of a global layer of ViT-B at 4,096 tokens


def test_impossible_questions_are_refused_in_a_sentence(info: Run) -> None:
    for options, words in (
        (("--device-memory", "24"), "Give a number and a unit: 24GiB"),
        (("--phrases", "5000"), "5,000 phrases do not fit in one call"),
        (("--phrases", "1", "--dtype", "int3"), "Unknown dtype"),
        (("--phrases", "1", "--sam", "vit_x"), "There is no file"),
    ):
        code, _, text = info(LLAVA, *options)
        assert code == 1, options
        assert words in text, (options, text)


def test_an_unknown_quantization_is_a_usage_error_that_names_the_choices(info: Run) -> None:
    code, _, text = info(LLAVA, "--phrases", "1", "--quantization", "int4")
    assert code == 2
    assert "int4" in text
    assert all(choice in text for choice in ("int8", "nf4"))


def test_an_image_that_the_family_refuses_is_refused_by_its_own_words(info: Run) -> None:
    code, _, text = info(FULL_SIZE, "--image", "9000x20", "--phrases", "1", "--device-memory", "24GiB")
    assert (code, "cannot be resized" in text) == (1, True)
