"""The presence head: what it reads, what it leaves alone, and the way to disk and back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vlm_adapters.decoder import MaskDecoder, MaskLogits, PhraseFeatures, UNet, UNetConfig, decoder_loss
from vlm_adapters.decoder.calibration import Calibration
from vlm_adapters.decoder.presence import PresenceHead, least_probabilities
from vlm_adapters.errors import CheckpointError, DecoderError
from vlm_adapters.testing.fakes import FakeAdapter

INFO = FakeAdapter().info
LENGTHS = (3, 1, 5)


def features(seed: int = 0, *, likelihood: bool = True) -> PhraseFeatures:
    draw = torch.Generator().manual_seed(seed)
    maps = torch.rand(len(LENGTHS), INFO.channels, 4, 6, generator=draw)
    hidden = tuple(torch.randn(INFO.num_layers, length, INFO.hidden_size, generator=draw) for length in LENGTHS)
    said = tuple(-torch.rand(length, generator=draw) for length in LENGTHS) if likelihood else ()
    return PhraseFeatures(maps, (0, 0, 96, 64), hidden, said)


def decoder() -> MaskDecoder:
    torch.manual_seed(0)
    unet = UNet(UNetConfig(INFO.channels, base_width=2, depth=2, canvas=8))
    return MaskDecoder(unet, None, None, PresenceHead.of(INFO, INFO.channels, 8, Calibration(1.5, -0.25, 0.4)))


def test_a_decoder_with_a_presence_head_reads_words() -> None:
    request = decoder().request
    assert request.hidden
    assert request.log_probabilities
    assert request.grids.phrase_hidden_layers is None
    assert request.grids.phrase_log_probabilities


def test_a_phrase_has_the_same_logit_alone_and_beside_others() -> None:
    head, all_of = decoder().presence, features()
    assert head is not None
    coarse = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
    together = head(all_of, coarse)
    for index in range(3):
        one = slice(index, index + 1)
        alone = PhraseFeatures(all_of.maps[one], all_of.box, all_of.hidden[one], all_of.log_probabilities[one])
        assert torch.allclose(head(alone, coarse[one]), together[one], atol=1e-6)


def test_the_scale_of_a_map_does_not_matter() -> None:
    head, found = decoder().presence, features()
    assert head is not None
    coarse = torch.zeros(3, 5, 8)
    scaled = PhraseFeatures(found.maps * 7, found.box, found.hidden, found.log_probabilities)
    assert torch.allclose(head(scaled, coarse), head(found, coarse), atol=1e-6)


def test_learning_presence_sends_no_gradient_into_the_masks() -> None:
    built = decoder()
    (logits,) = built([features()])
    assert logits.presence is not None
    logits.presence.sum().backward()
    assert all(weight.grad is None for weight in built.unet.parameters())
    assert built.presence is not None
    assert all(weight.grad is not None for weight in built.presence.parameters())


def test_a_backbone_without_log_probabilities_is_read_without_them() -> None:
    (logits,) = decoder()([features(likelihood=False)])
    assert logits.presence is not None
    assert bool(logits.presence.isfinite().all())
    assert logits.least_probabilities is None


def test_hidden_states_that_are_missing_are_an_error() -> None:
    found = features()
    with pytest.raises(DecoderError, match=r"hidden states of 3 phrases, and has those of 0. Request them"):
        decoder()([PhraseFeatures(found.maps, found.box)])


def test_the_least_probability_leaves_the_first_of_several_tokens_out() -> None:
    said = (torch.tensor([0.01, 0.5, 0.25]).log(), torch.tensor([0.125]).log())
    assert least_probabilities(said).tolist() == pytest.approx([0.25, 0.125])


def absent_and_present() -> tuple[MaskLogits, np.ndarray]:
    """Logits of two phrases, the second of which is not in the image."""
    coarse = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(2), requires_grad=True)
    masks = np.zeros((2, 8, 8), np.bool_)
    masks[0, :4, :4] = True
    return MaskLogits(torch.ones(2, 1, 4, 4), coarse, (0, 0, 8, 8), presence=torch.tensor([1.0, -2.0])), masks


def test_an_absent_phrase_teaches_presence_and_no_mask() -> None:
    logits, masks = absent_and_present()
    found = decoder_loss([logits], [masks])
    alone = MaskLogits(logits.maps[:1], logits.coarse[:1], logits.box)
    of_presence = math.log1p(math.exp(-1.0)) + math.log1p(math.exp(-2.0))
    expected = decoder_loss([alone], [masks[:1]]).item() + of_presence
    assert found.item() == pytest.approx(expected, abs=1e-5)
    (gradient,) = torch.autograd.grad(found, logits.coarse)
    assert not gradient[1].any()
    assert bool(gradient[0].any())


def test_without_absent_phrases_the_masks_loss_is_what_it_was() -> None:
    logits, masks = absent_and_present()
    masks[1, 5:, 5:] = True
    plain = MaskLogits(logits.maps, logits.coarse, logits.box)
    learned = MaskLogits(logits.maps, logits.coarse, logits.box, presence=torch.zeros(2))
    difference = decoder_loss([learned], [masks]) - decoder_loss([plain], [masks])
    assert difference.item() == pytest.approx(2 * math.log(2), abs=1e-6)


def test_an_image_without_present_phrases_teaches_presence_alone() -> None:
    logits, masks = absent_and_present()
    masks[:] = False
    found = decoder_loss([logits], [masks])
    assert found.item() == pytest.approx(math.log1p(math.exp(1.0)) + math.log1p(math.exp(-2.0)), abs=1e-5)


def test_a_presence_head_comes_back_from_disk_with_its_calibration(tmp_path: Path) -> None:
    before = decoder()
    before.save(tmp_path, INFO)
    after = MaskDecoder.load(tmp_path, INFO)
    assert after.presence is not None
    assert after.presence.calibration == Calibration(1.5, -0.25, 0.4)
    assert all(torch.equal(tensor, after.state_dict()[name]) for name, tensor in before.state_dict().items())
    config = json.loads((tmp_path / "config.json").read_bytes())
    assert set(config["sha256"]) == {"model.safetensors", "presence.safetensors"}
    assert config["presence"] == {"width": 8, "scale": 1.5, "offset": -0.25, "threshold": 0.4}
    assert after.fingerprint() == before.fingerprint()


def test_calibration_is_part_of_the_fingerprint() -> None:
    built = decoder()
    before = built.fingerprint()
    assert built.presence is not None
    built.presence.calibration = Calibration()
    assert built.fingerprint() != before


def test_a_decoder_that_was_saved_without_one_loads_without_one(tmp_path: Path) -> None:
    MaskDecoder.untrained(INFO, base_width=2, depth=2).save(tmp_path, INFO)
    config = json.loads((tmp_path / "config.json").read_bytes())
    del config["presence"]  # as before there were presence heads
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert MaskDecoder.load(tmp_path, INFO).presence is None


def test_a_damaged_presence_file_is_an_error(tmp_path: Path) -> None:
    decoder().save(tmp_path, INFO)
    other = PresenceHead.of(INFO, INFO.channels, 8)
    save_file(other.state_dict(), tmp_path / "presence.safetensors")
    with pytest.raises(CheckpointError, match=r"presence.safetensors is damaged or was changed"):
        MaskDecoder.load(tmp_path, INFO)


def test_a_head_of_another_width_does_not_fit(tmp_path: Path) -> None:
    decoder().save(tmp_path, INFO)
    config = json.loads((tmp_path / "config.json").read_bytes())
    config["presence"]["width"] = 9
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DecoderError, match=r"The weights of the presence head do not fit: \d+ tensors differ"):
        MaskDecoder.load(tmp_path, INFO)


def test_absent_phrases_of_a_toy_world_are_told_apart() -> None:
    """Where only the hidden states differ, the head learns it; any other part of it alone could not."""

    def drawn(seed: int) -> tuple[PhraseFeatures, Tensor]:
        found, draw = features(seed, likelihood=False), torch.Generator().manual_seed(seed)
        present, way = torch.rand(3, generator=draw) < 0.5, torch.linspace(-4, 4, INFO.hidden_size)
        pairs = zip(found.hidden, present.float(), strict=True)
        hidden = tuple(states + (is_there - 0.5) * way for states, is_there in pairs)
        return PhraseFeatures(found.maps, found.box, hidden), present

    torch.manual_seed(0)
    head, coarse = PresenceHead.of(INFO, INFO.channels, 8), torch.zeros(3, 4, 6)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for seed in range(120):
        found, present = drawn(seed)
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(head(found, coarse), present.float()).backward()
        optimizer.step()
    right = [((head(found, coarse) > 0) == present).float().mean() for found, present in map(drawn, range(1000, 1040))]
    assert float(torch.stack(right).mean()) > 0.9
