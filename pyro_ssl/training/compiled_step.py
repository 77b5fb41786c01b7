"""Compiled steps: the loss and its gradients as one graph, compiled by torch's Inductor.

See `docs/compiled_steps.md` for what it does and when it pays. The optimiser, the learning rate and
the average of the weights stay outside the graph.
"""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from pyro_ssl.objectives.batch import Batch
from pyro_ssl.training.captured_step import (
    CapturedStep,
    CaptureError,
    LossStep,
    capture,
    check_close,
    check_equal,
    probe,
    tensors_of,
)
from pyro_ssl.training.python_state import PythonState
from pyro_ssl.training.random_state import rng_tensors, set_rng
from pyro_ssl.utils.private_names import compiled_by_inductor

MOST_GRAPHS = 32
"""Graphs of a run: one for each combination of shapes, decisions and attributes that occurs."""
FIRST_AUDIT = 16
"""The graph is compared with the step itself after this many steps, and after twice as many ..."""

Graph = Callable[..., Sequence[Tensor]]
_COMPILED: OrderedDict[Hashable, Graph] = OrderedDict()
"""Compiled graphs of this process, by their code and the form of their inputs, the last used last.

They hold no tensors.
"""


class NotCompiledWarning(UserWarning):
    """The step cannot be compiled, so training goes on without; the message has the reason."""


class StaleStepError(RuntimeError):
    """A compiled step has gone out of date, because of a change that its capture could not see."""


