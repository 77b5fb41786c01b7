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
"""Modes of Pillow with more than 8 bits a channel, which it would cut off."""


def image_files(folder: Path) -> list[Path]:
    """The images in a folder and below, sorted; hidden files are left out, others with a warning.

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
    """The folders of classes in a folder, sorted: all but `unlabeled` and hidden ones."""
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    return [path for path in folders if path.name != UNLABELED and path.name[0] != "."]


def read_images(
    files: Sequence[Path],
    *,
    size: int | None = None,
    channels: int | None = None,
    shape: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Images as pixels of uint8, `(N, C, H, W)`.

    They are grey, C = 1, if all are; otherwise grey ones become colours. A rotation that a camera
    has noted is applied.

    Arguments:
        files: The files.
        size: Height and width to which all are scaled; None keeps theirs.
        channels: 1 or 3; None takes what the files have.
        shape: Height and width that all should have; None takes those of the first.

    Raises:
        ValueError: A file is not a readable image of 8 bits a channel, is transparent in places, is
            in colour where grey is wanted, or has another size than the others.
    """
    channels = _channels_of(files, channels)
    first: np.ndarray | None = None
    for i, path in enumerate(files):
        pixels = _pixels(path, channels, size)
        if first is None:
            wanted = pixels.shape[1:] if shape is None or size is not None else shape
            first = np.empty((len(files), channels, *wanted), np.uint8)
        if pixels.shape != first.shape[1:]:
            _refuse_size(path, pixels.shape[1:], files[0], first.shape[2:], shape is not None)
        first[i] = pixels
    assert first is not None, "there is at least one file"
    return first


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
        raise ValueError(f"{got}, the model was trained on {want}; scale it to that size")
    raise ValueError(
        f"{got}, {other} has {want}; images should have one size: --image-size {min(wanted)} "
        "scales all to that height and width"
    )


def _is_grey(path: Path) -> bool:
    """Whether an image has no colours, by its header; a palette counts as colours."""
    with _opened(path) as image:
        if image.mode in DEEP_MODES:
            raise ValueError(
                f"{path} has more than 8 bits a channel (mode {image.mode}); convert it to 8"
            )
        return image.mode in GREY_MODES


def _opened(path: Path) -> Any:
    from PIL import Image

    try:
        return Image.open(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable image: {error}") from None


def _pixels(path: Path, channels: int, size: int | None) -> np.ndarray:
    """An image as `(C, H, W)`, uint8."""
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
    """Raise ValueError if an image is transparent in places: the colours behind are arbitrary."""
    if not image.has_transparency_data:
        return
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    if alpha.min() < 255:
        raise ValueError(f"{path} is transparent in places; save it on a background, without alpha")
