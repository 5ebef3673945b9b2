"""How far a data set may reach: the limits on its files, and the folder that its images stay in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from vlm_adapters.errors import DataError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, shown


@dataclass(frozen=True)
class Access:
    """What a data set may do with files.

    Attributes:
        limits: What is accepted of them.
        allow_outside: Whether names in its files may lead out of the folder of its images, by `..`, an absolute path
            or a symbolic link.
    """

    limits: Limits = DEFAULT_LIMITS
    allow_outside: bool = False


DEFAULT_ACCESS = Access()


@dataclass(frozen=True)
class ImageFolder:
    """A folder with images that other files name.

    Attributes:
        path: The folder.
        access: Whether names may lead out of it.
    """

    path: Path
    access: Access

    @classmethod
    def existing(cls, path: str | os.PathLike[str], access: Access) -> ImageFolder:
        """Check that the folder exists.

        Raises:
            DataError: It does not.
        """
        if not os.path.isdir(path):  # noqa: PTH112 - `Path.is_dir` raises where a name is too long
            raise DataError(f"There is no folder {os.fspath(path)}. Check the path.")
        return cls(Path(path), access)

    def named(self, name: str) -> Path:
        """Find the path of an image by its name; a backslash separates folders, as a slash does.

        Raises:
            DataError: The name leads out of the folder; links are not looked at.
        """
        parts = name.replace("\\", "/").split("/")
        has_drive = ":" in name and PureWindowsPath(name).drive
        leads_out = (not parts[0] and len(parts) > 1) or ".." in parts or has_drive
        if leads_out and not self.access.allow_outside:
            raise DataError(
                f"{shown(name, 200)} is outside the folder. Give a path relative to the folder, or allow others with "
                "open_dataset(..., allow_outside=True)."
            )
        return self.path / "/".join(parts)

    def check_inside(self, path: Path) -> Path:
        """Return the path of an image if no link leads out of the folder.

        Raises:
            DataError: One does.
        """
        if not self.access.allow_outside:
            try:
                target, folder = os.path.realpath(path), os.path.realpath(self.path)
            except (OSError, ValueError) as error:  # a name that no file system has
                raise DataError(f"The image {shown(str(path), 200)} has an impossible name: {error}.") from error
            if os.path.commonpath([target, folder]) != folder:
                raise DataError(
                    f"The image {path} is a link to {shown(target, 200)}, outside the folder {self.path}. Copy it "
                    "there, or allow it with open_dataset(..., allow_outside=True)."
                )
        return path
