"""Families for which no adapter can be built and tested, with the reason: by model type, usual name and checkpoint.

`find_checkpoint`, `find_adapter` and the scaffold refuse them before any weights are downloaded, unless a plugin offers
an adapter of that name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UnsupportedFamily:
    """A family without an adapter.

    Attributes:
        name: Usual name of the family; for a family of transformers, its `model_type`.
        checkpoints: Hub ids of its checkpoints.
        reason: Reason why there is no adapter, without a full stop.
        model_types: Values of `model_type` in the `config.json` of its checkpoints, if not the name itself.
    """

    name: str
    checkpoints: tuple[str, ...]
    reason: str
    model_types: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The usual name and the model types."""
        return self.name, *self.model_types

    @property
    def refusal(self) -> str:
        """The error message for whoever wants an adapter for it."""
        return f"No adapter can be built for {self.name}: {self.reason}."


def unsupported_family(name: str) -> UnsupportedFamily | None:
    """Find the family of a model type, usual name or hub id, in upper or lower case; None if it is not listed."""
    wanted = name.casefold()
    for family in UNSUPPORTED:
        if wanted in map(str.casefold, (*family.names, *family.checkpoints)):
            return family
    return None


def _resampled(queries: str) -> str:
    return f"a resampler reads the image into {queries}, which stand for no places in it, so there is no grid"


_CROSS_ATTENTION = (
    "the text sees the image by cross-attention: its keys are in no sequence, so no token of the sequence shows a place"
)
_ENCODER_DECODER = (
    "an encoder reads the image, and a decoder writes the text in a sequence of its own, "
    "so image and text are in no sequence together"
)
_DISCRETE = (
    "a quantiser turns the image into discrete codes (VQ) of a vocabulary, and no adapter of such has been tested"
)
_REMOTE_CODE = "remote code only: transformers has no class of it, so it cannot be run without code from its repository"
_OWN_PACKAGE = "its code is a package of its authors: transformers has no class of it and cannot load its checkpoints"

_RESAMPLERS = (
    UnsupportedFamily("aria", ("rhymes-ai/Aria",), _resampled("128 or 256 learned queries")),
    UnsupportedFamily(
        "blip-2",
        ("Salesforce/blip2-opt-2.7b", "Salesforce/blip2-opt-6.7b", "Salesforce/blip2-flan-t5-xl"),
        _resampled("the 32 learned queries of a Q-Former"),
    ),
    UnsupportedFamily("deepseek_ocr2", ("deepseek-community/DeepSeek-OCR-2",), _resampled("learned queries")),
    UnsupportedFamily("idefics2", ("HuggingFaceM4/idefics2-8b",), _resampled("64 learned queries")),
    UnsupportedFamily(
        "instructblip",
        ("Salesforce/instructblip-flan-t5-xl", "Salesforce/instructblip-vicuna-7b"),
        _resampled("the 32 learned queries of a Q-Former"),
    ),
    UnsupportedFamily("instructblipvideo", (), _resampled("the 32 learned queries of a Q-Former")),
    UnsupportedFamily("kosmos-2", ("microsoft/kosmos-2-patch14-224",), _resampled("64 learned queries")),
    UnsupportedFamily("kosmos-2.5", ("microsoft/kosmos-2.5",), _resampled("2048 learned queries")),
    UnsupportedFamily(
        "MiniCPM-V up to 4.5",
        (
            "openbmb/MiniCPM-V",
            "openbmb/MiniCPM-V-2",
            "openbmb/MiniCPM-Llama3-V-2_5",
            "openbmb/MiniCPM-V-2_6",
            "openbmb/MiniCPM-V-4",
            "openbmb/MiniCPM-V-4_5",
            "openbmb/MiniCPM-o-2_6",
        ),
        _resampled("64 or 96 learned queries a slice"),
        ("minicpmv", "minicpmo"),
    ),
)

