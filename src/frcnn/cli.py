"""The command line: ``frcnn VERB``. Parsing, exit codes and error messages; the verbs are in ``commands``.

Exit codes: 0 done, 1 the run failed, 2 bad usage, configuration or data (nothing was trained), 130 after
Ctrl-C.
Nothing here imports torch, so that ``--help`` answers at once.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import frcnn
from frcnn.commands.bench import bench
from frcnn.commands.check import check
from frcnn.commands.convert import convert
from frcnn.commands.demo import demo
from frcnn.commands.doctor import doctor
from frcnn.commands.errors import CommandError
from frcnn.commands.evaluate import evaluate
from frcnn.commands.fetch import fetch
from frcnn.commands.predict import predict
from frcnn.commands.recipes import recipes
from frcnn.commands.show import show
from frcnn.commands.train import train

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="frcnn",
    help="Train, evaluate and use two-stage detectors on your own pictures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(train)
app.command("eval")(evaluate)
app.command()(predict)
app.command()(check)
app.command()(show)
app.command()(convert)
app.command()(recipes)
app.command()(fetch)
app.command()(demo)
app.command()(bench)
app.command()(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"frcnn {frcnn.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (works after the verb, too).")
    ] = False,
) -> None:
    """Train, evaluate and use two-stage detectors on your own pictures."""


def main() -> None:
    """Entry point of the command ``frcnn``."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors become one sentence on stderr.

    Args:
        arguments: as after ``frcnn`` on the command line.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names need be no text, nor terminals know all of it
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in arguments
    words = [word for word in arguments if word != "--debug"]
    try:
        code: Any = app(args=words, prog_name="frcnn", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if debug:
            traceback.print_exc()
        message, code = describe(error)
        print(f"frcnn: {message}", file=sys.stderr)
    if code == INTERRUPTED:  # some versions of typer return this themselves
        print("frcnn: interrupted", file=sys.stderr)
    return code if isinstance(code, int) else OK


def describe(error: Exception) -> tuple[str, int]:
    """What is said about an error, and the exit code.

    A ``ValueError`` is what every room raises for input that cannot be used, before anything is trained.
    """
    as_usage: Any = getattr(error, "format_message", None)
    if as_usage is not None:  # typer's own errors
        context: Any = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "frcnn"
        message = str(as_usage()).rstrip(". ").replace("\n", " ").replace("Value error, ", "")
        return (f"{message}; see {where} --help" if message else f"see {where} --help"), USAGE
    if isinstance(error, CommandError):
        return str(error), error.code
    if isinstance(error, ValueError):
        return str(error), USAGE
    if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError | IsADirectoryError):
        return f"{error.filename}: {error.strerror}; check the path", USAGE
    if isinstance(error, FileExistsError) and error.filename:
        return f"{error.filename}: a folder of this name is needed, and a file has it; name another", USAGE
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or "a file"
        return f"{where}: {error.strerror}; make room, or name a place elsewhere", FAILED
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and missing.partition(".")[0] != "frcnn":
        return (
            f'the package {missing} is not installed; run, in the folder of frcnn: pip install ".[train]"',
            USAGE,
        )
    if type(error).__name__ == "OutOfMemoryError":
        return (
            "the device has not enough memory; use a smaller --batch, a smaller --min-size, or --device cpu"
        ), FAILED
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # torch's on a CPU
        return "not enough memory; use a smaller --batch, a smaller --min-size, or larger memory", FAILED
    if type(error).__name__ == "TrainingStopped":
        return str(error), FAILED
    return f"{type(error).__name__}: {error} (--debug shows where)", FAILED
