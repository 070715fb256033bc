"""The ``xlmr`` command.

One module a command, each with ``SUMMARY``, ``add_arguments(parser)`` and ``execute(arguments) -> exit status``. To
add a command: a module beside this one and a row in ``COMMANDS``. Nothing heavy is imported before the arguments are
parsed.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from xlmr_core import __version__
from xlmr_core.cli import convert, doctor, inspect, run, verify
from xlmr_core.errors import XLMRError

__all__ = ["COMMANDS", "main"]

COMMANDS = {"run": run, "convert": convert, "inspect": inspect, "verify": verify, "doctor": doctor}

USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT
BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    It is 0, 2 for a user's mistake, 130 for Ctrl-C, or 141 for a reader that went away.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    try:
        argv = sys.argv[1:] if argv is None else argv
        arguments = _parser(argv).parse_args(argv)
        if sys.stdout is None:
            raise XLMRError("expected a standard output to write to, received a closed one; redirect it to a file")
        status: int = COMMANDS[arguments.command].execute(arguments)
        sys.stdout.flush()
        return status
    except XLMRError as error:
        print(f"xlmr: error: {error}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        # The interpreter flushes once more at exit; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        print(f"xlmr: error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xlmr", description="XLM-RoBERTa on the command line.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"xlmr {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
    if argv and argv[0] == "run":
        run.add_task_arguments(commands.choices["run"], argv)
    return parser
