"""Helpers that know nothing of probability: arguments, arrays, context managers, files."""
