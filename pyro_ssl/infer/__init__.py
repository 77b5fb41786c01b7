"""Inference with a Pyro model and guide: the ELBO, enumeration, Gibbs sampling, checks."""

from pyro_ssl.infer.elbo import TraceTopKEnum_ELBO
from pyro_ssl.infer.enumeration import ScopeError

__all__ = ["ScopeError", "TraceTopKEnum_ELBO"]
