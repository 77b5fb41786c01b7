"""The loss and gradients of a step, captured as a graph of plain tensor operations.

The programs, Pyro's handlers and the terms run once under `make_fx`, which records their tensor
operations and those of the backward pass. The graph is then compared with the eager step, bit for
bit, on other data and weights. This detects values that the step computes each time, but that the
graph holds as constants.
"""

from __future__ import annotations

import contextlib
import inspect
import random
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from pyro_ssl.infer.decisions import recorded_decisions
from pyro_ssl.objectives.batch import Batch
from pyro_ssl.objectives.objective import Objective, total
from pyro_ssl.training.python_state import PythonState
from pyro_ssl.utils.context import preserve_buffers, preserve_random_state, validation_disabled


class CaptureError(RuntimeError):
    """A step cannot be captured; the message says why."""


@dataclass(frozen=True)
class StepResult:
    """The loss of a step, with its parts and gradients.

    Arguments:
        names: Names of the parts of the loss.
        values: The parts, the loss, and the norm of each player's gradient, in one tensor.
        gradients: The gradient of each parameter, clipped; None where the loss does not depend on
            it.
        decisions: The decisions made on values.
        outcomes: If the decisions were assumed, the tensors on whose values they depend.
    """

    names: list[str]
    values: Tensor
    gradients: list[Tensor | None]
    decisions: tuple[int, ...]
    outcomes: list[Tensor]


@dataclass(frozen=True)
class LossStep:
    """Function of a batch that computes the loss and its gradients, without compilation.

    A call changes buffers and random state.

    Arguments:
        objective: The objective to train.
        groups: The parameters of each player.
        joint: Evaluate labeled and unlabeled data in one pass.
        half: Compute the networks' matrix products in bfloat16.
        clip_norm: Largest norm of a player's gradient; None for no limit.
    """

    objective: Objective
    groups: Sequence[Sequence[nn.Parameter]]
    joint: bool = False
    half: bool = False
    clip_norm: float | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters of all players."""
        return [parameter for group in self.groups for parameter in group]

    def __call__(
        self, batch: Batch, kl_weight: float | Tensor, assumed: Sequence[int] | None = None
    ) -> StepResult:
        """Compute the loss; `assumed` are decisions to make whatever the values are."""
        device = self.parameters[0].device.type
        with (
            validation_disabled(),
            recorded_decisions(assumed) as decisions,
            torch.autocast(device, torch.bfloat16, enabled=self.half),
        ):
            parts = self.objective.parts(batch, kl_weight=kl_weight, joint=self.joint)
        loss = total(parts)
        gradients = self._gradients(loss)
        norms = self._clip(gradients)
        return StepResult(
            names=list(parts),
            values=torch.stack([*parts.values(), loss, *norms]).detach(),
            gradients=gradients,
            decisions=tuple(decisions.made),
            outcomes=decisions.outcomes,
        )

    def _gradients(self, loss: Tensor) -> list[Tensor | None]:
        """Return each parameter's gradient; None if it is frozen or not part of the loss."""
        trained = [parameter for parameter in self.parameters if parameter.requires_grad]
        gradients = iter(torch.autograd.grad(loss, trained, allow_unused=True))
        return [next(gradients) if p.requires_grad else None for p in self.parameters]

    def _clip(self, gradients: list[Tensor | None]) -> list[Tensor]:
        """Return the norm of each player's gradient; clip the gradients if `clip_norm` is set."""
        norms = []
        start = 0
        for group in self.groups:
            places = range(start, start + len(group))
            start += len(group)
            own = [g for g in (gradients[i] for i in places) if g is not None]
            norm = nn.utils.get_total_norm(own, foreach=False)
            norms.append(norm)
            if self.clip_norm is None:
                continue
            factor = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
            for i in places:
                gradient = gradients[i]
                if gradient is not None:
                    gradients[i] = gradient * factor
        return norms


