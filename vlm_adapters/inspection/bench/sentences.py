"""Many sentences on one image: one after the other, as a padded batch, and in one shared pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.hf.backbone import TransformersBackbone
from vlm_adapters.inspection.bench.measure import Section, Variant, take_turns
from vlm_adapters.inspection.bench.peaks import time_and_memory
from vlm_adapters.inspection.bench.settings import BenchSettings
from vlm_adapters.inspection.bench.subject import image_of, length_of, load_model, plain_pass
from vlm_adapters.prompt import Prompt


def measure(settings: BenchSettings) -> Iterator[Section]:
    """The three ways beside each other, with the bound by tokens; then the shared pass over the number of sentences."""
    tokens = settings.image_tokens[0]
    adapter = load_model(settings)
    variants = make_variants(settings, tokens)
    rows = time_and_memory(make_variants, settings, tokens, variants)
    inputs = adapter.preprocess(prompts_of(adapter, tokens, settings.sentences))
    bound = bound_of(inputs)
    facts: dict[str, float | int | str] = {"tokens, shared": shared_tokens(inputs), "bound, times the loop": bound}
    if (ratio := rows[-1].ratio) is not None:
        facts |= {"shared, times the loop": 1 / ratio, "share of the bound": 1 / ratio / bound}
    title = f"{settings.sentences} sentences on one image: {length_of(inputs):,} tokens each"
    yield Section("sentences", title, rows, facts, length_of(inputs))
    variants = by_number(settings, tokens)
    curve = take_turns(variants, device=settings.device, repeats=settings.repeats, seconds=settings.seconds)
    yield Section("sentences", "Shared pass, by number of sentences", tuple(curve), tokens=length_of(inputs))


def make_variants(settings: BenchSettings, tokens: int) -> dict[str, Variant]:
    """Rows sentence by sentence; a padded batch as transformers runs it, without rows; rows of all at once."""
    adapter = load_model(settings)
    prompts = prompts_of(adapter, tokens, settings.sentences)
    each = [adapter.preprocess([prompt]) for prompt in prompts]
    together = adapter.preprocess(prompts)
    return {
        "loop": Variant(partial(_each, adapter, each)),
        "padded batch, no rows": Variant(partial(plain_pass, adapter, together)),
        "shared": Variant(partial(adapter.extract, together)),
    }


def by_number(settings: BenchSettings, tokens: int) -> dict[str, Variant]:
    """The shared pass for ever more sentences."""
    adapter = load_model(settings)
    numbers = sorted({1, *(2**power for power in range(1, 5) if 2**power < settings.sentences), settings.sentences})
    return {
        f"{number} sentence{'s' * (number > 1)}": Variant(
            partial(adapter.extract, adapter.preprocess(prompts_of(adapter, tokens, number)))
        )
        for number in numbers
    }


def prompts_of(adapter: TransformersBackbone, tokens: int, number: int) -> list[Prompt]:
    """Short sentences on one image, all different."""
    image = image_of(adapter, tokens)
    return [Prompt.describe(image, f"the tree number {index}", ["the tree"]) for index in range(number)]


def bound_of(inputs: BackboneInputs) -> float:
    """How many times as many tokens the sentences have one by one as with a shared beginning."""
    return int(inputs.tensors["attention_mask"].sum()) / shared_tokens(inputs)


def shared_tokens(inputs: BackboneInputs) -> int:
    """Tokens of the common beginning, once, and of all that follows it."""
    masks = inputs.tensors["attention_mask"].bool()
    sequences = [ids[mask].tolist() for ids, mask in zip(inputs.tensors["input_ids"], masks, strict=True)]
    common = 0
    for tokens in zip(*sequences, strict=False):
        if len(set(tokens)) > 1:
            break
        common += 1
    return common + sum(len(sequence) - common for sequence in sequences)


def _each(adapter: TransformersBackbone, inputs: Sequence[BackboneInputs]) -> None:
    for of_prompt in inputs:
        adapter.extract(of_prompt)
