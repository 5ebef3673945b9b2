"""The only door for images: any source becomes an upright RGB image, or a clear `ImageError`.

What `load_image` does (nothing else in the library opens or converts an image):

* **Upright**: turned once, by its EXIF (or XMP) orientation. The result has no orientation and no other metadata.
* **Transparency** (alpha channel, transparent palette entry or colour): laid on white.
* **Palette, grey, 1-bit, CMYK, YCbCr, LAB, HSV**: converted by PIL. Colour profiles are ignored.
* **16-bit and 32-bit integers** (PIL modes `I;16*` and `I`, `uint16` arrays): white is 255 if no value is above it
  (8-bit values in a wide type, as PIL's own `convert` writes them), else 65535. Values outside [0, 65535] are an error.
* **Floats in a PIL image** (mode `F`): white is 1 if no value is above it, else 255 (PIL's own convention). Negative
  values, values above 255 and non-finite ones are an error; so is a largest value between 1 and 2, which may be either.
* **Floats in an array or a tensor**: white is 1; every value must be finite and lie in [0, 1].
* **Channels** are last in an array and first in a tensor, as each library has them; the other order is an error.
* **Open files** are read from where they stand; of a dict of `datasets`, the bytes, or else the path.
* **Booleans**: False is black, True is white.
* **Animations**: the first frame of a file; the current frame of a PIL image.
* **Limits** of pixels and aspect hold for every source and are checked from the header, before anything is decoded.
* **Formats**: those of `FORMATS`. Others are refused, such as EPS, which PIL would pass to another program.
* **URLs** are refused: a prompt must not make the library read from a network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from vlm_adapters.errors import ImageError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, shown
from vlm_adapters.pixels import (
    BYTE,
    array_and_name,
    bytes_of_array,
    float_white,
    integer_white,
    is_tensor,
    scaled,
    strips,
)
from vlm_adapters.reading import CountedBytes, CountedFile, open_regular


class OpenFile(Protocol):
    """A file that is open for reading bytes, such as `io.BytesIO`."""

    def read(self, size: int = ..., /) -> bytes:
        """Read so many bytes."""
        ...


class TensorLike(Protocol):
    """A tensor of torch, which is not imported here."""

    @property
    def requires_grad(self) -> bool:
        """Whether gradient flows into it."""
        ...

    def detach(self) -> Any:
        """The tensor without its gradient."""
        ...


ImageSource = (
    str | os.PathLike[str] | bytes | Image.Image | np.ndarray[Any, Any] | OpenFile | TensorLike | Mapping[str, Any]
)
"""What `load_image` takes."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""The file formats that are read, by PIL's names."""

_URL = re.compile(r"\s*(?:[a-z][a-z0-9+.-]+://|(?:https?|ftps?|file|data):)", re.IGNORECASE)
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WITH_ALPHA = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa")
_TEXT_PIXELS = (b"P1", b"P2", b"P3")
_MOST_TEXT = 16 * 1024**2


@dataclass(frozen=True)
class ImageHeader:
    """The header of an image file.

    Attributes:
        size: `(H, W)` as stored, before the orientation is applied; of a TIFF after it.
        orientation: EXIF (or XMP) orientation; 1 is upright.
        opaque_rgb: Whether the pixels are RGB without transparency.
    """

    size: tuple[int, int]
    orientation: int
    opaque_rgb: bool

    @property
    def is_upright_rgb(self) -> bool:
        """Whether any other program gets the same upright RGB image from the file as `load_image`."""
        return self.orientation == 1 and self.opaque_rgb


