"""Where the prompts of a bulk run come from: a folder of images, a JSONL file, or a data set.

A line of a JSONL file is an object such as

```json
{"image": "images/a.jpg", "text": "a dog on a sofa", "phrases": ["a dog", [9, 15]], "id": "a"}
```

`image` is relative to the folder of the file and stays in it. Phrases are words that occur once in the text, or spans
of its characters; without `phrases` the text is one phrase, and without `text` the image is shown with a question
alone. `ask` is the question that the text answers, and `ids` are the ids of the answer's tokens, where they are known.
Without `id` the name of the image is taken.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from vlm_adapters.answer import Answer
from vlm_adapters.data.access import DEFAULT_ACCESS, ImageFolder
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.folder import SAMPLES_FILE
from vlm_adapters.data.formats.json_lines import JsonLines, Line
from vlm_adapters.data.image_order import indices_by_image
from vlm_adapters.data.open import open_dataset
from vlm_adapters.errors import DataError, OptionError, PromptError
from vlm_adapters.images import ImageSource, load_image
from vlm_adapters.prompt import DESCRIBE_QUESTION, Message, PhraseLike, Prompt
from vlm_adapters.reading import open_regular

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif")
"""Endings of the files that a folder of images gives; others are not looked at."""

_BLANK = Image.new("RGB", (8, 8))


def prompt_of(
    image: ImageSource,
    text: str | None = None,
    phrases: Sequence[PhraseLike] | None = None,
    ask: str | None = None,
    ids: Sequence[int] | None = None,
) -> Prompt:
    """Build the prompt of one image of many.

    Args:
        image: An image in any form that `load_image` takes.
        text: The sentence, or the answer to `ask`; None shows the image with a question alone.
        phrases: Strings that occur once in the text, or spans of its characters; None for all of it.
        ask: The question; None for the standard one.
        ids: Ids of the answer's tokens.

    Raises:
        ImageError: The image cannot be used.
        PromptError: The text, a phrase or the answer cannot be used.
    """
    if ids is not None and (ask is None or text is None):
        raise PromptError("There are ids of an answer's tokens without the question, or its text. Give ask and text.")
    if text is None:
        if phrases:
            raise PromptError("There are phrases and no text. Give the text that contains them.")
        return Prompt.chat([Message("user", (load_image(image), ask or DESCRIBE_QUESTION))])
    chosen = [(0, len(text))] if phrases is None else phrases
    if ask is None:
        return Prompt.describe(image, text, chosen)
    return Prompt.chat([Message("user", (load_image(image), ask))]).answered(Answer(text, ids), chosen)


class PromptSource(ABC):
    """Prompts in a fixed order, each of which is read when it is needed; several threads may read at once.

    Attributes:
        has_text: Whether the prompts have a text beside the question.
    """

    has_text: bool = True

    @property
    @abstractmethod
    def source(self) -> str:
        """What the prompts are read from, in one line."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the prompts."""

    @abstractmethod
    def id(self, index: int) -> str:
        """The name of a prompt, by which its results are found."""

    @abstractmethod
    def read(self, index: int) -> Prompt:
        """Read a prompt with its image.

        Raises:
            ImageError: The image cannot be used.
            DataError: The entry cannot be used.
            PromptError: Text or phrases cannot be used.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of texts and phrases, and of names and sizes in bytes of the images, none of which is opened."""


class ImagesOfFolder(PromptSource):
    """All images of a folder and of its subfolders, sorted by name, with one text for all.

    Args:
        folder: The folder; files and folders whose names begin with a dot are not looked at.
        text: The sentence; None shows the images with a question alone.
        phrases: Strings that occur once in the text, or spans of its characters; None for all of it.
        names: Which images; None for all.

    Raises:
        DataError: There is no image in the folder.
        PromptError: The text or a phrase cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        text: str | None = None,
        phrases: Sequence[PhraseLike] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self._folder, self._text, self._phrases = folder, text, phrases
        self.has_text = text is not None
        prompt_of(_BLANK, text, phrases)  # mistakes show before an image is opened
        self._names = sorted(_image_names(folder)) if names is None else names
        if not self._names:
            raise DataError(
                f"There is no image in the folder {folder}. Give one with files such as .jpg or .png, or with "
                f"{SAMPLES_FILE}."
            )

    @property
    @override
    def source(self) -> str:
        return str(self._folder)

    @override
    def __len__(self) -> int:
        return len(self._names)

    @override
    def id(self, index: int) -> str:
        return self._names[index]

    @override
    def read(self, index: int) -> Prompt:
        return prompt_of(self._folder / self._names[index], self._text, self._phrases)

    @override
    def fingerprint(self) -> str:
        about = repr((self._text, self._phrases)).encode()
        return _fingerprint(about, (self._folder / name for name in self._names))


class PromptLine(BaseModel):
    """A line of a JSONL file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: str = Field(min_length=1)
    text: str | None = None
    phrases: list[str | tuple[int, int]] | None = None
    ask: str | None = None
    ids: list[int] | None = None
    id: str | None = Field(default=None, min_length=1)


