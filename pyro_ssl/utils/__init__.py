"""Helpers without probability in them: arguments, arrays, context managers, files."""
