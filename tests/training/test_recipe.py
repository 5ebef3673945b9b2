"""Recipes: those that come with the library, changes to them, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vlm_adapters.data.open import open_dataset
from vlm_adapters.errors import DataError, RecipeError
from vlm_adapters.registry.load_options import NEVER_FROM_A_FILE
from vlm_adapters.training.recipe import Recipe, recipe_names

MODELS = (
    "llava-hf/llava-1.5-7b-hf",
    "llava-hf/llava-v1.6-vicuna-7b-hf",
    "deepseek-community/deepseek-vl-1.3b-chat",
    "Qwen/Qwen2.5-VL-7B-Instruct",
    "Qwen/Qwen3-VL-8B-Instruct",
)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_of_the_library_can_be_read_and_says_what_it_is(name: str) -> None:
    assert Recipe.read(name).model
    assert len(recipe_names()[name]) > 10


def test_the_papers_settings_are_in_its_recipe_for_every_model(subtests: pytest.Subtests) -> None:
    for model in MODELS:
        with subtests.test(model=model):
            recipe = Recipe.read("flmm", [f"model={model}"])
            assert (recipe.model, recipe.dtype) == (model, "bfloat16")
            assert (recipe.learning_rate, recipe.betas, recipe.weight_decay) == (1e-4, (0.9, 0.999), 0.01)
            assert (recipe.epochs, recipe.batch_size, recipe.warmup_ratio, recipe.max_grad_norm) == (8, 8, 0.03, 1.0)
            assert recipe.precision == "bfloat16"
            assert recipe.decoder.base_width == 64
            assert recipe.refiner is not None
            assert recipe.refiner.use_text


def test_the_data_of_the_papers_recipe_is_named_as_it_can_be_opened() -> None:
    recipe = Recipe.read("flmm")
    for data in [*recipe.train, recipe.validation]:
        assert data is not None
        with pytest.raises(DataError, match=r"(There is no|cannot be read).* data/\w+|data/\S+ cannot be read"):
            open_dataset(data)


def test_a_change_reaches_its_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: a\ntrain: ['scenes:count=3']\n")
    recipe = Recipe.read(
        str(path), ["epochs=2", "decoder.base_width=8", "refiner.sam=sam.pth", "refiner.use_box=false"]
    )
    assert (recipe.epochs, recipe.decoder.base_width) == (2, 8)
    assert recipe.refiner is not None
    assert (recipe.refiner.sam, recipe.refiner.use_box, recipe.refiner.use_mask) == ("sam.pth", False, True)


def test_a_recipe_says_how_its_backbone_is_loaded() -> None:
    cases = [
        ("device=cuda:1", "device", "cuda:1"),
        ("device=mps", "device", "mps"),
        ("dtype=bf16", "dtype", "bfloat16"),
        ("dtype=fp16", "dtype", "float16"),
        ("quantization=nf4", "quantization", "nf4"),
        ("attn_implementation=eager", "attn_implementation", "eager"),
    ]
    for change, key, value in cases:
        assert getattr(Recipe.read("scenes", [change]), key) == value, change


def test_what_the_caller_alone_decides_cannot_be_an_option_of_a_recipe(subtests: pytest.Subtests) -> None:
    for keyword in sorted(NEVER_FROM_A_FILE):
        with (
            subtests.test(keyword=keyword),
            pytest.raises(RecipeError, match=f"options: {keyword} decides how a model is loaded; a file cannot set it"),
        ):
            Recipe.read("scenes", [f"options.{keyword}=true"])


def test_one_set_to_learn_from_needs_no_list() -> None:
    assert Recipe.read("scenes", ["train=scenes:count=3,seed=9"]).train == ["scenes:count=3,seed=9"]


def test_a_recipe_comes_back_from_json() -> None:
    recipe = Recipe.read("scenes")
    assert Recipe.model_validate(yaml.safe_load(recipe.model_dump_json())) == recipe


def test_a_mistake_is_reported(subtests: pytest.Subtests) -> None:
    cases: list[tuple[list[str], str]] = [
        (["epoch=2"], r"unknown key 'epoch'\. Did you mean 'epochs'\?"),
        (["zzz=2"], r"unknown key 'zzz'\. Use model, options, dtype, .*, max_grad_norm, "),
        (["clip=2"], r"unknown key 'clip'\. Use model, .*, max_grad_norm, "),
        (["batch=2"], r"unknown key 'batch'\. Did you mean 'batch_size'\?"),
        (["decoder.base_widht=2"], r"unknown key 'decoder.base_widht'\. Did you mean 'base_width'\?"),
        (["epochs=0"], "epochs: Input should be greater than or equal to 1"),
        (["epochs"], "'epochs' is not of the form key=value"),
        (["epochs.more=1"], "goes into 'epochs', which has no keys"),
        (["train=[]"], "train: List should have at least 1 item"),
        (["epochs=[1"], "cannot be read as YAML"),
        (["top_heads=3"], "top_heads chooses among the heads of a profile; name it with head_profile"),
        (["precision=float8"], "precision: Input should be 'float32' or 'bfloat16', found 'float8'"),
        (["device=banana"], "device: Unknown device 'banana'. Use auto, cpu, cuda, cuda:1, mps, .*, found 'banana'"),
        (["dtype=float99"], "dtype: Unknown dtype 'float99'. Use auto, float32, .*, found 'float99'"),
        (["quantization=int4"], "quantization: Input should be 'nf4' or 'int8', found 'int4'"),
        (["attn_implementation=someone/kernel"], "attn_implementation: String should match pattern"),
        (["options.trust_remote_code=true"], "options: trust_remote_code decides how a model is loaded; a file cannot"),
        (["betas=[2,0.9]"], r"betas\.0: Input should be less than 1, found 2"),
        (["seed=-1"], "seed: Input should be greater than or equal to 0"),
        (["epochs=true"], "epochs: Input should be a valid integer, found True"),
        (["weight_decay=.inf"], "weight_decay: Input should be a finite number"),
    ]
    for changes, message in cases:
        with subtests.test(changes=changes), pytest.raises(RecipeError, match=message):
            Recipe.read("scenes", changes)


def test_a_recipe_that_is_not_there_is_reported_with_those_that_are() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'scene'.* one of flmm, quick, scenes\."):
        Recipe.read("scene")


@pytest.mark.parametrize(("text", "message"), [("- a", "holds a list"), ("a: [", "cannot be read as YAML")])
def test_a_file_that_is_not_a_recipe_is_reported(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        Recipe.read(str(path))
