"""``python -m tests.fuzz``, which ``nox -s fuzz`` runs: what hurts, drawn at random, and a table of what came of it.

``nox -s fuzz -- --minutes 10 --seed 1000``, or ``-- --kind h5 --seed 1234 --tries 1`` for one that was told of.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from tests.fuzz.harness import Attempt, is_clean, kinds_of, run_all, run_child, shown


def kinds() -> dict[str, Attempt]:
    """What every ``fuzz_*.py`` beside this file tries."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("fuzz_*.py"))
    return kinds_of(vars(importlib.import_module(f"tests.fuzz.{name}")) for name in names)


def main() -> int:
    parser = argparse.ArgumentParser(prog="nox -s fuzz --", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="for all kinds together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first attempt of each (default: %(default)s)")
    parser.add_argument("--kind", action="append", help="only this one, or these; part of a name is enough")
    parser.add_argument("--tries", type=int, default=10**9, help="at most, of each")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time (default: %(default)s)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    known = kinds()
    if arguments.child is not None:
        run_child(known[arguments.child], arguments.seed, arguments.seconds, arguments.tries)
        return 0
    chosen = [name for name in known if not arguments.kind or any(part in name for part in arguments.kind)]
    if not chosen:
        parser.error(f"no kind is named so; there are {', '.join(known)}")
    results = run_all(
        chosen, seed=arguments.seed, minutes=arguments.minutes, workers=arguments.workers, tries=arguments.tries
    )
    print(shown(results))
    return 0 if is_clean(results) else 1


if __name__ == "__main__":
    sys.exit(main())