class PromptLines(PromptSource):
    """A JSONL file with a prompt per line. Opening it reads every line and no image.

    Args:
        path: The file.

    Raises:
        DataError: The file cannot be read, a line of it is broken, or it has none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = ImageFolder(path.parent, DEFAULT_ACCESS)
        self._lines = JsonLines(path, PromptLine)
        self._ids: list[str] = []

        def check(_: Line, line: PromptLine) -> None:
            self._folder.named(line.image)
            try:
                prompt_of(_BLANK, line.text, line.phrases, line.ask, line.ids)
            except PromptError as error:
                raise DataError(str(error)) from error
            self._ids.append(line.id or line.image)

        self._numbers, problems = self._lines.usable(check)
        if problems:
            raise DataError(f"{problems[0].place}: {problems[0].message} Broken lines: {len(problems)}.")
        if not self._numbers:
            raise DataError(f"There is no line in {path}. Give an object with an image per line.")

    @property
    @override
    def source(self) -> str:
        return str(self._path)

    @override
    def __len__(self) -> int:
        return len(self._numbers)

    @override
    def id(self, index: int) -> str:
        return self._ids[index]

    @override
    def read(self, index: int) -> Prompt:
        line = self._lines.read(self._numbers[index])
        image = self._folder.check_inside(self._folder.named(line.image))
        return prompt_of(image, line.text, line.phrases, line.ask, line.ids)

    @override
    def fingerprint(self) -> str:
        with open_regular(self._path) as file:
            about = hashlib.file_digest(file, "sha256").digest()
        images = (self._folder.named(self._lines.read(line).image) for line in self._numbers)
        return _fingerprint(about, images)


class PromptsOfDataset(PromptSource):
    """The samples of a data set, those of one image beside each other so that they can share its pass.

    Args:
        dataset: The data set; its masks do not matter.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset, self._order = dataset, indices_by_image(dataset)

    @property
    @override
    def source(self) -> str:
        return self._dataset.source

    @override
    def __len__(self) -> int:
        return len(self._order)

    @override
    def id(self, index: int) -> str:
        return self._dataset.annotation(self._order[index]).id

    @override
    def read(self, index: int) -> Prompt:
        return self._dataset.sample(self._order[index]).prompt

    @override
    def fingerprint(self) -> str:
        return self._dataset.fingerprint()


def open_prompts(source: str, text: str | None = None, phrases: Sequence[PhraseLike] | None = None) -> PromptSource:
    """Open the prompts of a bulk run.

    Args:
        source: A folder of images, an image, a JSONL file, or a data set in any form that `open_dataset` takes.
        text: The sentence for all images of a folder.
        phrases: Its phrases; None for all of it.

    Raises:
        DataError: The source cannot be read, or there is nothing in it.
        OptionError: There is a text for a source that has its own.
        PromptError: The text or a phrase cannot be used.
    """
    path = Path(source)
    if os.path.isdir(source) and not (path / SAMPLES_FILE).is_file():  # noqa: PTH112 - a long name
        return ImagesOfFolder(path, text, phrases)
    if os.path.isfile(source) and path.suffix.lower() in SUFFIXES:  # noqa: PTH113 - a long name
        return ImagesOfFolder(path.parent, text, phrases, [path.name])
    if text is not None or phrases is not None:
        raise OptionError(f"{source} has its own texts and phrases. Leave TEXT, --phrase and --span out.")
    return PromptLines(path) if source.endswith(".jsonl") else PromptsOfDataset(open_dataset(source))


def _image_names(folder: Path) -> Iterable[str]:
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(path).relative_to(folder)
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield (inside / name).as_posix()


def _fingerprint(about: bytes, images: Iterable[Path]) -> str:
    digest = hashlib.sha256(about)
    for image in images:
        size = image.stat().st_size if image.is_file() else None
        digest.update(f"{image.name} {size}\n".encode())
    return digest.hexdigest()
