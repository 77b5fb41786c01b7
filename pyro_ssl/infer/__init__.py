"""Inference with a Pyro model and guide: the ELBO, enumeration, Gibbs sampling, checks."""

from pyro_ssl.infer.checks.scope_error import ScopeError
from pyro_ssl.infer.elbo import TraceTopKEnum_ELBO

__all__ = ["ScopeError", "TraceTopKEnum_ELBO"]
