"""Batch norm under enumeration: no class sees the others."""

import torch
from programs.pitfalls import B, D, K, X
from torch import nn

from pyro_ssl import (
    MLP,
    Batch,
    Flat,
    zoo,
)
from pyro_ssl.nn.tensor_marks import class_weights


def test_batch_norm_over_enumerated_labels_leaks_the_label_and_ours_does_not():
    """Statistics over K tiled labels.

    What a class gets depends on the other classes being there. Ours weigh by q(y|x).
    """
    torch.manual_seed(0)
    net = Flat(nn.Sequential(nn.Linear(D + K, 5), nn.BatchNorm1d(5)))
    x, eye = X[:B], torch.eye(K)[:, None]
    assert not torch.allclose(net(x, eye)[0], net(x, eye[0]), atol=1e-2)
    ours = MLP([D, K], 2, (5,), batch_norm=True)
    certain = torch.full((K, B), -torch.inf).index_fill_(0, torch.tensor([0]), 0.0)
    before = class_weights.set(certain)
    try:
        assert torch.allclose(ours(x, eye)[0], ours(x, eye[0]), atol=1e-5)
    finally:
        class_weights.reset(before)


def test_convolutions_that_are_normalised_see_the_image_alone():
    rows: list[int] = []
    o = zoo.build("m2", (1, 4, 4), K, network="conv", batch_norm=True, hidden=(6,), z_dim=2)
    for module in o.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    o(Batch(x_unlabeled=torch.rand(B, 1, 4, 4)))
    assert set(rows) == {B}
