"""Data sets that change, and the digests of a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from vlm_adapters.data.dataset import Dataset, Subset
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import ImageError


class Changed(Dataset):
    """A set one of whose images is another, or is gone."""

    def __init__(self, whole: Dataset, index: int, *, broken: bool = False) -> None:
        self.whole, self.index, self.broken = whole, index, broken

    @property
    def source(self) -> str:
        return self.whole.source

    def __len__(self) -> int:
        return len(self.whole)

    def sample(self, index: int) -> Sample:
        sample = self.whole[index]
        if index == self.index:
            if self.broken:
                raise ImageError("the image is gone")
            sample.image.putpixel((0, 0), (1, 2, 3))
        return sample


class OneSample(Dataset):
    """One sample, its phrases with ids and tags."""

    def __init__(self, sample: Sample, *, phrase_ids: bool) -> None:
        count = len(sample.phrases)
        fields = {name: getattr(sample, name) for name in Sample.__dataclass_fields__}
        fields["phrase_ids"] = tuple(f"12/{i}" for i in range(count)) if phrase_ids else ()
        fields["phrase_tags"] = (("thing", "plural"),) * count
        self.one = Sample(**fields)

    @property
    def source(self) -> str:
        return "one"

    def __len__(self) -> int:
        return 1

    def sample(self, index: int) -> Sample:
        del index
        return self.one

    def annotation(self, index: int) -> Any:
        from vlm_adapters.training.samples import annotation_of  # noqa: PLC0415

        return annotation_of(self.sample(index))


class AlternatingFiles(Subset):
    """The samples of another data set, two images in turn."""

    def image_file(self, index: int) -> Path:
        return Path(f"{index % 2}.png")


def digests(folder: Path) -> dict[str, str]:
    """Every file of a folder, by its content."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
