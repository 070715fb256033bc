"""What is often wrong with a checkpoint, each with its remedy: a table of checks, one function each.

To add a check: a function in ``weights.py`` or ``settings.py`` that yields a ``fault`` or an ``advice`` for what it
finds, and its row in ``CHECKS``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xlmr_core.atomic_files import interrupted
from xlmr_core.checkpoints.model_files import find_model, open_model
from xlmr_core.diagnosis import settings, weights
from xlmr_core.diagnosis.examined import Examined, Remark, in_words, listed
from xlmr_core.errors import CheckpointError, ConfigError, TokenizerError
from xlmr_core.probe import Progress
from xlmr_core.wording import number

__all__ = ["CHECKS", "Check", "Diagnosis", "Finding", "diagnose"]


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    Attributes:
        check: the name of the check.
        is_ill: whether it is a fault, so that the model is wrong or will be used wrongly; otherwise it is advice.
        what: what was found.
        remedy: what to do.
    """

    check: str
    is_ill: bool
    what: str
    remedy: str


@dataclass(frozen=True)
class Diagnosis:
    """What the checks found.

    Attributes:
        path: what was examined.
        checks: names of the checks that ran.
        findings: what they found, faults first, then advice.
    """

    path: str
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing but advice was found."""
        return not any(finding.is_ill for finding in self.findings)


@dataclass(frozen=True)
class Check:
    """A check: its name, the question it answers, and the function that yields what it finds."""

    name: str
    question: str
    run: Callable[[Examined], Iterator[Remark]]


CHECKS = (
    Check("fits", "Do the weights fit the configuration?", weights.check_fits),
    Check("head", "Is the head of the architecture there and trained?", weights.check_head),
    Check("leftovers", "Does the file hold what the model does not use?", weights.check_leftovers),
    Check("files", "Do several weight files disagree, or are some stale?", weights.check_files),
    Check("values", "Are all weights numbers?", weights.check_values),
    Check("float16", "Do values overflow in float16?", weights.check_float16),
    Check("dtype", "Is there one dtype, and does the configuration know it?", weights.check_dtype),
    Check("config", "Are the numbers of the configuration those of XLM-R?", settings.check_config),
    Check("labels", "Do the labels have names?", settings.check_labels),
    Check("tokenizer", "Can the tokenizer be built, and is it XLM-R's?", settings.check_tokenizer),
    Check("vocabulary", "Do the tokenizer's ids fit the embedding and the configuration?", settings.check_vocabulary),
    Check("length", "Does the tokenizer truncate where the model ends?", settings.check_length),
)


def diagnose(
    name_or_path: str | os.PathLike[str],
    *,
    head: str | None = None,
    part: str | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Examine a checkpoint of any format.

    Args:
        name_or_path: a folder, a file of weights, a built-in name or a name on the hub.
        head: a suffix of ``HEADS``, where neither the configuration nor the parameters say it.
        part: of a file that holds several models or heads, the one to read: see
            :func:`xlmr_core.checkpoint.open_checkpoint`.
        progress: called with what is being done, the bytes that are done, and all there are.

    Raises:
        ModelNotFoundError: if there is no such model. Whatever is wrong with it is a finding and no error.
    """
    waiting = _waiting(Path(name_or_path))
    if waiting:
        what = (
            f"a save was killed between its files: {listed(list(waiting))} {number(waiting, 'is', 'are')} not in place"
        )
        remedy = "load the model or save it again: either puts the rest in place"
        return Diagnosis(os.fspath(name_or_path), ("opens",), (Finding("opens", True, what, remedy),))
    path = find_model(name_or_path)
    try:
        files = open_model(path, head=head, part=part)
    except (CheckpointError, ConfigError) as error:
        return Diagnosis(str(path), ("opens",), (Finding("opens", True, *in_words(error)),))
    with files:
        examined = Examined(files, progress)
        findings = []
        for check in CHECKS:
            try:
                findings += [
                    Finding(check.name, remark.is_fault, remark.what, remark.remedy) for remark in check.run(examined)
                ]
            except (CheckpointError, ConfigError, TokenizerError) as error:
                findings.append(Finding(check.name, True, *in_words(error)))
    findings.sort(key=lambda finding: not finding.is_ill)
    return Diagnosis(str(files.checkpoint.path), ("opens", *(check.name for check in CHECKS)), tuple(findings))


def _waiting(path: Path) -> tuple[str, ...]:
    """The files that a save, killed between its renames, did not put in place; looking at the model would."""
    return interrupted(path if path.is_dir() else path.parent)
