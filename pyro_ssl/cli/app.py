"""The command `pyro-ssl`: its parser, its error messages and its handling of Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from types import FrameType

from jsonargparse import ArgumentParser, Namespace

from pyro_ssl.cli.commands import COMMANDS, module_of

USER_ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError)
"""Errors that are reported in one line, beside those of `_is_user_error`."""
SUCCESS = 0
USER_ERROR = 2
INTERRUPTED = 130
TERMINATED = 143


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    The code is 0 for success, 2 for a user error, which is reported in one line, 130 for an
    interrupted command, and 143 for a training that SIGTERM has ended. If the environment variable
    PYRO_SSL_DEBUG is set, errors are raised with a traceback.

    >>> main(["predict", "nowhere", "--input", "x.npy", "--output", "p.txt"])
    2

    Arguments:
        argv: The arguments; by default those of the process.
    """
    arguments: Namespace | None = None
    try:
        with _interruptible(), _plain_warnings():
            arguments = _parse(sys.argv[1:] if argv is None else argv)
            module_of(arguments.command).run(arguments[arguments.command])
            _flush()
    except (KeyboardInterrupt, EOFError):
        print(f"\npyro-ssl: stopped{_resume_hint(arguments)}", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as exit:
        if exit.code != TERMINATED:
            raise
        if not _of_process():
            print(f"\npyro-ssl: stopped{_resume_hint(arguments)}", file=sys.stderr)
        return TERMINATED
    except Exception as error:
        if os.environ.get("PYRO_SSL_DEBUG") or not _is_user_error(error):
            raise
        print(f"pyro-ssl: error: {_of_process()}{_message(error)}", file=sys.stderr)
        return USER_ERROR
    return SUCCESS


def make_parser(
    methods: Collection[str] | None = None, commands: Collection[str] = tuple(COMMANDS)
) -> ArgumentParser:
    """Make the parser of all commands, with a subcommand of `train` for each method.

    Arguments:
        methods: The methods, by default all; few of them are quicker to make.
        commands: Commands whose options are known; the others have only a description, and their
            modules are not imported.

    >>> make_parser().parse_args(["evaluate", "run"]).evaluate.restarts
    1
    """
    parser = ArgumentParser(
        allow_abbrev=False,
        prog="pyro-ssl",
        description="Semi-supervised deep generative models.",
        version=version("pyro-ssl"),
    )
    subcommands = parser.add_subcommands(dest="command")
    for name, description in COMMANDS.items():
        subparser = ArgumentParser(allow_abbrev=False, description=description)
        if name in commands:
            subparser = module_of(name).parser()
        subcommands.add_subcommand(name, subparser, help=description)
        if name == "train" and name in commands:  # jsonargparse needs the outer level first
            _add_methods(subparser, methods)
    return parser


def _add_methods(parser: ArgumentParser, methods: Collection[str] | None) -> None:
    from pyro_ssl import zoo

    names = tuple(zoo.METHODS) if methods is None else methods
    if names:
        module_of("train").add_methods(parser, names)


def _methods_in(argv: Sequence[str]) -> tuple[str, ...] | None:
    """The methods whose options a command may have: that of `train`, or else all of them."""
    if argv[:1] != ["train"]:
        return ()
    method = module_of("train").method_in(argv[1:])
    return None if method is None else (method,)


def _parse(argv: list[str]) -> Namespace:
    if not argv or argv[0] not in COMMANDS:  # help, the version, or an error
        return make_parser((), ()).parse_args(argv)
    _check_depth(argv)
    argv = _as_declared(argv)
    if argv[0] == "train":
        module_of("train").check_resumed_options(argv[1:])
    if argv[0] != "sweep":
        return _parse_whole(argv)
    own, training = module_of("sweep").split(argv)
    arguments = make_parser((), ("sweep",)).parse_args(own)
    arguments.sweep.training = training
    return arguments


def _check_depth(argv: Sequence[str]) -> None:
    from pyro_ssl.cli.config_file import is_too_deep

    for text in argv:
        if is_too_deep(text):
            raise ValueError(f"the argument {text:.40} ... is nested too deeply to be read")


def _as_declared(argv: list[str]) -> list[str]:
    """Spell the options of a command as its parsers declare them."""
    from pyro_ssl import zoo
    from pyro_ssl.cli.spelling import as_declared

    named: list[str] = []
    if argv[0] == "train":
        method = module_of("train").method_in(argv[1:])
        named = [name for name in zoo.METHODS if name == method]
    if argv[0] == "sweep":  # also a value of an option that is called like a method
        named = [name for name in zoo.METHODS if name in argv]
    parsers = [module_of(argv[0]).parser()]
    if named:
        parsers += map(module_of("train").method_parser, named)
    return [argv[0], *as_declared(argv[1:], parsers)]


def _parse_whole(argv: list[str]) -> Namespace:
    """Parse a command other than `sweep`.

    In `train`, the user's options win over a preset's and over those that suit the data. `given`
    has only the options that the user gave.
    """
    from pyro_ssl.cli.method_options import parsed_with_preset

    parser = make_parser(_methods_in(argv), (argv[0],))
    arguments = parser.parse_args(argv)
    if arguments.command != "train" or arguments.train.method is None:
        return arguments
    method = arguments.train.method
    given = parser.parse_args(argv, defaults=False).train[method]
    arguments.train.given = given
    arguments.train[method] = parsed_with_preset(method, arguments.train[method], vars(given))
    return arguments


# --- messages -------------------------------------------------------------------------------------


def _message(error: BaseException) -> str:
    """Text of an error for the user."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        return f"{error}: the terminal, or the target of standard output"
    if isinstance(error, MemoryError):
        return f"there is not enough memory; {error}".removesuffix("; ")
    return str(error)


def _is_user_error(error: Exception) -> bool:
    """Whether an error is the user's to mend, and is reported in one line."""
    if isinstance(error, USER_ERRORS):
        return True
    import torch

    from pyro_ssl.sweeps.lost_workers import LostRunError
    from pyro_ssl.training import DivergedError, LostProcessError, StaleStepError

    of_training = (torch.cuda.OutOfMemoryError, DivergedError, LostProcessError, StaleStepError)
    return isinstance(error, (*of_training, LostRunError))


def _flush() -> None:
    """Write what was printed; an error names the standard output."""
    from pyro_ssl.utils import files

    with files.naming("standard output"):
        sys.stdout.flush()


def _of_process() -> str:
    """Which process of a run speaks, if it is not the first."""
    rank = int(os.environ.get("RANK", "0"))
    return f"process {rank}: " if rank else ""


def _resume_hint(arguments: Namespace | None) -> str:
    """Hint on how to continue an interrupted command, if that is possible."""
    if arguments is None:
        return ""
    if arguments.command == "label":
        return str(module_of("label").resume_hint())
    if arguments.command == "train":
        return str(module_of("train").resume_hint(arguments.train))
    if arguments.command == "sweep":
        return "; the same command continues"
    return ""


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings in one line, without file and line number."""
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

    Ending it at once is safe, since files are complete at all times.
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
