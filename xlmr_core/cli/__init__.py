"""The ``xlmr`` command.

One module a command, each with ``SUMMARY``, ``USAGE``, ``DESCRIPTION``, ``add_arguments(parser, words)`` and
``execute(arguments) -> exit status``. To add a command: a module beside this one and a row in ``COMMANDS``. Nothing
heavy is imported before the arguments are parsed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from xlmr_core import __version__
from xlmr_core.cli import completion, convert, doctor, export, inspect, quantize, run, serve, train, verify
from xlmr_core.cli.parser import Parser, UsageError
from xlmr_core.cli.terminal import say, speaking
from xlmr_core.cli.words import listed
from xlmr_core.errors import XLMRError
from xlmr_core.hub_answers import is_left_alone
from xlmr_core.progress import silence_downloads
from xlmr_core.wording import nearest, seen

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "run": run,
    "train": train,
    "serve": serve,
    "convert": convert,
    "quantize": quantize,
    "export": export,
    "inspect": inspect,
    "verify": verify,
    "doctor": doctor,
}
DESCRIPTION = """\
XLM-RoBERTa on the command line. The commands:

{}

`xlmr COMMAND --help` says how each is used.
"""

USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT
BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    It is 0, 2 for a user's mistake, 130 for Ctrl-C, or 141 for a reader that went away.
    """
    if completion.asked():
        completion.complete(COMMANDS)
    status = _status(argv)
    if is_left_alone():
        # The interpreter would wait for the threads of the hub's package, which wait for a hub that does not answer.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(status)
    return status


def _status(argv: Sequence[str] | None) -> int:
    with speaking():
        try:
            status = _run(list(sys.argv[1:] if argv is None else argv))
            sys.stdout.flush()
            return status
        except XLMRError as error:
            say("error", "\n".join(listed(str(error).splitlines())))
            return USER_ERROR
        except BrokenPipeError:
            # The interpreter flushes once more at exit; let that go nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        except OSError as error:
            say("error", seen(str(error)))
            return USER_ERROR
        except KeyboardInterrupt:
            return INTERRUPTED


def _run(words: list[str]) -> int:
    if sys.stdout is None:
        raise XLMRError("expected a standard output to write to, received a closed one; redirect it to a file")
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    try:
        parser, arguments = _read(words)
    except SystemExit as done:  # --help or --version was printed
        return int(done.code or 0)
    if arguments is None:
        parser.print_help()
        return 0
    if arguments.progress is False:
        silence_downloads()
    try:
        status: int = COMMANDS[words[0]].execute(arguments)
    except XLMRError as error:
        raise type(error)(parser.in_place(str(error))) from error
    return status


def _read(words: list[str]) -> tuple[Parser, argparse.Namespace | None]:
    """The parser that is asked, and the arguments of a command; none of ``xlmr`` alone."""
    top = _top_parser()
    name = top.read(words[:1]).command
    if name is None:
        return top, None
    if name not in COMMANDS:
        near = nearest(name, COMMANDS)
        remedy = f"did you mean {near}?" if near else f"expected one of {', '.join(COMMANDS)};"
        raise UsageError(f"xlmr has no command {name!r}; {remedy} usage: {top.usage}")
    module = COMMANDS[name]
    parser = Parser(name, module.USAGE, module.DESCRIPTION)
    module.add_arguments(parser, words[1:])
    return parser, parser.read(words[1:])


def _top_parser() -> Parser:
    rows = "\n".join(f"  {name:9} {module.SUMMARY}" for name, module in COMMANDS.items())
    parser = Parser("", "xlmr COMMAND [arguments]", DESCRIPTION.format(rows))
    parser.add_argument("--version", action="version", version=f"xlmr {__version__}")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="one of the above")
    return parser