def tensors_of(batch: Batch) -> list[Tensor]:
    """Return the tensors of a batch that are not None."""
    return [part for part in (batch.x, batch.y, batch.x_unlabeled) if part is not None]


@dataclass(frozen=True)
class CapturedStep:
    """A step that was captured as a graph.

    Arguments:
        graph: The graph, or its compiled form, as a function of `inputs`. It returns one tensor of
            the values followed by the outcomes of the decisions, and then the gradients that are
            not None. It changes buffers in place.
        uncompiled: The graph before compilation.
        held: Parameters, buffers and other tensors that the graph reads; they are its first inputs.
        names: Names of the parts of the loss.
        has_gradient: For each parameter, True if it has a gradient.
        decisions: The decisions that the graph assumes.
    """

    graph: Callable[..., Sequence[Tensor]]
    uncompiled: GraphModule
    held: list[Tensor]
    names: list[str]
    has_gradient: list[bool]
    decisions: tuple[int, ...]

    def inputs(self, batch: Batch, kl_weight: float | Tensor) -> list[Tensor]:
        """Return the inputs of the graph for a batch."""
        inputs = [*self.held, *tensors_of(batch)]
        if isinstance(kl_weight, Tensor):
            inputs.append(kl_weight)
        return inputs

    @torch.no_grad()
    def __call__(self, batch: Batch, kl_weight: float | Tensor) -> list[Tensor]:
        """Run the graph; return the values with outcomes, then the gradients that are not None."""
        return list(self.graph(*self.inputs(batch, kl_weight)))


def capture(
    step: LossStep, batch: Batch, kl_weight: float | Tensor, decisions: tuple[int, ...]
) -> CapturedStep:
    """Capture a step; weights, buffers and random state do not change.

    Arguments:
        step: The step.
        batch: Data; the graph is valid for their shapes.
        kl_weight: Weight of the latents' KL: 1, or a tensor, which becomes an input of the graph.
        decisions: The decisions that the graph assumes.

    Raises:
        CaptureError: The step depends on values in ways that a graph cannot express.
    """
    held: list[Tensor] = [*step.objective.parameters(), *step.objective.buffers()]
    with _only_tensors_change(step.objective):
        first = step(batch, kl_weight, decisions)
    if first.decisions != decisions:
        raise CaptureError("the number of decisions on values changes from step to step")

    def outputs(*_: Tensor) -> list[Tensor]:
        with _Capturing():
            result = step(batch, kl_weight, decisions)
        outcomes = [outcome.to(result.values.dtype) for outcome in result.outcomes]
        values = torch.cat([result.values, torch.stack(outcomes)]) if outcomes else result.values
        return [values, *(g for g in result.gradients if g is not None)]

    inputs = [*held, *tensors_of(batch)]
    if isinstance(kl_weight, Tensor):
        inputs.append(kl_weight)
    try:
        with _rolled_back(step.objective):
            # tracing the parameters themselves makes other references to them inputs, too
            graph = make_fx(outputs, tracing_mode="real")(*inputs)
    except Exception as error:
        raise CaptureError(_reason(error)) from error
    graph.graph.eliminate_dead_code()
    _check_shapes_are_fixed(graph)
    constants = _constants_as_inputs(graph, len(held))
    captured = CapturedStep(
        graph=graph,
        uncompiled=graph,
        held=[*held, *constants],
        names=first.names,
        has_gradient=[gradient is not None for gradient in first.gradients],
        decisions=decisions,
    )
    check_equal(step, captured, batch, kl_weight)
    with _moved_weights(step):
        moved_kl = 0.5 * kl_weight if isinstance(kl_weight, Tensor) else kl_weight
        check_equal(step, captured, _rolled(batch), moved_kl)
    return captured