class CompiledStep:
    """Loss and gradients of each batch, from compiled graphs.

    A graph holds for the shapes of a batch, for the decisions that depend on values, and for the
    attributes of the objective's modules. A new combination is captured, compared with the step
    itself and compiled when it first occurs; the numbers of every step come from a compiled graph,
    so that a resumed run gets the same ones.

    Arguments:
        step: The step.

    Attributes:
        announce: Called with a text while a graph is compiled, and with "" afterwards.
        reason: Why steps are not compiled any more; None if they are.
    """

    def __init__(self, step: LossStep) -> None:
        self.step = step
        self.announce: Callable[[str], None] = _silent
        self.reason: str | None = None
        self._parameters = step.parameters
        self._dtype = next(p.dtype for p in self._parameters if p.is_floating_point())
        self._decisions: tuple[int, ...] | None = None
        self._graphs: dict[Hashable, CapturedStep] = {}
        self._buffers = list(step.objective.buffers())
        self._captures = 0
        self._steps = 0
        self._state: PythonState | None = None
        self._last: tuple[CapturedStep, Batch, float | Tensor] | None = None

    def __call__(self, batch: Batch, kl_weight: float) -> tuple[list[str], list[float]] | None:
        """Set the gradients of all parameters.

        Returns:
            Names of the parts of the loss; and the parts, the loss and the norms of the gradients.
            None, with nothing changed, if the step should be made without a graph.

        Raises:
            StaleStepError: The graph has gone out of date.

        Warns:
            NotCompiledWarning: The step cannot be compiled.
        """
        if self.reason is not None:
            return None
        weight: float | Tensor = 1.0
        if kl_weight != 1:
            device = self._parameters[0].device
            weight = torch.tensor(kl_weight, dtype=self._dtype, device=device)
        try:
            return self._outputs(batch, weight)
        except CaptureError as error:
            self._give_up(str(error))
            return None

    # --- the state of a run ---------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Plain data from which a resumed run makes the same choices."""
        decisions = None if self._decisions is None else list(self._decisions)
        return {"decisions": decisions, "reason": self.reason}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        decisions = state["decisions"]
        self._decisions = None if decisions is None else tuple(decisions)
        self.reason = state["reason"]

    # --- a step ---------------------------------------------------------------------------------

    def _outputs(
        self, batch: Batch, weight: float | Tensor
    ) -> tuple[list[str], list[float]] | None:
        form = self._form(batch, weight)
        decisions = self._expected_decisions(form, batch, weight)
        before = self._snapshot() if decisions else None
        attempt = self._attempt(form, decisions, batch, weight)
        if attempt.is_wrong and before is not None:
            self._restore(before)
            if not all(map(math.isfinite, attempt.numbers)):
                return None  # the step itself says what is not finite
            is_known = (form, attempt.outcomes) in self._graphs
            if is_known:
                attempt = self._attempt(form, attempt.outcomes, batch, weight)
            if attempt.is_wrong:
                self._restore(before)
                decisions = probe(self.step, batch, weight)
                attempt = self._attempt(form, decisions, batch, weight)
        captured = attempt.captured
        self._decisions = captured.decisions
        gradients = iter(attempt.gradients)
        for parameter, has_gradient in zip(self._parameters, captured.has_gradient, strict=True):
            parameter.grad = next(gradients) if has_gradient else None
        self._steps += 1
        self._last = (captured, batch, weight)
        return captured.names, attempt.numbers

    def check_last(self) -> None:
        """Compare the graph of the last step with the step itself, at the end of a run.

        Raises:
            StaleStepError: The graph has gone out of date.
        """
        is_current = self._state is not None and self._state.is_same
        if self.reason is None and self._last is not None and is_current:
            self._audit(*self._last)

    def _expected_decisions(
        self, form: Hashable, batch: Batch, weight: float | Tensor
    ) -> tuple[int, ...]:
        """The decisions of the step before, if steps of this form are known to ask for them."""
        before = self._decisions
        if before is None:
            return probe(self.step, batch, weight)
        if (form, before) in self._graphs:
            return before
        probed = probe(self.step, batch, weight)
        is_resumed = not self._graphs
        if is_resumed and len(before) == len(probed):
            return before  # as the run that is resumed would have done
        return probed

    def _attempt(
        self,
        form: Hashable,
        decisions: tuple[int, ...],
        batch: Batch,
        weight: float | Tensor,
    ) -> _Attempt:
        """The outputs of the graph that makes these decisions."""
        captured = self._graph(form, decisions, batch, weight)
        values, *gradients = captured(batch, weight)
        numbers: list[float] = values.tolist()  # one transfer from the device for all numbers
        end = len(numbers) - len(captured.decisions)
        outcomes = tuple(int(number) for number in numbers[end:])
        return _Attempt(captured, numbers[:end], gradients, outcomes)

    def _graph(
        self,
        form: Hashable,
        decisions: tuple[int, ...],
        batch: Batch,
        weight: float | Tensor,
    ) -> CapturedStep:
        """The compiled graph for a form of inputs and decisions."""
        key = (form, decisions)
        if key not in self._graphs:
            self._graphs[key] = self._compiled(batch, weight, decisions)
            return self._graphs[key]
        captured = self._graphs[key]
        if self._steps >= FIRST_AUDIT and self._steps & (self._steps - 1) == 0:
            self._audit(captured, batch, weight)
        return captured

    def _compiled(
        self, batch: Batch, weight: float | Tensor, decisions: tuple[int, ...]
    ) -> CapturedStep:
        self._captures += 1
        if self._captures > MOST_GRAPHS:
            raise CaptureError(
                f"more than {MOST_GRAPHS} graphs were needed, for shapes of batches, decisions on "
                "values and changed attributes; keep them the same from step to step"
            )
        self.announce("compiling the step, about 10 s")
        try:
            captured = capture(self.step, batch, weight, decisions)
            return self._compiled_and_checked(captured, batch, weight)
        finally:
            self.announce("")

    def _compiled_and_checked(
        self, captured: CapturedStep, batch: Batch, weight: float | Tensor
    ) -> CapturedStep:
        """The captured step, compiled, with random numbers in the order of the step itself.

        Inductor orders operations by what they depend on, and so a draw can change places with
        another one. Its order to save memory is a second attempt.
        """
        inputs = captured.inputs(batch, weight)
        compiled = replace(captured, graph=compiled_graph(captured.uncompiled, inputs))
        try:
            check_close(self.step, compiled, batch, weight)
            return compiled
        except CaptureError:
            graph = compiled_graph(captured.uncompiled, inputs, save_memory=True)
        compiled = replace(captured, graph=graph)
        check_close(self.step, compiled, batch, weight)
        return compiled

    def _audit(self, captured: CapturedStep, batch: Batch, weight: float | Tensor) -> None:
        """Raise StaleStepError unless the graph still gives the numbers of the step itself."""
        uncompiled = replace(captured, graph=captured.uncompiled)
        try:
            check_equal(self.step, uncompiled, batch, weight)
        except CaptureError as error:
            raise StaleStepError(
                f"after {self._steps} compiled steps the graph is out of date, and training may "
                f"have gone wrong: {error}; or train with compile=False"
            ) from None

    def _form(self, batch: Batch, weight: float | Tensor) -> Hashable:
        """What a graph depends on beside the numbers in its inputs."""
        if self._state is None or not self._state.is_same:
            changes = [] if self._state is None else self._state.changes()
            self._state = PythonState(self.step.objective)
            if changes:
                self._graphs.clear()
        forms = [(part.shape, part.stride(), part.dtype) for part in tensors_of(batch)]
        parts = (batch.x is None, batch.x_unlabeled is None, batch.encoded)
        trained = [parameter.requires_grad for parameter in self._parameters]
        return (*forms, parts, *trained, isinstance(weight, Tensor), torch.get_num_threads())

    def _snapshot(self) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Random state and buffers before a graph whose decisions may be wrong."""
        buffers = [buffer.clone() for buffer in self._buffers]
        return rng_tensors(), buffers

    def _restore(self, before: tuple[dict[str, Tensor], list[Tensor]]) -> None:
        random_state, buffers = before
        set_rng(random_state)
        for buffer, value in zip(self._buffers, buffers, strict=True):
            buffer.copy_(value)

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        self._graphs.clear()
        warnings.warn(
            f"compile: {reason}; training goes on without compiled steps (compile=False)",
            NotCompiledWarning,
            stacklevel=2,
        )


@dataclass(frozen=True)
class _Attempt:
    """The outputs of a graph, with the decisions that it should have made."""

    captured: CapturedStep
    numbers: list[float]
    gradients: list[Tensor]
    outcomes: tuple[int, ...]

    @property
    def is_wrong(self) -> bool:
        """Whether the graph is of other decisions than its values call for."""
        return self.outcomes != self.captured.decisions


def compiled_graph(graph: GraphModule, inputs: list[Tensor], save_memory: bool = False) -> Graph:
    """Compile a graph by Inductor, with torch's own random numbers; or take it from the cache.

    Arguments:
        graph: The graph.
        inputs: Its inputs.
        save_memory: Let Inductor reorder operations so that memory is needed for a shorter time.

    Raises:
        CaptureError: It does not compile.
    """
    forms = [(t.shape, t.stride(), t.dtype, str(t.device), t.requires_grad) for t in inputs]
    key = (graph.code, *forms, torch.get_num_threads(), save_memory)
    if key in _COMPILED:
        _COMPILED.move_to_end(key)
        return _COMPILED[key]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about its own code
            compiled = compiled_by_inductor(deepcopy(graph), inputs, save_memory)
    except Exception as error:
        raise CaptureError(_compile_reason(error)) from error
    _COMPILED[key] = compiled
    if len(_COMPILED) > MOST_GRAPHS:
        _COMPILED.popitem(last=False)
    return compiled


def _compile_reason(error: Exception) -> str:
    sentence = f"{type(error).__name__}: {error}".splitlines()[0]
    if "CxxCompiler" in sentence or "compiler" in sentence.lower():
        return (
            "no working C++ compiler was found; install g++ or clang++, or name one in the "
            f"environment variable CXX ({sentence:.120})"
        )
    return f"the captured step does not compile: {sentence:.200}"


def is_compiled_state(state: Any) -> bool:
    """Whether plain data have the form of `CompiledStep.state`."""
    if not isinstance(state, dict) or state.keys() != {"decisions", "reason"}:
        return False
    if not isinstance(state["reason"], str | None):
        return False
    decisions = state["decisions"]
    if decisions is None:
        return True
    return isinstance(decisions, list) and all(type(decision) is int for decision in decisions)


def _silent(text: str) -> None:
    return
