"""The methods: one function each, their options and presets, and trained models on disk."""

from pyro_ssl.zoo.registry import METHODS, Method, build, method, options_of
from pyro_ssl.zoo.renamed import current_options

__all__ = ["METHODS", "Method", "build", "current_options", "method", "options_of"]
