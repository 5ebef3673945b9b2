"""Checks that an adapter changes neither the model nor its inputs, and is cheap, thread-safe and repeatable."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.testing.case import AdapterCase
from vlm_adapters.testing.support import (
    different_prompts,
    hidden,
    maps,
    module_of,
    prompt,
    require,
    require_equal,
    require_identical,
    require_same,
    run,
)

_EVERYTHING = GridRequest(hidden_layers=None, phrase_hidden_layers=None)


def check_deterministic(case: AdapterCase) -> None:
    """Two runs over the same prompt give equal results, bit for bit."""
    adapter = case.load()
    (first, before), (second, after) = (run(adapter, prompt(), _EVERYTHING) for _ in range(2))
    require_equal(sorted(second.tensors), sorted(first.tensors), "names of the model's inputs in a second run")
    for name, tensor in first.tensors.items():
        require_identical(second.tensors[name], tensor, f"input {name} of a second run")
    require_identical(maps(after), maps(before), "attention of a second run")
    require_identical(hidden(after), hidden(before), "hidden states of a second run")


def check_capture_changes_no_states(case: AdapterCase) -> None:
    """The model's hidden states are equal with all rows captured and with none, bit for bit."""
    adapter = case.load()
    last = GridRequest(hidden_layers=1)
    off = hidden(run(adapter, prompt(phrases=()), replace(last, layers=()))[1])
    require_identical(hidden(run(adapter, prompt(), last)[1]), off, "last hidden states with capture on and off")


def check_no_gradient(case: AdapterCase) -> None:
    """With gradients enabled by the caller, no result has a gradient, and no parameter requires one."""
    adapter = case.load()
    with torch.enable_grad():
        inputs, grids = run(adapter, prompt(), _EVERYTHING)
    for name, tensor in {
        "attention": maps(grids),
        "hidden": hidden(grids),
        **{f"phrase_hidden {index}": states for index, states in enumerate(grids[0].phrase_hidden)},
        **inputs.tensors,
    }.items():
        require(not tensor.requires_grad, f"{name}: expected no gradient, found requires_grad")
    trainable = [name for name, parameter in module_of(adapter).named_parameters() if parameter.requires_grad]
    require(
        not trainable, f"parameters of a frozen backbone: expected none to require a gradient, found {trainable[:5]}"
    )


def check_parameters_unchanged(case: AdapterCase) -> None:
    """Extraction changes no parameter and no buffer of the model."""
    adapter = case.load()
    module = module_of(adapter)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    run(adapter, prompt(), _EVERYTHING)
    after = module.state_dict()
    require_equal(sorted(after), sorted(before), "names in the model's state_dict after extraction")
    for name, tensor in before.items():
        require_identical(after[name], tensor, f"{name} after extraction")


def check_stays_in_eval_mode(case: AdapterCase) -> None:
    """The model is in eval mode before and after extraction."""
    adapter = case.load()
    for moment in ("before", "after"):
        training = [name or "the model" for name, module in module_of(adapter).named_modules() if module.training]
        require(not training, f"{moment} extraction: expected eval mode, found training mode in {training[:5]}")
        run(adapter, prompt(), _EVERYTHING)


def check_inputs_not_mutated(case: AdapterCase) -> None:
    """`extract` and `locate_image_tokens` do not change the tensors and the phrase tokens."""
    adapter = case.load()
    inputs = adapter.preprocess(different_prompts())
    tensors = {name: tensor.clone() for name, tensor in inputs.tensors.items()}
    phrases = [tokens.clone() for of_prompt in inputs.phrase_tokens for tokens in of_prompt]
    adapter.locate_image_tokens(inputs)
    adapter.extract(inputs, _EVERYTHING)
    require_equal(sorted(inputs.tensors), sorted(tensors), "names of the model's inputs after extraction")
    for name, tensor in tensors.items():
        require_identical(inputs.tensors[name], tensor, f"input {name} after extraction")
    for before, after in zip(phrases, (t for of_prompt in inputs.phrase_tokens for t in of_prompt), strict=True):
        require_identical(after, before, "phrase tokens after extraction")


def check_prompts_not_mutated(case: AdapterCase) -> None:
    """`preprocess` does not change the prompts and the pixels of their images."""
    adapter = case.load()
    prompts = different_prompts()
    pixels = [np.array(image) for one in prompts for image in one.images]
    content = [(one.messages, one.phrases) for one in prompts]
    inputs = adapter.preprocess(prompts)
    require_equal([(one.messages, one.phrases) for one in prompts], content, "messages and phrases after preprocess")
    require_equal(inputs.prompts, tuple(prompts), "prompts of the inputs")
    for before, image in zip(pixels, (image for one in prompts for image in one.images), strict=True):
        after = np.array(image)
        require(
            before.shape == after.shape and bool((before == after).all()),
            "pixels of an image after preprocess: expected none changed, found some",
        )


def check_nothing_square(case: AdapterCase) -> None:
    """Capture makes no tensor of S x S elements or more beside the plain pass: only the requested rows are computed."""
    adapter = case.load()
    text = " and ".join(["a red circle"] * 12) + " , a blue star"
    inputs = adapter.preprocess([prompt((250, 250), text, ["star"])])
    none = replace(inputs, prompts=(replace(inputs.prompts[0], phrases=()),), phrase_tokens=((),))
    length = case.reference.image_positions(adapter, inputs).shape[1]
    adapter.extract(inputs, GridRequest())  # memory that is allocated once is not counted
    plain = _sizes_of(lambda: adapter.extract(none, GridRequest()))
    captured = _sizes_of(lambda: adapter.extract(inputs, GridRequest()))
    largest = max((captured - plain).elements(), default=0)
    require(
        largest < length**2,
        f"rows of {len(inputs.phrase_tokens[0][0])} tokens in a sequence of {length}: expected no tensor of "
        f"{length**2} elements beside the plain pass, found one of {largest}",
    )


def check_spawned_process(case: AdapterCase) -> None:
    """A spawned process loads the adapter and extracts the same."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            found = pool.submit(_attention_of, case).result()
        except Exception as error:
            raise AssertionError(
                f"a spawned process: expected it to load the adapter and extract, found {type(error).__name__}: {error}"
            ) from error
    require_same(
        case, torch.from_numpy(found), torch.from_numpy(_attention_of(case)), 1e-5, "attention from a spawned process"
    )


def check_threads(case: AdapterCase) -> None:
    """Threads that share an adapter get the grids of their own prompts."""
    adapter = case.load()
    prompts = different_prompts() * 2
    expected = [maps(run(adapter, one)[1]) for one in prompts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: maps(run(adapter, one)[1]), prompts))
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        require_same(case, one, other, 1e-5, f"attention of prompt {index}, extracted while other threads extract")


def _attention_of(case: AdapterCase) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = maps(run(case.load(), prompt())[1]).cpu().numpy()
    return array


class _AllocationCounter(TorchDispatchMode):
    """Counts new memory of every operation, by size in elements; a view of its arguments takes none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in torch
        self.sizes: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {_storage(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and _storage(tensor) not in given:
                self.sizes[tensor.untyped_storage().nbytes() // tensor.itemsize] += 1
        return output


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _sizes_of(work: Callable[[], object]) -> Counter[int]:
    """Sizes of all tensors made during the work."""
    counter = _AllocationCounter()
    with counter:
        work()
    return counter.sizes