@contextmanager
def _only_tensors_change(objective: Objective) -> Iterator[None]:
    """Run a trial step inside the block; restore buffers, random states and attributes after it.

    Raises:
        CaptureError: The step changes attributes, or draws random numbers from Python or NumPy.
    """
    state = PythonState(objective)
    python_numbers = random.getstate()
    numpy_numbers = np.random.get_state()
    with _rolled_back(objective):
        yield
    changes = state.changes()
    state.restore()
    drew = [] if random.getstate() == python_numbers else ["random"]
    if not _is_same_state(np.random.get_state(), numpy_numbers):
        drew.append("numpy.random")
    random.setstate(python_numbers)
    np.random.set_state(numpy_numbers)
    if changes:
        raise CaptureError(f"a step changes attributes, which a graph cannot do: {changes[0]}")
    if drew:
        raise CaptureError(
            f"a step draws numbers from {drew[0]}, which a graph would repeat in every step; draw "
            "them with torch"
        )


def _is_same_state(a: Any, b: Any) -> bool:
    return np.array_equal(a[1], b[1]) and a[2:] == b[2:]


def probe(step: LossStep, batch: Batch, kl_weight: float | Tensor) -> tuple[int, ...]:
    """Return the decisions of a trial step, which changes nothing."""
    with _only_tensors_change(step.objective):
        return step(batch, kl_weight).decisions


def check_equal(
    step: LossStep, captured: CapturedStep, batch: Batch, kl_weight: float | Tensor
) -> None:
    """Raise CaptureError unless the graph and the eager step give equal numbers and buffers."""
    pairs = _compared(step, captured, batch, kl_weight)
    if not all(_are_equal(a, b) for a, b in pairs):
        raise CaptureError(
            "on other data and weights the captured step differs from the eager step, which "
            "depends on more than the batch and the weights, such as a Python variable that "
            "changes; make it an attribute of the module, or a buffer"
        )


def check_close(
    step: LossStep, captured: CapturedStep, batch: Batch, kl_weight: float | Tensor
) -> None:
    """Raise CaptureError unless the compiled graph and the eager step agree up to rounding."""
    tolerance = 0.2 if step.half else 1e-2
    for a, b in _compared(step, captured, batch, kl_weight):
        if not b.isfinite().all():
            continue
        error = float((a.double() - b.double()).norm())
        if not error <= tolerance * (float(b.double().norm()) + 1e-3):
            raise CaptureError(
                f"the compiled step differs from the eager step by {error:.2g}, more than "
                "rounding explains; please report it"
            )


