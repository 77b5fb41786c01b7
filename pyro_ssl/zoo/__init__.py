"""The methods: one function each, their options, and trained models on disk."""

from pyro_ssl.zoo.registry import METHODS, Method, build, method, options_of

__all__ = ["METHODS", "Method", "build", "method", "options_of"]
