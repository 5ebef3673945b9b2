"""Several texts about one image: the image and what stands before the texts run once, and every map stays the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from vlm_adapters import GridRequest, GroundedVLM, Message, Prompt, TransformersBackbone, load_adapter, open_dataset
from vlm_adapters.backbone.batch_tensors import BatchTensors
from vlm_adapters.evaluation.protocols import find_masks, isolated
from vlm_adapters.hf.language_model import language_model_of

pytestmark = pytest.mark.filterwarnings("ignore::vlm_adapters.errors.UnlikeSceneWarning")  # what is shown is noise

NAMES = ("tiny-llava", "tiny-qwen2_5_vl", "tiny-deepseek_vl")
PIXELS = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
TEXTS = ("a red star", "a blue circle and a red star", "a red star", "green, a red star, pink")
EVERYTHING = GridRequest(hidden_layers=None, phrase_hidden_layers=None)


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt.describe(Image.fromarray(PIXELS), text, ["a red star"]) for text in texts]


@pytest.fixture(scope="module", params=NAMES)
def adapter(request: pytest.FixtureRequest) -> TransformersBackbone:
    loaded = load_adapter(request.param, device="cpu", dtype="float32")
    assert isinstance(loaded, TransformersBackbone)
    return loaded


def tokens_run(adapter: TransformersBackbone, of: list[Prompt], request: GridRequest) -> tuple[Any, list[int]]:
    """What is extracted, and the tokens of every pass of the language model."""
    lengths: list[int] = []

    def note(_: Any, args: Any, kwargs: Any) -> None:
        states = args[0] if args else kwargs["hidden_states"]
        lengths.append(states.shape[0] * states.shape[1])

    hook = language_model_of(adapter.model).layers[0].register_forward_pre_hook(note, with_kwargs=True)
    try:
        return adapter.extract(adapter.preprocess(of), request), lengths
    finally:
        hook.remove()


def difference(found: Any, expected: Any) -> float:
    """Largest difference of attention and hidden states of one prompt."""
    pairs = []
    for one, other in zip(found, expected, strict=True):
        pairs += [(one.attention, other.attention), (one.hidden, other.hidden)]
        pairs += zip(one.phrase_hidden, other.phrase_hidden, strict=True)
    assert all(one.shape == other.shape for one, other in pairs)
    return max(float((one - other).abs().max() / other.abs().max().clamp(min=1)) for one, other in pairs)


@pytest.mark.parametrize("align", ["token", "predictor"])
@pytest.mark.parametrize("reduce", ["mean", "max", "last", "none"])
def test_texts_that_share_an_image_give_what_each_gives_alone(
    adapter: TransformersBackbone, align: Any, reduce: Any
) -> None:
    request = GridRequest(align=align, reduce=reduce, hidden_layers=None, phrase_hidden_layers=None)
    together, lengths = tokens_run(adapter, prompts(*TEXTS), request)
    apart = [tokens_run(adapter, [one], request) for one in prompts(*TEXTS)]
    assert max(difference(found, alone[0]) for found, (alone, _) in zip(together, apart, strict=True)) < 1e-5
    (length,) = lengths
    assert length < 1.3 * max(length for _, (length,) in apart)


def test_others_of_the_batch_stay_a_batch_in_its_order(adapter: TransformersBackbone) -> None:
    def other(seed: int) -> Prompt:
        pixels = np.random.default_rng(seed).integers(0, 256, (100, 90, 3), dtype=np.uint8)
        return Prompt.describe(Image.fromarray(pixels), f"{'a ' * seed}red star", ["red star"])

    first, *rest = prompts(*TEXTS)
    mixed = [other(1), first, other(2), *rest, other(9)]
    together, lengths = tokens_run(adapter, mixed, EVERYTHING)
    assert len(lengths) == 2  # a beginning with the texts after it, and the batch of all others
    for found, one in zip(together, mixed, strict=True):
        assert difference(found, adapter.extract(adapter.preprocess([one]), EVERYTHING)[0]) < 1e-5


def test_the_vision_tower_sees_an_image_once(adapter: TransformersBackbone) -> None:
    given = adapter.preprocess(prompts(*TEXTS)).tensors["pixel_values"]
    seen: list[int] = []
    towers = ("visual", "vision_model", "vision_tower")
    vision = next(module for name, module in adapter.model.named_modules() if name.endswith(towers))

    def note(_: Any, args: Any, kwargs: Any) -> None:
        seen.append(len(args[0] if args else kwargs["pixel_values"]))

    hook = vision.register_forward_pre_hook(note, with_kwargs=True)
    try:
        adapter.extract(adapter.preprocess(prompts(*TEXTS)))
    finally:
        hook.remove()
    assert seen == [len(given) // len(TEXTS)]


def test_the_pixels_of_an_image_are_held_once(adapter: TransformersBackbone) -> None:
    of_all, of_one = (adapter.preprocess(prompts(*texts)).tensors for texts in (TEXTS, TEXTS[:1]))
    assert isinstance(of_all, BatchTensors)
    assert isinstance(of_one, BatchTensors)
    adapter.extract(adapter.preprocess(prompts(*TEXTS)))
    for name, tensor in of_one.of_images.items():
        assert torch.equal(of_all.of_images[name], tensor)
        assert torch.equal(of_all[name], torch.cat([tensor] * len(TEXTS)))


def test_prompts_that_begin_with_other_words_are_not_taken_together(adapter: TransformersBackbone) -> None:
    image = Image.fromarray(PIXELS)
    asked = [
        Prompt.chat([Message("user", (question, image)), Message("assistant", ("a red star",))], ["a red star"])
        for question in ("Where?", "What is it?")
    ]
    _, lengths = tokens_run(adapter, asked, GridRequest())
    (length,) = lengths
    if adapter.name == "llava":  # its template writes the image first, whatever a message begins with
        assert length < 1.3 * adapter.preprocess(asked).tensors["input_ids"].shape[1]
    else:
        assert length == adapter.preprocess(asked).tensors["input_ids"].numel()  # one padded batch


def passes_of(vlm: GroundedVLM, work: Callable[[], Any]) -> tuple[Any, int]:
    """The result of some work, and how many passes of the language model it took."""
    count = 0

    def note(*_: Any) -> None:
        nonlocal count
        count += 1

    hook = language_model_of(cast("TransformersBackbone", vlm.adapter).model).layers[0].register_forward_hook(note)
    try:
        return work(), count
    finally:
        hook.remove()


def test_the_isolated_protocol_runs_an_image_once_unasked() -> None:
    vlm = GroundedVLM.from_pretrained("tiny-llava", device="cpu")
    samples = open_dataset("scenes:count=2,seed=4")
    asked = [isolated(sample) for sample in samples]
    assert min(map(len, asked)) > 1
    together, passes = passes_of(vlm, lambda: find_masks(vlm, asked, 16))
    loop, passes_of_loop = passes_of(vlm, lambda: find_masks(vlm, asked, 1))
    assert (passes, passes_of_loop) == (len(asked), sum(map(len, asked)))
    for found, expected in zip(together, loop, strict=True):
        assert found["mask"].shape == expected["mask"].shape
        assert np.mean(found["mask"] != expected["mask"]) < 1e-4  # sums are rounded in another order


def test_several_sentences_are_grounded_in_one_pass() -> None:
    vlm = GroundedVLM.from_pretrained("tiny-llava", device="cpu")
    together, passes = passes_of(vlm, lambda: vlm.ground_all(prompts(*TEXTS)))
    assert passes == 1
    for found, one in zip(together, prompts(*TEXTS), strict=True):
        (expected,) = vlm.ground_all([one])
        assert np.mean(found.phrases[0].mask != expected.phrases[0].mask) < 1e-4
        assert found.phrases[0].score == pytest.approx(expected.phrases[0].score, abs=1e-4)


def test_the_eager_kernel_keeps_texts_apart_too() -> None:
    eager = load_adapter("tiny-qwen2_5_vl", device="cpu", dtype="float32", attn_implementation="eager")
    together = eager.extract(eager.preprocess(prompts(*TEXTS)), EVERYTHING)
    for found, one in zip(together, prompts(*TEXTS), strict=True):
        assert difference(found, eager.extract(eager.preprocess([one]), EVERYTHING)[0]) < 1e-5


def test_gradient_flows_as_in_separate_passes(adapter: TransformersBackbone) -> None:
    weight = next(
        p
        for name, p in adapter.model.named_parameters()
        if name.endswith("q_proj.weight") and "layers.1." in name and "vis" not in name
    )
    weight.requires_grad_()
    request = GridRequest(gradient=True)

    def gradient(batches: list[list[Prompt]]) -> torch.Tensor:
        maps = [
            grids[0].attention for batch in batches for grids in adapter.extract(adapter.preprocess(batch), request)
        ]
        return torch.autograd.grad(torch.cat(maps).square().sum(), [weight])[0]

    try:
        together, apart = gradient([prompts(*TEXTS)]), gradient([[one] for one in prompts(*TEXTS)])
    finally:
        weight.requires_grad_(requires_grad=False)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-6)
