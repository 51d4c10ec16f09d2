"""The door of the command line: the verbs, and one place where every error becomes one message and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vivace.cli import (
    bench_serve,
    demo,
    doctor,
    measure,
    optimize,
    predict,
    quantum,
    report,
    serve,
    synthesize,
    techniques,
    train,
)
from vivace.cli.output import emit, emit_json
from vivace.core.errors import Cancelled, DiskFull, EnvironmentFault, UsageError, VivaceError
from vivace.devices.disk import emptiest

app = typer.Typer(
    name="vivace",
    help="Makes deep-learning models faster and proves it: measured, verified, with an artifact and a report.",
    epilog="Exit codes: 0 done; 2 usage; 3 nothing beat the original, which was kept; 4 quality could not be "
    "certified; 5 environment; 6 disk; 130 cancelled. VIVACE_DEBUG=1 shows the trace of an error.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("techniques")(techniques.techniques)
app.command("optimize")(optimize.optimize)
app.command("train")(train.train)
app.command("measure")(measure.measure)
app.command("quantum")(quantum.quantum)
app.command("synthesize")(synthesize.synthesize)
app.command("predict")(predict.predict)
app.command("report")(report.report)
app.command("serve")(serve.serve)
app.command("bench-serve")(bench_serve.bench_serve)

# typer exports only some of its parser's errors, and which parser it uses depends on its version; this is their root
ParserError: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and answer its exit code.

    An error is one message on standard error, and with --json also one JSON document on standard output:
    {"error": {"kind", "message", "exit_code"}}.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(words)
    except VivaceError as error:
        return _fail(error, words)
    except OSError as error:
        return _fail(_of_the_system(error), words)
    except Exception as error:  # noqa: BLE001 - the last door: a defect of ours must not print a trace over a document
        return _fail(
            VivaceError(
                f"unexpected {type(error).__name__}: {error}; this is a defect of Vivace: set "
                "VIVACE_DEBUG=1, run again and report what it prints"
            ),
            words,
        )


def _run(words: list[str]) -> int:
    try:
        code = app(args=words, prog_name="vivace", standalone_mode=False)
    except ParserError as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "vivace"
        said = str(error.format_message()).replace("Value error, ", "")  # type: ignore[attr-defined]
        raise UsageError(f"{said} See '{command} --help'.") from error
    except (KeyboardInterrupt, typer.Abort) as error:
        raise Cancelled("cancelled") from error
    if code == Cancelled.exit_code:  # typer turns Ctrl-C into this code
        raise Cancelled("cancelled; nothing was changed")
    return code if isinstance(code, int) else 0


def _fail(error: VivaceError, words: Sequence[str]) -> int:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command has ended: only its message is left to print
    try:
        return _tell(error, words)
    finally:
        signal.signal(signal.SIGINT, handler)


def _tell(error: VivaceError, words: Sequence[str]) -> int:
    if os.environ.get("VIVACE_DEBUG") == "1":
        traceback.print_exc()
    if "--json" in words:
        emit_json({"error": {"kind": type(error).__name__, "message": str(error), "exit_code": error.exit_code}})
    emit(f"error: {error}", sys.stderr)
    return error.exit_code


def _of_the_system(error: OSError) -> VivaceError:
    place = f": {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        here, temporary = Path.cwd(), Path(tempfile.gettempdir())
        place = place or f", most likely that of {emptiest(here, temporary)}"
        return DiskFull(
            f"the disk is full{place}; free some space, or write elsewhere (--out; TMPDIR, which is {temporary})"
        )
    return EnvironmentFault(f"{error.strerror or error}{place}; check that the path exists and is yours")


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        emit(f"vivace {version('vivace')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        emit(context.get_help())
