"""Completion by the shell: ``eval "$(register-python-argcomplete xlmr)"`` makes bash and zsh ask, and this answers.

The package ``argcomplete`` (the extra ``completion``) is imported only when a shell asks.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from xlmr_core.cli.parser import OneOf
from xlmr_core.hub import BUILT_IN
from xlmr_core.tasks import ALIASES, TASKS, models_for

__all__ = ["asked", "complete", "whole_parser"]

# Options that name a file.
PATHS = ("input", "output")


def asked() -> bool:
    """Whether it is a shell that calls, to have a line completed."""
    return "_ARGCOMPLETE" in os.environ


def complete(commands: Mapping[str, ModuleType]) -> None:
    """Answer the shell, and end the process."""
    import argcomplete
    from argcomplete.lexers import split_line

    words = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))[3][1:]
    argcomplete.autocomplete(whole_parser(commands, words), always_complete_options="long")


def whole_parser(commands: Mapping[str, ModuleType], words: Sequence[str]) -> argparse.ArgumentParser:
    """A parser of all commands; each of its actions knows what can stand there.

    Args:
        commands: the modules of the commands, by name.
        words: of the line so far.
    """
    task = next((word for word in words if word in TASKS or word in ALIASES), "")
    top = argparse.ArgumentParser("xlmr")
    top.add_argument("--version", action="store_true")
    parsers = top.add_subparsers()
    for name, module in commands.items():
        own = parsers.add_parser(name, help=module.SUMMARY)
        module.add_arguments(own, ["--task", task] if task else ["--help"])
        for action in own._actions:
            _let_complete(action, task)
    return top


def _let_complete(action: Any, task: str) -> None:
    if action.dest == "task":
        action.completer = lambda **line: [*TASKS, *ALIASES]
    elif action.dest == "model":
        action.completer = functools.partial(_models, task)
    elif isinstance(action.type, OneOf):
        action.completer = lambda **line: list(action.type.known)
    elif (action.option_strings or action.dest == "texts") and action.dest not in PATHS:  # else a path
        action.completer = lambda **line: []


def _models(task: str, prefix: str, **others: Any) -> list[str]:
    """The built-in models, those of the hub for a task, or for any, and folders."""
    from argcomplete.completers import DirectoriesCompleter

    named = [name for known in ([task] if task else TASKS) for name in models_for(known)]
    return [*BUILT_IN, *dict.fromkeys(named), *DirectoriesCompleter()(prefix)]
