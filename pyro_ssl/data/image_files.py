"""Images from the files of a folder, one folder per class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyro_ssl.utils.arrays import few

UNLABELED = "unlabeled"
"""Name of the folder of images without a label."""
GREY_MODES = ("1", "L", "LA")
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's modes with more than 8 bits per channel, which a conversion to 8 bits would clip."""


def image_files(folder: Path) -> list[Path]:
    """List the images in a folder and its subfolders, sorted by path.

    Hidden files are left out; other files that are not images are left out with a warning.

    Arguments:
        folder: The folder.
    """
    from PIL import Image

    readable = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files = _visible_files(folder)
    images = [path for path in files if path.suffix.lower() in readable]
    others = [path.name for path in files if path.suffix.lower() not in readable]
    if others:
        warnings.warn(
            f"{folder}: files that are not images are left out: {few(others, 3)}",
            UserWarning,
            stacklevel=2,
        )
    return images


def _visible_files(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if not _is_hidden(path, folder)]


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def class_folders(folder: Path) -> list[Path]:
    """List the class folders in a folder, sorted: all but `unlabeled` and hidden ones."""
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    return [path for path in folders if path.name != UNLABELED and path.name[0] != "."]


def read_images(
    files: Sequence[Path],
    *,
    size: int | None = None,
    channels: int | None = None,
    shape: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Read images as uint8 pixels, `(N, C, H, W)`.

    An image that the camera has marked as rotated (in its EXIF data) is turned upright.

    Arguments:
        files: The files.
        size: Height and width to scale all images to; None does not scale them.
        channels: 1 for grey images, 3 for colour images. None uses 1 if all files are grey, and 3
            otherwise.
        shape: Height and width that all images should have; None uses those of the first image.

    Raises:
        ValueError: A file is not a readable image with 8 bits per channel, is transparent in
            places, is in colour although `channels` is 1, or differs in size from the others.
    """
    channels = _channels_of(files, channels)
    images: np.ndarray | None = None
    for i, path in enumerate(files):
        pixels = _pixels(path, channels, size)
        if images is None:
            wanted = pixels.shape[1:] if shape is None or size is not None else shape
            images = np.empty((len(files), channels, *wanted), np.uint8)
        if pixels.shape != images.shape[1:]:
            _refuse_size(path, pixels.shape[1:], files[0], images.shape[2:], shape is not None)
        images[i] = pixels
    assert images is not None, "there is at least one file"
    return images


def _channels_of(files: Sequence[Path], wanted: int | None) -> int:
    """Number of channels: the one that is wanted; for None 1 if all files are grey, else 3."""
    is_grey = [_is_grey(path) for path in files]
    if wanted == 1 and not all(is_grey):
        raise ValueError(
            f"{files[is_grey.index(False)]} is in colour, but the model was trained on grey "
            "images; convert it"
        )
    if wanted is not None:
        return wanted
    return 1 if all(is_grey) else 3


def _refuse_size(
    path: Path, size: Sequence[int], other: Path, wanted: Sequence[int], is_trained: bool
) -> None:
    got = f"{path} has {size[0]} x {size[1]} pixels"
    want = f"{wanted[0]} x {wanted[1]}"
    if is_trained:
        raise ValueError(f"{got}, but the model was trained on {want}; scale it to that size")
    raise ValueError(
        f"{got}, but {other} has {want}; all images should have the same size: "
        f"--image-size {min(wanted)} scales them to that height and width"
    )


def _is_grey(path: Path) -> bool:
    """Return True if the header says that an image is grey; a palette counts as colour."""
    with _opened(path) as image:
        if image.mode in DEEP_MODES:
            raise ValueError(
                f"{path} has more than 8 bits per channel (mode {image.mode}); convert it to 8"
            )
        return image.mode in GREY_MODES


def _opened(path: Path) -> Any:
    from PIL import Image

    try:
        return Image.open(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable image: {error}") from None


def _pixels(path: Path, channels: int, size: int | None) -> np.ndarray:
    """Read an image as uint8 pixels, `(C, H, W)`."""
    from PIL import Image, ImageOps

    with _opened(path) as image:
        try:
            upright = ImageOps.exif_transpose(image)
            _check_opaque(path, upright)
            converted = upright.convert("L" if channels == 1 else "RGB")
            if size is not None:
                converted = converted.resize((size, size), Image.Resampling.BICUBIC)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{path} is not a readable image: {error}") from None
    pixels = np.asarray(converted)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _check_opaque(path: Path, image: Any) -> None:
    """Raise ValueError if an image is transparent in places: its colours there are arbitrary."""
    if not image.has_transparency_data:
        return
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    if alpha.min() < 255:
        raise ValueError(f"{path} is transparent in places; save it on a background, without alpha")
