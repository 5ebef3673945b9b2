"""Let any engine answer a question about many images, and ground its answers by the tokens that it wrote.

    python examples/replay_answers.py [MODEL] [FOLDER]

`engine` stands for whatever generates: with vLLM, `text` and `token_ids` of `RequestOutput.outputs[0]` are what it
gives. Its answers become a JSONL file, which `adapters ground` and `run_bulk` read: the backbone here sees exactly the
tokens that were generated. It writes the lines, and shards of masks beside them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from vlm_adapters import Answer, Message, Prompt, open_dataset
from vlm_adapters.bulk import Ground, open_prompts, read_results, run_bulk

COUNT = 6
QUESTION = "Please give me a description of the image."


def engine(model: Any, image: Image.Image) -> Answer:
    """Answer the question about an image; here with the backbone itself."""
    answer: Answer = model.generate(Prompt.chat([Message("user", (image, QUESTION))]), max_new_tokens=32)
    return answer


def main() -> None:
    """Answer, write the lines, ground them, and print what came of it."""
    model = sys.argv[1] if len(sys.argv) > 1 else "tiny-llava"
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "answers")
    folder.mkdir(parents=True, exist_ok=True)
    ground = Ground(model)
    with (folder / "answers.jsonl").open("w", encoding="utf-8") as lines:
        for scene in open_dataset(f"scenes:count={COUNT},seed=4"):
            scene.image.save(folder / f"{scene.id}.png")
            answer = engine(ground.adapter, scene.image)
            line = {"image": f"{scene.id}.png", "ask": QUESTION, "text": answer.text, "ids": answer.ids}
            lines.write(json.dumps(line) + "\n")
    index = run_bulk(ground, open_prompts(str(folder / "answers.jsonl")), folder / "grounded")
    for item, found in read_results(folder / "grounded"):
        (phrase,) = found["phrases"]
        print(f"{item.id}: {item.text!r}, {len(found['answer']['ids'])} tokens, score {phrase['score']:.2f}")
    print(f"{index.items} answers, {len(index.failed)} failed, in {folder}")


if __name__ == "__main__":
    main()
