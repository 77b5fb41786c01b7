"""The command `pyro-ssl`: its parser, its errors, and what Ctrl-C does."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import FrameType

import torch
from jsonargparse import ArgumentParser, Namespace

from pyro_ssl.cli import evaluate, label, predict, train
from pyro_ssl.cli import list as list_command
from pyro_ssl.cli.config_file import is_too_deep
from pyro_ssl.training.compiled_step import StaleStepError
from pyro_ssl.training.run import DivergedError
from pyro_ssl.utils import files

COMMANDS = {
    "list": list_command,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "label": label,
}
"""Modules with `parser() -> ArgumentParser` and `run(arguments)`."""
USER_ERRORS = (
    ValueError,
    TypeError,
    OSError,
    MemoryError,
    torch.cuda.OutOfMemoryError,
    DivergedError,
    StaleStepError,
)
SUCCESS = 0
USER_ERROR = 2
INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 is success, 2 a user error, which is reported in one line, without a traceback, and 130 an
    interrupted command. With PYRO_SSL_DEBUG in the environment errors have their traceback.

    >>> main(["predict", "nowhere", "--input", "x.npy", "--output", "p.txt"])
    2

    Arguments:
        argv: The arguments; by default those of the process.
    """
    arguments: Namespace | None = None
    try:
        with _interruptible(), _plain_warnings():
            arguments = _parse(sys.argv[1:] if argv is None else argv)
            COMMANDS[arguments.command].run(arguments[arguments.command])
            with files.naming("standard output"):
                sys.stdout.flush()
    except (KeyboardInterrupt, EOFError):
        print(f"\npyro-ssl: stopped{_resume_hint(arguments)}", file=sys.stderr)
        return INTERRUPTED
    except USER_ERRORS as error:
        if os.environ.get("PYRO_SSL_DEBUG"):
            raise
        print(f"pyro-ssl: error: {_message(error)}", file=sys.stderr)
        return USER_ERROR
    return SUCCESS


def make_parser() -> ArgumentParser:
    """Make the parser of all commands, with a subcommand of `train` per method."""
    parser = ArgumentParser(
        prog="pyro-ssl",
        description="Semi-supervised deep generative models.",
        version=version("pyro-ssl"),
    )
    commands = parser.add_subcommands(dest="command")
    for name, command in COMMANDS.items():
        subparser = command.parser()
        commands.add_subcommand(name, subparser, help=subparser.description)
        if name == "train":  # jsonargparse needs the outer level first
            train.add_methods(subparser)
    return parser


def _parse(argv: list[str]) -> Namespace:
    for text in argv:
        if is_too_deep(text):
            raise ValueError(f"the argument {text:.40} ... is nested too deeply to be read")
    return make_parser().parse_args(argv)


# --- messages -------------------------------------------------------------------------------------


def _message(error: BaseException) -> str:
    """The text of an error for the user."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        return f"{error}: the terminal, or the target of standard output"
    if isinstance(error, MemoryError):
        return f"there is not enough memory; {error}".removesuffix("; ")
    return str(error)


def _resume_hint(arguments: Namespace | None) -> str:
    """How to continue an interrupted command, if that is possible."""
    if arguments is None:
        return ""
    if arguments.command == "label":
        return label.resume_hint()
    if arguments.command == "train":
        return train.resume_hint(arguments.train)
    return ""


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings in one line, without their place in the code."""
    before = warnings.formatwarning
    warnings.formatwarning = _warning_line
    try:
        yield
    finally:
        warnings.formatwarning = before


def _warning_line(message: Warning | str, *place: object, **more: object) -> str:
    return f"pyro-ssl: warning: {message}\n"


# --- signals --------------------------------------------------------------------------------------


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first Ctrl-C, and end the process at the second.

    Ending it at once is safe, since files are complete at any moment.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    try:
        signal.signal(signal.SIGINT, _interrupt)
    except ValueError:  # only the main thread is interrupted
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _end)
    raise KeyboardInterrupt


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"\npyro-ssl: stopped\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
