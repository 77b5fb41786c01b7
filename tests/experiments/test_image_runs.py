"""Image sets of runs."""

import numpy as np
import pytest


def test_packed_images_are_unpacked(scripts, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)
    planes = images.copy()
    planes[:, 0] -= planes[:, 1]
    planes[:, 2] -= planes[:, 1]
    for axis in (3, 2):
        planes = np.diff(planes, axis=axis, prepend=np.uint8(0))
    (tmp_path / "cifar10").mkdir()
    for name, part in (("train_0", slice(0, 2)), ("train_1", slice(2, 4)), ("test", slice(4, 6))):
        np.savez(
            tmp_path / "cifar10" / f"{name}.npz",
            delta=planes[part],
            labels=np.arange(6, dtype=np.uint8)[part] % 2,
        )
    found = scripts("image_runs").packed_cifar10(tmp_path)
    assert np.array_equal((255 * found.x.numpy()).round(), images[:4]) and found.y.tolist() == [
        0,
        1,
        0,
        1,
    ]
    assert np.array_equal((255 * found.x_test.numpy()).round(), images[4:])
    assert scripts("image_runs").packed_cifar10(tmp_path / "none") is None
    monkeypatch.setenv("PYRO_SSL_DATA", str(tmp_path))
    config = {"data": "cifar10", "labels": "all", "draw": 0}
    assert len(scripts("image_runs").images(config | {"rows": 3})[0].x) == 3
    with pytest.raises(ValueError, match="needs 30000 training images, got 4"):
        scripts("image_runs").images(config)