def load_image(source: ImageSource, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """Open an image, upright and RGB, by the rules at the top of this module.

    Args:
        source: A path, the bytes of a file, a file that is open for reading bytes, a PIL image, an array of `bool`,
            `uint8`, `uint16` or floats of shape (H, W) or (H, W, C), or a tensor of torch of such a type and of shape
            (H, W) or (C, H, W), where C is 1, 3 or 4; or what `datasets` gives for an image that is not decoded:
            `{"bytes": ..., "path": ...}`. It is not changed (a file is read).
        limits: What is accepted.

    Returns:
        A new image of mode `RGB` without metadata. Given to `load_image` again, it comes back with the same pixels.

    Raises:
        ImageError: It is missing, a URL, empty, not an image, damaged, beyond the limits, or of a type or range
            for which there is no rule.

    Examples:
        >>> import numpy as np
        >>> from vlm_adapters import load_image
        >>> image = load_image(np.full((20, 30), 255, dtype=np.uint8))
        >>> image.mode, image.size, image.getpixel((0, 0))
        ('RGB', (30, 20), (255, 255, 255))
    """
    if isinstance(source, Mapping) and set(source) == {"bytes", "path"}:
        source = source["bytes"] or source["path"]
    if callable(read := getattr(source, "read", None)):
        source = _content(read, limits)
    if isinstance(source, Image.Image):
        return _finished(source, f"The PIL image of mode {source.mode}", limits)
    if isinstance(source, bytes):
        return _decoded(CountedBytes(source), f"The image of {len(source)} bytes", limits)
    if isinstance(source, str | os.PathLike):
        with _file(os.fsdecode(source)) as (file, what):
            return _decoded(file, what, limits)
    if isinstance(source, np.ndarray) or is_tensor(source):
        return _from_array(*array_and_name(source), limits)
    raise ImageError(
        f"A {type(source).__name__} is not an image. Give a path, the bytes of a file, an open file, a PIL image, a "
        'numpy array (H, W, 3), a torch tensor (3, H, W) or {"bytes": ..., "path": ...}.'
    )


def read_header(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> ImageHeader:
    """Read the header of an image file, decoding no pixel where its format allows that.

    Raises:
        ImageError: It is missing, a URL, empty, not an image, beyond the limits, or has a damaged header.
    """
    with _file(os.fsdecode(path)) as (file, what), _opened(file, what) as image:
        _check_size(image.size, what, limits)
        opaque_rgb = image.mode == "RGB" and not image.has_transparency_data
        return ImageHeader((image.height, image.width), _orientation(image), opaque_rgb)


@contextmanager
def _file(name: str) -> Iterator[tuple[CountedFile, str]]:
    """Open a file, and yield it with the words that name it in an error."""
    what = f"The image {shown(name, 200)}"
    if _URL.match(name):
        raise ImageError(
            f"{what} is a URL. The library opens no URL and does no network access on behalf of a prompt: download "
            "it first and pass a path or its bytes."
        )
    path = Path(name)
    try:
        _check_is_file(path, name, what)
        with CountedFile(open_regular(path).detach()) as file:
            yield file, what
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise ImageError(f"{what} cannot be read: {error}. Check the path and its permissions.") from error


def _content(read: Callable[[int], object], limits: Limits) -> bytes:
    """What is left of an open file."""
    try:
        content = read(limits.max_file_bytes)
    except (OSError, ValueError) as error:  # such as a file that is closed
        raise ImageError(f"An open file cannot be read: {error}. Open it again.") from error
    if not isinstance(content, bytes) or not content:
        raise ImageError(
            f"An open file gave {shown(content)} for an image. Open it with mode 'rb', and take it to its beginning: "
            "file.seek(0)."
        )
    return content


def _check_is_file(path: Path, name: str, what: str) -> None:
    if not name or not path.exists():
        raise ImageError(f"{what} does not exist (seen from the folder {shown(str(Path.cwd()), 200)}). Check the path.")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise ImageError(f"{what} is {kind}. Give the path of an image file.")


def _from_array(array: npt.NDArray[Any], what: str, limits: Limits) -> Image.Image:
    _check_size((array.shape[1], array.shape[0]), what, limits)
    pixels = bytes_of_array(array, what)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return _finished(Image.fromarray(np.ascontiguousarray(pixels)), what, limits)


def _decoded(file: CountedFile | CountedBytes, what: str, limits: Limits) -> Image.Image:
    with _opened(file, what) as image:
        file.allow_decoding()
        return _finished(image, what, limits, is_ours=True)


def _opened(file: CountedFile | CountedBytes, what: str) -> ImageFile.ImageFile:
    """Read the header without `Image.open`, which warns or fails at PIL's process-wide limit; here `limits` decide."""
    Image.init()
    prefix = file.read(16)
    if not prefix:
        raise ImageError(f"{what} is empty. Check how it was written or downloaded.")
    if prefix.startswith(_TEXT_PIXELS) and file.seek(0, os.SEEK_END) > _MOST_TEXT:
        raise ImageError(f"{what} has its pixels as text, more than {_MOST_TEXT:,} bytes. Export it as a PNG.")
    try:
        for name in FORMATS:
            factory, accept = Image.OPEN.get(name, (None, None))
            if factory and accept and accept(prefix) is True:
                file.seek(0)
                return factory(file, "")
    except Exception as error:  # PIL's readers raise errors of every kind on damaged files
        raise ImageError(f"{what} has a damaged header: {_reason(error)}. Download or export it again.") from error
    raise ImageError(f"{what} is not an image in a format that is read here. Give one of {', '.join(FORMATS)}.")


def _finished(image: Image.Image, what: str, limits: Limits, *, is_ours: bool = False) -> Image.Image:
    """Check the size, decode, make RGB, turn upright; what is ours is closed as soon as it is copied."""
    _check_size(image.size, what, limits)
    try:
        image.load()
    except Exception as error:  # PIL's decoders raise errors of every kind on damaged files
        raise ImageError(f"{what} is truncated or damaged: {_reason(error)}. Download or export it again.") from error
    try:
        rgb = _rgb(image, what)
    except ImageError:
        raise
    except Exception as error:  # an unknown mode, or a palette that its own file contradicts
        raise ImageError(f"{what} cannot be converted to RGB: {_reason(error)}. Export it as a PNG.") from error
    turn = _TURNS.get(_orientation(image))
    if is_ours:
        image.close()
    upright = rgb if turn is None else rgb.transpose(turn)
    upright.info = {}
    return upright


def _reason(error: Exception) -> str:
    """The message of an error of PIL, which may hold anything of the file."""
    return shown(str(error) or type(error).__name__, 200)[1:-1]


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 where there is none. Of a decoded TIFF too: decoding it, PIL turns it and drops its tag."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001  damaged metadata must not cost an image that can be decoded
        return 1


def _rgb(image: Image.Image, what: str) -> Image.Image:
    """Make a new image of mode RGB."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_deep(image, what).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in _WITH_ALPHA and image.has_transparency_data:
        white = Image.new("RGB", image.size, "white")
        for top, bottom in strips(image.height, image.width):
            colours = image.crop((0, top, image.width, bottom)).convert("RGBA")
            white.paste(colours, (0, top), mask=colours.getchannel("A"))
        return white
    return image.convert("RGB")


def _from_deep(image: Image.Image, what: str) -> Image.Image:
    """Convert grey of more than 8 bits to 8 bits."""
    values = np.asarray(image)
    white = float_white(values, what) if image.mode == "F" else integer_white(values, what)
    pixels = scaled(values, white)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        pixels[values == transparent] = BYTE
    return Image.fromarray(pixels)


def _check_size(size: tuple[int, int], what: str, limits: Limits) -> None:
    width, height = size
    if min(size) < 1:
        raise ImageError(f"{what} is {width} x {height} pixels, so it shows nothing. Give one of at least 1 x 1.")
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{what} is {width} x {height} = {width * height} pixels; at most {limits.max_pixels} are allowed. "
            "Shrink it, or pass Limits(max_pixels=...) to load_image."
        )
    if max(size) > limits.max_aspect * min(size):
        raise ImageError(
            f"{what} is {width} x {height} pixels, an aspect of {max(size) / min(size):.4g}:1; at most "
            f"{limits.max_aspect:g}:1 is allowed. Crop it, or pass Limits(max_aspect=...) to load_image."
        )
