"""The error for a pair outside the scope of `TraceTopKEnum_ELBO`."""

from __future__ import annotations

WAY_OUT = (
    "; Objective(elbo=pyro.infer.TraceEnum_ELBO(max_plate_nesting=1)) supports any pair that "
    "Pyro can enumerate"
)
"""Last part of the message of every `ScopeError`."""


class ScopeError(ValueError):
    """A model/guide pair is outside the scope of `TraceTopKEnum_ELBO`.

    The message says how to fix it, or which ELBO to use instead.

    >>> str(ScopeError("site 'y' is outside every plate")).partition(";")[0]
    "site 'y' is outside every plate"
    """

    def __init__(self, message: str) -> None:
        # Pyro raises the error again with the shapes of all sites after it; keep the first line
        sentence = message.partition("\n")[0]
        super().__init__(sentence if sentence.endswith(WAY_OUT) else sentence + WAY_OUT)
