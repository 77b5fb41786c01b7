"""Several draws of labels in one training step: their weights stacked, the step mapped by `vmap`.

On a GPU a small network leaves most of the machine idle, so ten networks take hardly longer than
one. The step of the first objective is captured as a graph of tensor operations, as for compiled
steps, and `torch.func.vmap` maps it over the weights of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.fx import GraphModule, Node
from torch.optim import Optimizer

from pyro_ssl import Batch, Objective
from pyro_ssl.training.captured_step import (
    LossStep,
    capture,
    check_equal,
    probe,
    tensors_of,
)


class StackedDraws:
    """Objectives of one kind in training, each on its own data.

    The learning rate is constant, and gradients are not clipped. Whatever a step decides on values
    is decided once, on the first batch of the first objective; give a fixed `top_k`.

    Arguments:
        objectives: Objectives of one method with the same options, in training mode.
        batches: A batch of each; later batches have the same shapes.
        optimizer: Makes an optimiser of parameters.
        randomness: "different" gives each its own noise, "same" the noise of one.

    Raises:
        CaptureError: The step cannot be captured, or that of one objective is another one.
        ValueError: The numbers of objectives and batches differ.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        batches: Sequence[Batch],
        *,
        optimizer: Callable[..., Optimizer] = torch.optim.Adam,
        randomness: str = "different",
    ) -> None:
        if len(objectives) != len(batches):
            raise ValueError(f"got {len(objectives)} objectives and {len(batches)} batches")
        self.objectives = objectives
        steps = [LossStep(o, [list(o.parameters())]) for o in objectives]
        decisions = probe(steps[0], batches[0], 1.0)
        captured = capture(steps[0], batches[0], 1.0, decisions)
        own = [_tensors(objective) for objective in objectives]
        self._common = captured.held[len(own[0]) :]
        for step, tensors, batch in zip(steps, own, batches, strict=True):
            check_equal(step, replace(captured, held=[*tensors, *self._common]), batch, 1.0)
        self._stacked = [torch.stack(part).detach() for part in zip(*own, strict=True)]
        self._has_gradient = captured.has_gradient
        self.parameters = self._stacked[: len(captured.has_gradient)]
        self._zeros = torch.zeros(len(objectives), device=self._stacked[0].device)
        data = [0] * len(tensors_of(batches[0]))
        in_dims = (*[0] * len(self._stacked), *[None] * len(self._common), *data, 0)
        self._step = vmap(_for_vmap(captured.uncompiled), in_dims=in_dims, randomness=randomness)
        self._loss_at = len(captured.names)
        self._optimizer = optimizer(self.parameters)

    def step(self, batches: Sequence[Batch]) -> Tensor:
        """Take a step of the optimiser; the losses before it, `(n,)`."""
        data = [torch.stack(part) for part in zip(*map(tensors_of, batches), strict=True)]
        with torch.no_grad():
            values, *gradients = self._step(*self._stacked, *self._common, *data, self._zeros)
        given = iter(gradients)
        for parameter, has_gradient in zip(self.parameters, self._has_gradient, strict=True):
            parameter.grad = next(given) if has_gradient else None
        self._optimizer.step()
        losses: Tensor = values[:, self._loss_at]
        return losses

    @torch.no_grad()
    def write_back(self) -> None:
        """Give the objectives their weights and buffers."""
        for place, objective in enumerate(self.objectives):
            for tensor, stacked in zip(_tensors(objective), self._stacked, strict=True):
                tensor.copy_(stacked[place])


def _for_vmap(graph: GraphModule) -> GraphModule:
    """The graph as `vmap` can map it, with a last input: a zero for each draw.

    A stacked tensor may have no view of another shape, so it is copied. A random number is drawn
    into an empty tensor, which is one tensor of all draws; by the zero each gets its own.
    """
    graph = deepcopy(graph)
    nodes = graph.graph.nodes
    last = [node for node in nodes if node.op == "placeholder"][-1]
    with graph.graph.inserting_after(last):
        zero = graph.graph.placeholder("zero")
    for node in list(nodes):
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
        if _draws_in_place(node):
            empty = node.args[0]
            with graph.graph.inserting_before(node):
                own = graph.graph.call_function(torch.ops.aten.add.Tensor, (empty, zero))
            empty.replace_all_uses_with(node, lambda user, kept=own: user is not kept)
            node.args = (own, *node.args[1:])
    graph.recompile()
    return graph


def _draws_in_place(node: Node) -> bool:
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    return bool(node.target._schema.is_mutable)


def _tensors(objective: nn.Module) -> list[Tensor]:
    return [*objective.parameters(), *objective.buffers()]
