"""The command line: one file per command, and `app` with the parser and the errors."""

from pyro_ssl.cli.app import main

__all__ = ["main"]
