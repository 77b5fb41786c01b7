"""Images from files: sizes, grey and colour, and files that are no images of 8 bits."""

import numpy as np
import pytest
from PIL import Image

from pyro_ssl.data.image_files import image_files, read_images

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)


@pytest.fixture
def save(tmp_path):
    def file(array, name, mode=None, **how):
        path = tmp_path / name
        image = Image.fromarray(array)
        (image if mode is None else image.convert(mode)).save(path, **how)
        return path

    return file


def test_grey_images_have_one_channel(save):
    files = [save(GREY, "a.png"), save(GREY // 2, "b.bmp"), save(GREY, "c.png", "LA")]
    pixels = read_images(files)
    assert pixels.dtype == np.uint8 and pixels.shape == (3, 1, 4, 6)
    assert (pixels[:, 0] == [GREY, GREY // 2, GREY]).all()


def test_grey_images_beside_colours_become_colours(save):
    pixels = read_images([save(GREY, "a.png"), save(COLOUR, "b.png")])
    assert pixels.shape == (2, 3, 4, 6)
    assert (pixels[0] == GREY).all() and (pixels[1] == COLOUR.transpose(2, 0, 1)).all()
    assert (read_images([save(GREY, "a.png")], channels=3) == GREY).all()


def test_an_opaque_alpha_channel_is_left_out(save):
    opaque = np.concatenate([COLOUR, np.full((4, 6, 1), 255, np.uint8)], 2)
    assert (read_images([save(opaque, "a.png")])[0] == COLOUR.transpose(2, 0, 1)).all()
    opaque[0, 0, 3] = 254
    with pytest.raises(ValueError, match="b.png is transparent in places"):
        read_images([save(opaque, "b.png")])


def test_a_rotation_of_a_camera_is_applied(save):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    path = save(COLOUR, "a.png", exif=exif)
    assert (read_images([path])[0] == np.rot90(COLOUR, -1).transpose(2, 0, 1)).all()


def test_sizes_that_differ_are_refused_or_scaled(save):
    files = [save(GREY, "a.png"), save(GREY[:3], "b.png")]
    with pytest.raises(ValueError, match=r"b.png has 3 x 6 pixels.*4 x 6.*--image-size 4"):
        read_images(files)
    assert read_images(files, size=2).shape == (2, 1, 2, 2)
    message = "a.png has 4 x 6 pixels, but the model was trained on 8 x 8"
    with pytest.raises(ValueError, match=message):
        read_images(files, shape=(8, 8))


def test_images_that_do_not_fit_are_refused(save, tmp_path):
    with pytest.raises(ValueError, match="b.png is in colour, but the model was trained on grey"):
        read_images([save(GREY, "a.png"), save(COLOUR, "b.png")], channels=1)
    with pytest.raises(ValueError, match="d.png has more than 8 bits per channel"):
        read_images([save(GREY.astype(np.uint16) * 200, "d.png")])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match="text.png is not a readable image"):
        read_images([tmp_path / "text.png"])
    whole = save(RNG.integers(0, 256, (64, 64), dtype=np.uint8), "cut.png")
    whole.write_bytes(whole.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="cut.png is not a readable image"):
        read_images([whole])


def test_files_are_sorted_and_others_are_named(save, tmp_path):
    (tmp_path / "deep").mkdir()
    files = [
        save(GREY, "b.png"),
        save(GREY, "a.PNG"),
        save(GREY, "deep/c.jpg"),
        save(GREY, ".d.png"),
    ]
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.warns(UserWarning, match="not images are left out: 'notes.txt'"):
        found = image_files(tmp_path)
    assert found == sorted(files[:3])