def _compared(
    step: LossStep, captured: CapturedStep, batch: Batch, kl_weight: float | Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Pair the numbers, gradients and buffers of the graph with those of the eager step."""
    objective = step.objective
    with _rolled_back(objective):
        result = step(batch, kl_weight, captured.decisions)
        gradients = [g for g in result.gradients if g is not None]
        expected = [result.values, *gradients, *(b.clone() for b in objective.buffers())]
    with _rolled_back(objective):
        values, *others = captured(batch, kl_weight)
        buffers = [buffer.clone() for buffer in objective.buffers()]
        if len(others) != len(gradients) or result.names != captured.names:
            raise CaptureError("the parts of the loss change from step to step")
        got = [values[: len(result.values)], *others, *buffers]
    return list(zip(got, expected, strict=True))


def _are_equal(a: Tensor, b: Tensor) -> bool:
    """Return True if results are equal: bit for bit on a CPU, up to rounding on a GPU."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.device.type == "cpu" or not a.is_floating_point():
        return bool(torch.equal(a.nan_to_num(), b.nan_to_num()))
    scale = 1e-4 * float(b.abs().max()) if b.numel() else 0.0
    return torch.allclose(a, b, rtol=1e-4, atol=scale, equal_nan=True)


@contextmanager
def _rolled_back(objective: Objective) -> Iterator[None]:
    """Restore random state and buffers after the block."""
    with preserve_random_state(), preserve_buffers(objective):
        yield


@contextmanager
def _moved_weights(step: LossStep) -> Iterator[None]:
    """Change the weights slightly inside the block."""
    before = [parameter.detach().clone() for parameter in step.parameters]
    try:
        with torch.no_grad():
            for parameter in step.parameters:
                parameter.mul_(1.001).add_(1e-3)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(step.parameters, before, strict=True):
                parameter.copy_(value)


def _rolled(batch: Batch) -> Batch:
    """Return the batch with its rows in another order and the same memory layout."""
    parts = {name: getattr(batch, name) for name in ("x", "y", "x_unlabeled")}
    rolled = {name: part.roll(1, 0) for name, part in parts.items() if part is not None}
    return replace(batch, **rolled)


class _Capturing(TorchFunctionMode):
    """Refuse to read the values of tensors while a step is captured.

    `one_hot` reads the largest index to check it; a comparison with the same result replaces it.
    """

    readers = ("tolist", "numpy", "__array__", "data_ptr")

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in self.readers:
            raise CaptureError(f"a step reads the numbers of a tensor with .{name}()")
        if name == "one_hot" and not kwargs and len(args) == 2 and args[1] > 0:
            index, classes = args
            return (index.unsqueeze(-1) == torch.arange(classes, device=index.device)).long()
        return func(*args, **kwargs or {})


def _reason(error: Exception) -> str:
    """Say in one line why a step could not be captured, with the line of the program."""
    if isinstance(error, CaptureError):
        sentence = str(error).splitlines()[0]  # Pyro appends the shapes of all sites
    elif "_local_scalar_dense" in str(error) or "data-dependent" in str(error):
        sentence = "a step branches on the value of a tensor, or reads it as a number"
    else:
        sentence = f"{type(error).__name__}: {error}".splitlines()[0]
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(folder in f.filename for folder in _LIBRARIES)]
    own = [f for f in own if f.filename != __file__]
    if not own:
        return sentence
    return f"{sentence}, in {Path(own[-1].filename).name}, line {own[-1].lineno}"


_LIBRARIES = tuple(
    str(Path(inspect.getfile(package)).parent) for package in (torch, pyro, contextlib)
)


def _check_shapes_are_fixed(graph: GraphModule) -> None:
    for node in graph.graph.nodes:
        tags = getattr(node.target, "tags", ())
        if torch.Tag.dynamic_output_shape in tags and _has_dynamic_shape(node):
            raise CaptureError(
                f"the shape of the result of {node.target} depends on values; use torch.where or "
                "a mask of weights"
            )


def _has_dynamic_shape(node: Node) -> bool:
    """Return True if the shape of a result depends on values; of indices, only masks do that."""
    if node.target is not torch.ops.aten.index.Tensor:
        return True
    indices: Any = node.args[1]
    values = [index.meta.get("val") for index in indices if isinstance(index, Node)]
    return any(value is None or value.dtype in (torch.bool, torch.uint8) for value in values)


def _constants_as_inputs(graph: GraphModule, place: int) -> list[Tensor]:
    """Turn the graph's constant tensors into inputs after the first `place` inputs; return them.

    The graph then reads their values at each call, and a compiler cannot treat them as constants.
    """
    nodes = graph.graph.nodes
    by_name: dict[str, Node] = {}
    constants: list[Tensor] = []
    last = [node for node in nodes if node.op == "placeholder"][place - 1]
    for node in [node for node in nodes if node.op == "get_attr"]:
        name = str(node.target)
        if name not in by_name:
            with graph.graph.inserting_after(last):
                last = graph.graph.placeholder(f"held_{len(constants)}")
            last.meta = dict(node.meta)
            by_name[name] = last
            constants.append(getattr(graph, name))
        node.replace_all_uses_with(by_name[name])
        graph.graph.erase_node(node)
    for name in by_name:
        delattr(graph, name)
    graph.recompile()
    return constants
