"""Compiled steps: the loss and its gradients as one graph, compiled by torch's Inductor.

See `docs/howto/compiled_steps.md` for how they work and when they pay off. The optimiser, the
learning rate and the average of the weights stay outside the graph.
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
from pyro_ssl.training.random_state import StepStart
from pyro_ssl.utils.private_names import compiled_by_inductor

MOST_GRAPHS = 32
"""Largest number of graphs in a run: one per combination of shapes, decisions and attributes."""
FIRST_AUDIT = 16
"""The graph is compared with the eager step after this many steps, twice as many, and so on."""

Graph = Callable[..., Sequence[Tensor]]
_COMPILED: OrderedDict[Hashable, Graph] = OrderedDict()
"""Cache of compiled graphs, by their code and the form of their inputs; most recently used last.

The graphs hold no tensors.
"""


class NotCompiledWarning(UserWarning):
    """The step cannot be compiled, so training continues with eager steps; the message says why."""


class StaleStepError(RuntimeError):
    """A compiled step is out of date, because something has changed that cannot be watched."""


class CompiledStep:
    """Compute the loss and the gradients of each batch by compiled graphs.

    A graph is valid for one combination of batch shapes, decisions on values, and attributes of the
    objective's modules. When a new combination occurs, the step is captured, compared with the
    eager step, and compiled. All steps use compiled graphs, even the first one, so that a resumed
    run computes the same numbers.

    Arguments:
        step: The eager step.

    Attributes:
        announce: Function that is called with a message when compilation starts, and with "" when
            it ends.
        reason: Reason why steps are no longer compiled; None if they are.
    """

    def __init__(self, step: LossStep) -> None:
        self.step = step
        self.announce: Callable[[str], None] = _silent
        self.reason: str | None = None
        self._parameters = step.parameters
        self._dtype = next(p.dtype for p in self._parameters if p.is_floating_point())
        self._decisions: tuple[int, ...] | None = None
        self._graphs: dict[Hashable, CapturedStep] = {}
        self._captures = 0
        self._steps = 0
        self._state: PythonState | None = None
        self._last: tuple[CapturedStep, Batch, float | Tensor] | None = None

    def __call__(self, batch: Batch, kl_weight: float) -> tuple[list[str], list[float]] | None:
        """Compute the loss, and set the gradients of all parameters.

        Returns:
            The names of the loss's parts; and the values of the parts, of the loss and of the
            gradient norms. None, with nothing changed, if the caller should make an eager step.

        Raises:
            StaleStepError: The graph is out of date.

        Warns:
            NotCompiledWarning: The step cannot be compiled.
        """
        if self.reason is not None:
            return None
        weight: float | Tensor = 1.0
        if kl_weight != 1:
            device = self._parameters[0].device
            weight = torch.full((), kl_weight, dtype=self._dtype, device=device)
        try:
            return self._outputs(batch, weight)
        except CaptureError as error:
            self._give_up(str(error))
            return None

    # --- the state of a run ---------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return plain data from which a resumed run makes the same choices."""
        decisions = None if self._decisions is None else list(self._decisions)
        return {"decisions": decisions, "reason": self.reason}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the data of `state`."""
        decisions = state["decisions"]
        self._decisions = None if decisions is None else tuple(decisions)
        self.reason = state["reason"]

    # --- a step ---------------------------------------------------------------------------------

    def _outputs(
        self, batch: Batch, weight: float | Tensor
    ) -> tuple[list[str], list[float]] | None:
        form = self._form(batch, weight)
        decisions = self._expected_decisions(form, batch, weight)
        start = StepStart(self.step.objective) if decisions else None
        attempt = self._attempt(form, decisions, batch, weight)
        if attempt.is_wrong and start is not None:
            start.restore()
            if not all(map(math.isfinite, attempt.numbers)):
                return None  # the eager step reports what is not finite
            is_known = (form, attempt.outcomes) in self._graphs
            if is_known:
                attempt = self._attempt(form, attempt.outcomes, batch, weight)
            if attempt.is_wrong:
                start.restore()
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
        """Compare the graph of the last step with the eager step, at the end of a run.

        Raises:
            StaleStepError: The graph is out of date.
        """
        is_current = self._state is not None and self._state.is_same
        if self.reason is None and self._last is not None and is_current:
            self._audit(*self._last)

    def _expected_decisions(
        self, form: Hashable, batch: Batch, weight: float | Tensor
    ) -> tuple[int, ...]:
        """Return the last step's decisions if they have a graph, and otherwise those of a trial."""
        before = self._decisions
        if before is None:
            return probe(self.step, batch, weight)
        if (form, before) in self._graphs:
            return before
        probed = probe(self.step, batch, weight)
        is_resumed = not self._graphs
        if is_resumed and len(before) == len(probed):
            return before  # as the interrupted run would have done
        return probed

    def _attempt(
        self,
        form: Hashable,
        decisions: tuple[int, ...],
        batch: Batch,
        weight: float | Tensor,
    ) -> _Attempt:
        """Run the graph that assumes these decisions."""
        captured = self._graph(form, decisions, batch, weight)
        self._release_cuda_graph()
        values, *gradients = captured(batch, weight)
        numbers: list[float] = values.tolist()  # one transfer from the device for all numbers
        end = len(numbers) - len(captured.decisions)
        outcomes = tuple(int(number) for number in numbers[end:])
        return _Attempt(captured, numbers[:end], gradients, outcomes)

    def _release_cuda_graph(self) -> None:
        """Tell torch that the outputs of the last step's CUDA graph are not needed any more.

        Otherwise each step would be recorded anew, as one that comes after the last.
        """
        if self._parameters[0].device.type != "cuda":
            return
        for parameter in self._parameters:
            parameter.grad = None
        torch.compiler.cudagraph_mark_step_begin()

    def _graph(
        self,
        form: Hashable,
        decisions: tuple[int, ...],
        batch: Batch,
        weight: float | Tensor,
    ) -> CapturedStep:
        """Return the compiled graph for a form of inputs and decisions, compiling it if needed."""
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
                f"more than {MOST_GRAPHS} graphs were needed, since batch shapes, decisions on "
                "values or attributes changed so often; keep them the same from step to step"
            )
        self.announce("compiling the step, up to a minute")
        try:
            captured = capture(self.step, batch, weight, decisions)
            return self._compiled_and_checked(captured, batch, weight)
        finally:
            self.announce("")

    def _compiled_and_checked(
        self, captured: CapturedStep, batch: Batch, weight: float | Tensor
    ) -> CapturedStep:
        """The captured step, compiled, with random numbers in the order of the eager step.

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
        """Raise StaleStepError unless the graph still gives the numbers of the eager step."""
        uncompiled = replace(captured, graph=captured.uncompiled)
        try:
            check_equal(self.step, uncompiled, batch, weight)
        except CaptureError as error:
            raise StaleStepError(
                f"after {self._steps} compiled steps the graph is out of date, and training may "
                f"have gone wrong: {error}; or train with compile=False"
            ) from None

    def _form(self, batch: Batch, weight: float | Tensor) -> Hashable:
        """Return what a graph depends on besides the values of its inputs.

        If an attribute of the objective has changed, all graphs are dropped.
        """
        if self._state is None or not self._state.is_same:
            changes = [] if self._state is None else self._state.changes()
            self._state = PythonState(self.step.objective)
            if changes:
                self._graphs.clear()
        forms = [(part.shape, part.stride(), part.dtype) for part in tensors_of(batch)]
        parts = (batch.x is None, batch.x_unlabeled is None, batch.encoded)
        trained = [parameter.requires_grad for parameter in self._parameters]
        return (*forms, parts, *trained, isinstance(weight, Tensor), torch.get_num_threads())

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        self._graphs.clear()
        warnings.warn(
            f"compile: {reason}; training continues with eager steps, as with compile=False",
            NotCompiledWarning,
            stacklevel=2,
        )


@dataclass(frozen=True)
class _Attempt:
    """The outputs of a graph, with the decisions that its values call for."""

    captured: CapturedStep
    numbers: list[float]
    gradients: list[Tensor]
    outcomes: tuple[int, ...]

    @property
    def is_wrong(self) -> bool:
        """True if the graph assumed other decisions than its values call for."""
        return self.outcomes != self.captured.decisions


def compiled_graph(graph: GraphModule, inputs: list[Tensor], save_memory: bool = False) -> Graph:
    """Compile a graph with Inductor, or take it from the cache; random numbers are those of torch.

    Arguments:
        graph: The graph.
        inputs: Its inputs.
        save_memory: Let Inductor reorder operations so that memory is needed for a shorter time.

    Raises:
        CaptureError: The graph does not compile.
    """
    forms = [(t.shape, t.stride(), t.dtype, str(t.device), t.requires_grad) for t in inputs]
    key = (graph.code, *forms, torch.get_num_threads(), save_memory)
    if key in _COMPILED:
        _COMPILED.move_to_end(key)
        return _COMPILED[key]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warnings about its own code
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
    """Return True if plain data have the form of `CompiledStep.state`."""
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
