"""Helpers without probability in them: arrays, arguments, context managers, files."""