_OTHER_SHAPES = (
    UnsupportedFamily("blip", ("Salesforce/blip-vqa-base",), _CROSS_ATTENTION),
    UnsupportedFamily("idefics", ("HuggingFaceM4/idefics-9b", "HuggingFaceM4/idefics-80b"), _CROSS_ATTENTION),
    UnsupportedFamily(
        "mllama",
        (
            "meta-llama/Llama-3.2-11B-Vision",
            "meta-llama/Llama-3.2-11B-Vision-Instruct",
            "meta-llama/Llama-3.2-90B-Vision",
            "meta-llama/Llama-3.2-90B-Vision-Instruct",
        ),
        _CROSS_ATTENTION,
    ),
    UnsupportedFamily(
        "git",
        ("microsoft/git-base", "microsoft/git-large"),
        "the model puts the image's embeddings before the text by itself, and no token of the sequence stands for them",
    ),
    UnsupportedFamily(
        "florence2", ("florence-community/Florence-2-base", "florence-community/Florence-2-large"), _ENCODER_DECODER
    ),
    UnsupportedFamily("pix2struct", ("google/pix2struct-base",), _ENCODER_DECODER),
    UnsupportedFamily("pp_formulanet", ("PaddlePaddle/PP-FormulaNet_plus-L_safetensors",), _ENCODER_DECODER),
    UnsupportedFamily("t5gemma2", ("google/t5gemma-2-270m-270m",), _ENCODER_DECODER),
    UnsupportedFamily("udop", ("microsoft/udop-large",), _ENCODER_DECODER),
    UnsupportedFamily("vision-encoder-decoder", (), _ENCODER_DECODER),
    UnsupportedFamily("apertus1p5", ("swiss-ai/Apertus-v1.5-8B",), _DISCRETE),
    UnsupportedFamily("chameleon", ("facebook/chameleon-7b", "facebook/chameleon-30b"), _DISCRETE),
    UnsupportedFamily("emu3", ("Emu3-community/Emu3-Chat-hf",), _DISCRETE),
    UnsupportedFamily("evolla", ("westlake-repl/Evolla-10B-hf",), "it reads proteins, not images"),
    UnsupportedFamily("mistral4", (), "it reads text only; its checkpoints that read images are of another model type"),
    UnsupportedFamily("pi0", ("lerobot/pi0_base",), "it writes the motions of a robot, not text"),
)

_NOT_IN_TRANSFORMERS = (
    UnsupportedFamily(
        "cogvlm2",
        ("THUDM/cogvlm2-llama3-chat-19B", "THUDM/cogvlm2-llama3-chat-19B-tgi"),
        f"{_REMOTE_CODE}; the model of CogVLM in this library is another (no grouped heads, no merging of patches)",
    ),
    UnsupportedFamily(
        "DeepSeek-VL2",
        ("deepseek-ai/deepseek-vl2-tiny", "deepseek-ai/deepseek-vl2-small", "deepseek-ai/deepseek-vl2"),
        _OWN_PACKAGE,
        ("deepseek_vl_v2",),
    ),
    UnsupportedFamily(
        "HPT",
        ("HyperGAI/HPT", "HyperGAI/HPT1_5-Air-Llama-3-8B-Instruct-multimodal", "HyperGAI/HPT1_5-Edge"),
        _OWN_PACKAGE,
    ),
    UnsupportedFamily(
        "Kimi-VL",
        (
            "moonshotai/Kimi-VL-A3B-Instruct",
            "moonshotai/Kimi-VL-A3B-Thinking",
            "moonshotai/Kimi-VL-A3B-Thinking-2506",
        ),
        _REMOTE_CODE,
        ("kimi_vl",),
    ),
    UnsupportedFamily(
        "LLaVA-OneVision-1.5",
        ("lmms-lab/LLaVA-OneVision-1.5-4B-Instruct", "lmms-lab/LLaVA-OneVision-1.5-8B-Instruct"),
        _REMOTE_CODE,
        ("llavaonevision1_5",),
    ),
    UnsupportedFamily(
        "MGM",
        ("YanweiLi/MGM-2B", "YanweiLi/MGM-7B", "YanweiLi/MGM-7B-HD", "YanweiLi/MGM-13B", "YanweiLi/MGM-34B-HD"),
        _OWN_PACKAGE,
        ("mgm_gemma", "mgm_mistral", "mgm_mixtral", "mini_gemini"),
    ),
    UnsupportedFamily(
        "Molmo",
        (
            "allenai/Molmo-7B-D-0924",
            "allenai/Molmo-7B-O-0924",
            "allenai/Molmo-72B-0924",
            "allenai/MolmoE-1B-0924",
        ),
        f"{_REMOTE_CODE}; Molmo 2 is in transformers",
    ),
    UnsupportedFamily("Ovis2.5", ("AIDC-AI/Ovis2.5-2B", "AIDC-AI/Ovis2.5-9B"), _REMOTE_CODE, ("ovis2_5",)),
)

UNSUPPORTED = tuple(
    sorted((*_RESAMPLERS, *_OTHER_SHAPES, *_NOT_IN_TRANSFORMERS), key=lambda family: family.name.casefold())
)
"""All of them by name."""
