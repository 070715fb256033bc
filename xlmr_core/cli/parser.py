"""The arguments of a command: how they are read, what the help looks like, and what is said of a mistake.

What several commands take is declared here once. Other words for the same thing are understood everywhere and shown
nowhere: ``--framework`` for ``--backend``, ``--json`` for ``--format json``, ``pt`` for ``torch``.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

from xlmr_core.backends import find_backend
from xlmr_core.errors import XLMRError
from xlmr_core.heads import HEADS
from xlmr_core.wording import nearest

__all__ = [
    *("MODEL", "OneOf", "Parser", "UsageError", "add_backend", "add_format", "add_head", "add_part", "add_progress"),
    "backend",
]

MODEL = "a folder, a file of weights, a built-in model or a name on the Hugging Face hub"

# How argparse begins what it says of a call.
_MISSING, _TOO_MANY, _VALUE = "the following arguments are required: ", "unrecognized arguments: ", "argument "
_NUMBER = re.compile(r"-\d+(\.\d*)?$|-\.\d+$")


class UsageError(XLMRError):
    """Arguments that a command does not take."""


class Help(argparse.HelpFormatter):
    """Wraps paragraphs to the terminal, and leaves lines that begin with a space, which are examples, as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        blocks: list[list[str]] = []
        for line in text.strip("\n").split("\n"):
            starts = not line or line.startswith(" ")
            if starts or not blocks or not blocks[-1][-1] or blocks[-1][-1].startswith(" "):
                blocks.append([line])
            else:
                blocks[-1].append(line)
        return "\n".join(
            indent + block[0]
            if not block[0] or block[0].startswith(" ")
            else textwrap.fill(" ".join(block), width, initial_indent=indent, subsequent_indent=indent)
            for block in blocks
        )


class Parser(argparse.ArgumentParser):
    """The parser of a command. A mistake is a :class:`UsageError`, one line.

    Args:
        name: of the command; empty for ``xlmr`` itself.
        usage: how it is called.
        description: what it does.
    """

    def __init__(self, name: str, usage: str, description: str) -> None:
        super().__init__(
            prog=f"xlmr {name}".strip(),
            usage=usage,
            description=description,
            formatter_class=Help,
            allow_abbrev=False,
        )
        self.set_defaults(in_place=self.in_place)

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """The arguments.

        Raises:
            UsageError: for an option that there is not, with the nearest, and for whatever else is wrong.
        """
        for word in words:
            if word == "--":
                break
            name = word.partition("=")[0]
            if self._looks_like_option(word) and name not in self._option_string_actions:
                near = nearest(name, self._option_string_actions)
                takes_texts = any(action.nargs == "*" for action in self._actions)
                remedy = "; a text that begins with - stands after --" if takes_texts else ""
                remedy = f"; did you mean {near}?" if near else f"{remedy};"
                raise UsageError(f"{self.prog} has no option {name}{remedy} usage: {self.usage}")
        return self.parse_args(words)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse says of a call, in our words."""
        if message.startswith(_VALUE):
            raise UsageError(message.removeprefix(_VALUE))
        if message.startswith(_MISSING):
            message = f"{self.prog} needs {message.removeprefix(_MISSING)}"
        elif message.startswith(_TOO_MANY):
            message = f"{self.prog} has no use for {message.removeprefix(_TOO_MANY)}"
        raise UsageError(f"{message}; usage: {self.usage}")

    def in_place(self, text: str) -> str:
        """What an error says, in the words of the command line: ``pass force=True`` becomes ``pass --force``.

        Where the command has no such option, the advice is said to be for Python.
        """
        for name, words in ELSEWHERE.items():
            text = re.sub(rf"\bpass {name}=(\.\.\.)?", words, text)
        text = re.sub(r"(?<!in Python )\bpass (?=(\w+)=)", self._pass, text)
        text = _ASSIGNMENT.sub(lambda found: self._as_option(found["name"], found["value"]) or found[0], text)
        first, space, rest = text.partition(" ")
        named = rest.startswith(("must ", "'")) and self._as_option(first, "")
        return (named or first) + space + rest

    def _pass(self, found: re.Match[str]) -> str:
        return "pass " if self._as_option(found[1], "") else "in Python pass "

    def _as_option(self, name: str, value: str | None) -> str:
        """An argument of a function as an option of this command, if it is one."""
        value = (value or "").strip("'\"")
        actions = [action for action in self._actions if action.dest == name and action.option_strings]
        if not actions:
            return ""
        action = actions[0]
        if isinstance(action, argparse.BooleanOptionalAction):
            return action.option_strings[value == "False"]
        if action.nargs == 0:
            return action.option_strings[0] if value in ("", str(action.const)) else ""
        return f"{action.option_strings[0]} {value}".strip()

    def _looks_like_option(self, word: str) -> bool:
        """As argparse has it: texts with spaces and negative numbers are no options."""
        return len(word) > 1 and word[0] == "-" and " " not in word and not _NUMBER.match(word)


_ASSIGNMENT = re.compile(r"\b(?P<name>[a-z_]+)=(?P<value>'[^']*'|\"[^\"]*\"|[\w./:-]*\w)?")
# Arguments in Python that are something else than an option here.
ELSEWHERE = {"token": "log in with `hf auth login`, or set HF_TOKEN"}


# What several commands take


class OneOf:
    """A type for ``add_argument``: one of a few words.

    Args:
        known: the words.
        other_words: gives the word that another one stands for, or ``None``.
    """

    def __init__(self, known: Collection[str], other_words: Callable[[str], str | None] = str) -> None:
        self.known = known
        self._other_words = other_words

    def __call__(self, value: str) -> str:
        """The word that was meant."""
        found = value if value in self.known else self._other_words(value)
        if found in self.known and found is not None:
            return found
        near = nearest(value, self.known)
        remedy = f"; did you mean {near}?" if near else ""
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(self.known)}, received {value!r}{remedy}")


def backend(known: Collection[str]) -> OneOf:
    """As :class:`OneOf`, of the names of backends; their other names are understood."""
    return OneOf(known, find_backend)


def add_backend(parser: argparse.ArgumentParser, **how: Any) -> None:
    """``--backend``, which ``--framework`` means too."""
    parser.add_argument("--backend", **how)
    parser.add_argument("--framework", dest="backend", **{**how, "help": argparse.SUPPRESS})


def add_format(parser: argparse.ArgumentParser, **formats: str) -> None:
    """``--format``, and ``--json`` for ``--format json``.

    Args:
        parser: the command's parser.
        **formats: the formats beside text, each with what it prints.
    """
    names = ("text", *formats)
    prints = ", ".join(f"{name} prints {what}" for name, what in formats.items())
    parser.add_argument(
        "--format",
        type=OneOf(names),
        default=names[0],
        metavar="FORMAT",
        help=f"{', '.join(names[:-1])} or {names[-1]}; {prints} (default: %(default)s)",
    )
    parser.add_argument("--json", dest="format", action="store_const", const="json", help=argparse.SUPPRESS)


def add_head(parser: argparse.ArgumentParser) -> None:
    """``--head``."""
    parser.add_argument(
        "--head",
        type=OneOf(tuple(HEADS)),
        metavar="HEAD",
        help="such as ForMaskedLM, where neither the config nor the weights say it",
    )


def add_part(parser: argparse.ArgumentParser) -> None:
    """``--part``."""
    parser.add_argument("--part", metavar="NAME", help="which model or head to read of a file that holds several")


def add_progress(parser: argparse.ArgumentParser, where: str = "standard error is a terminal") -> None:
    """``--progress`` and ``--no-progress``."""
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help=f"show progress (default: if {where})"
    )
