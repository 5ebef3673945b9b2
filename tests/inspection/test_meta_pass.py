"""Values on the meta device: what follows from known ones is known, and what follows from weights is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from vlm_adapters.inspection.meta_pass import MetaPass, ValuesOfPython


@pytest.fixture
def counter() -> Iterator[MetaPass]:
    with torch.no_grad(), ValuesOfPython(), MetaPass(nn.Identity()) as mode:
        yield mode


def known(*values: int) -> Tensor:
    return torch.tensor(values).to("meta")


@pytest.mark.usefixtures("counter")
def test_what_follows_from_known_values_is_read_as_on_the_cpu() -> None:
    shapes = known(4, 6) // 2
    assert shapes.is_meta
    assert shapes.tolist() == [2, 3]
    assert shapes.prod().item() == 6
    assert (shapes[1:] > 2).all().item() is True
    assert torch.arange(int(shapes[0]), device=shapes.device).cpu().tolist() == [0, 1]
    assert torch.tensor([shapes[0], 7], device="meta").tolist() == [2, 7]


@pytest.mark.usefixtures("counter")
def test_the_size_of_a_choice_by_a_known_mask_is_its_true_size() -> None:
    ids = known(5, 9, 5, 9, 9)
    states = torch.empty(5, 8, device="meta")
    assert (ids == 9).nonzero().shape == (3, 1)
    assert states[ids == 9].shape == (3, 8)
    states[ids == 9] = torch.empty(3, 8, device="meta")
    assert torch.repeat_interleave(known(1, 2), known(2, 3)).tolist() == [1, 1, 2, 2, 2]


@pytest.mark.usefixtures("counter")
def test_an_index_that_follows_from_weights_cannot_be_read() -> None:
    scores = torch.empty(7, device="meta")
    with pytest.raises(RuntimeError, match="values that follow from its weights"):
        int(scores.argmax())


@pytest.mark.usefixtures("counter")
def test_a_mask_that_is_not_known_is_true_everywhere() -> None:
    scores, values = torch.empty(7, device="meta"), torch.empty(7, 3, device="meta")
    assert values[scores > 0].shape == (7, 3)
    values[scores > 0] += 1
    assert values.shape == (7, 3)


@pytest.mark.usefixtures("counter")
def test_what_is_overwritten_with_unknown_values_is_forgotten() -> None:
    counts = known(1, 2)
    counts.add_(1)
    assert counts.tolist() == [2, 3]
    counts.copy_(torch.empty(2, dtype=torch.long, device="meta"))
    with pytest.raises(RuntimeError):
        int(counts[0])


def test_tensors_on_the_device_count_and_copies_on_the_host_do_not(counter: MetaPass) -> None:
    ids = torch.arange(1000).to("meta")
    assert counter.next_peak() == 8000
    host = ids.cpu()
    torch.ones(10_000)
    assert (len(host), counter.next_peak()) == (1000, 8000)
    states = torch.empty(1000, 4, device="meta")[ids]
    assert counter.next_peak() == 8000 + 2 * 16_000
    del states
    assert counter.live == 8000


@pytest.mark.usefixtures("counter")
def test_what_is_not_known_differs_from_anything() -> None:
    """Idefics3 counts the images of a batch that are not all padding."""
    pixels = torch.empty(2, 3, 4, 4, device="meta")
    images = (pixels == 0.0).sum(dim=(-1, -2, -3)) != 48
    assert pixels[images].shape == (2, 3, 4, 4)
    assert images.view(1, 2).sum(1).tolist() == [2]


@pytest.mark.usefixtures("counter")
def test_large_tables_of_known_numbers_are_known() -> None:
    """Gemma 4 finds the tokens that are no padding in a table of patches by tokens."""
    tokens = torch.arange(2394, device="meta") // 9
    shares = nn.functional.one_hot(tokens, 280).float() / 9
    assert torch.empty(280, 8, device="meta")[~(shares == 0).all(dim=0)].shape == (266, 8)
