"""The loss of `attention_loss.py` beside the language-model loss, in an `SFTTrainer` of trl.

    pip install peft trl
    python examples/attention_loss_trl.py [MODEL]

The trainer's batches are the adapter's inputs with labels on the tokens of the caption, so both losses read the same
prompts. The attention loss takes a pass of its own. Neither `trl` nor `peft` is a dependency of the library.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import torch
from attention_loss import share_inside
from datasets import Dataset
from peft import LoraConfig, inject_adapter_in_model
from trl import SFTConfig, SFTTrainer
from typing_extensions import override

from vlm_adapters import BackboneAdapter, load_adapter, open_dataset

SCENES, STEPS, BATCH, WEIGHT = 96, 12, 8, 5.0


class AttentionSFTTrainer(SFTTrainer):
    """Adds to the loss of the words how much of what phrases look at lies outside their masks."""

    def __init__(self, adapter: BackboneAdapter, samples: Any, **options: Any) -> None:
        self.adapter, self.samples = adapter, samples
        super().__init__(
            adapter.model,
            train_dataset=Dataset.from_dict({"index": list(range(len(samples)))}),
            data_collator=self.collate,
            processing_class=adapter.processor.tokenizer,
            **options,
        )

    def collate(self, rows: list[dict[str, int]]) -> dict[str, Any]:
        """The inputs of a batch, the labels of its captions, and which samples they are."""
        indices = [row["index"] for row in rows]
        prompts = [self.samples[index].prompt for index in indices]
        whole = [type(prompt).chat(prompt.messages, [(0, len(prompt.text))]) for prompt in prompts]
        inputs = self.adapter.preprocess(whole)
        labels = torch.full_like(inputs.tensors["input_ids"], -100)
        for row, ids, (tokens,) in zip(labels, inputs.tensors["input_ids"], inputs.phrase_tokens, strict=True):
            row[tokens] = ids[tokens]
        return {**inputs.tensors, "labels": labels, "index": torch.tensor(indices)}

    @override
    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **options: Any) -> Any:
        """The loss of the words and, weighted, that of the attention."""
        samples = [self.samples[index] for index in inputs.pop("index").tolist()]
        found = super().compute_loss(model, inputs, return_outputs=return_outputs, **options)
        outside = WEIGHT * (1 - share_inside(self.adapter, samples).mean())
        return (found[0] + outside, found[1]) if return_outputs else found + outside


def main() -> None:
    """Train a few steps, and print how much of the attention lies inside on scenes that were not trained on."""
    torch.manual_seed(0)
    adapter = load_adapter(sys.argv[1] if len(sys.argv) > 1 else "tiny-qwen2_5_vl")
    inject_adapter_in_model(LoraConfig(r=4, target_modules=r".*language_model.*\.(q|k)_proj"), adapter.model)
    held_out = open_dataset("scenes:count=16,seed=4")
    with torch.no_grad():
        print(f"before: {share_inside(adapter, held_out).mean():.3f} of the attention lies inside the mask")
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            folder,
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            learning_rate=1e-2,
            activation_checkpointing=False,  # layers that run again record no rows
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            report_to="none",
            save_strategy="no",
            bf16=False,
            use_cpu=not torch.cuda.is_available(),
        )
        trainer = AttentionSFTTrainer(adapter, open_dataset(f"scenes:count={SCENES}"), args=settings)
        trainer.train()
    with torch.no_grad():
        print(f"after:  {share_inside(adapter, held_out).mean():.3f}")


if __name__ == "__main__":
    main()
