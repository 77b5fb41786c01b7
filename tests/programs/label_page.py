"""Images, classes and a wait that the tests of the labelling page share."""

import time

import torch

IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


CLASSES = ["cat", "dog", "eel"]


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
