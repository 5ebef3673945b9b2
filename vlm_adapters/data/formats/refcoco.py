"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO, in their published files: `instances.json` beside those of the refs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from vlm_adapters.data.access import DEFAULT_ACCESS, Access, ImageFolder
from vlm_adapters.data.formats.coco_files import Instances, image_path, open_image
from vlm_adapters.data.formats.referring import DEFAULT_POLICY, Ref, ReferringExpressions, SentencePolicy
from vlm_adapters.data.formats.refs import GREFCOCO, REFCOCO, Refs, RefsForm
from vlm_adapters.data.sample import NO_TARGET, Sample
from vlm_adapters.data.uri import format_uri


class RefCoco(ReferringExpressions):
    """A split of RefCOCO, RefCOCO+ or RefCOCOg. Phrase ids are `"ref_id/sent_id"`.

    Args:
        annotations: Folder with `instances.json` and `refs(*.p)`.
        images: Folder of COCO's train2014 images.
        split: The split, such as `val` or `testA`.
        split_by: Who made the splits: `unc`, `umd` or `google`; None if there is only one file of refs.
        policy: How the sentences of refs become samples.
        access: How far the files may reach.

    Raises:
        DataError: A folder, file or split is missing, or a file is malformed.
    """

    refs_form: ClassVar[RefsForm] = REFCOCO

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        *,
        split: str,
        split_by: str | None = None,
        policy: SentencePolicy = DEFAULT_POLICY,
        access: Access = DEFAULT_ACCESS,
    ) -> None:
        self.access = access
        self._annotations = ImageFolder.existing(annotations, access).path
        self._images = ImageFolder.existing(images, access)
        self._split = split
        self._instances = Instances.read(self._annotations / "instances.json", access)
        file = self.refs_form.file(self._annotations, split_by)
        self._file = Refs.read(file, split, self.refs_form, self._instances, self._images)
        # of the set's 196,771 annotations a split needs some thousands
        self._instances.images.keep({ref.image for ref in self._file.refs})
        self._instances.annotations.keep({number for ref in self._file.refs for number in ref.annotations})
        self.problems = self._file.problems
        super().__init__(self._file.refs, policy)

    @property
    @override
    def source(self) -> str:
        keys = {"annotations": str(self._annotations), "images": str(self._images.path), "split": self._split}
        return format_uri(self.refs_form.kind, {**keys, "split_by": self._file.split_by, **self._policy.keys()})

    @override
    def tags(self, ref: Ref) -> tuple[str, ...]:
        return ()

    @override
    def place(self, index: int) -> str:
        entries = dict.fromkeys(str(ref.entry) for ref in self.refs_of(index))
        return f"{self._file.path}[{', '.join(entries)}]"

    @override
    def files(self) -> tuple[Path, ...]:
        return (self._annotations / "instances.json", self._file.path)

    @override
    def image_file(self, index: int) -> Path:
        return image_path(self._images, self._instances.images, self.refs_of(index)[0].image)

    @override
    def sample(self, index: int) -> Sample:
        refs = self.refs_of(index)
        entry = self._instances.images[refs[0].image]
        size = (entry.height, entry.width)
        image = open_image(self._images.check_inside(self.image_file(index)), size, self.access.limits)
        masks = self._instances.masks([ref.annotations for ref in refs], size)
        return Sample(**vars(self.annotation(index)), image=image, masks=masks)


class GRefCoco(RefCoco):
    """A split of gRefCOCO, whose sentences name one object of COCO, several, or none.

    The mask of several is their union; of none it is empty. Tags are `target` with `singular` or `plural`, and
    `no target`. Arguments and errors are those of `RefCoco`; `annotations` has `instances.json` and `grefs(*).json`.
    """

    refs_form = GREFCOCO

    @override
    def tags(self, ref: Ref) -> tuple[str, ...]:
        if not ref.annotations:
            return (NO_TARGET,)
        return ("target", "singular" if len(ref.annotations) == 1 else "plural")
