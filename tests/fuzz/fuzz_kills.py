"""Saves that are killed at each of their operations on files: part of ``nox -s fuzz``.

A folder holds one model, tokenizer or configuration; a child saves another one there and is killed at its n-th step.
What is read then is the old one or the new one, whole; ``doctor`` says so where it is neither to other libraries; and
the next save leaves nothing behind but young temporaries.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.fuzz.harness import Attempt
from xlmr_core.atomic_files import RECORD
from xlmr_core.checkpoint import RawTensor, open_checkpoint, save_checkpoint
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.conversion import convert, writable_formats
from xlmr_core.diagnosis import diagnose
from xlmr_core.parameters import parameters, stored_names
from xlmr_core.tokenization import XLMRobertaTokenizer, XLMRobertaTokenizerFast

# What audit hooks tell of, and the names of a step of ours between them.
STEPS = ("open", "tempfile.mkstemp", "os.mkdir", "os.rename", "os.remove", "os.chmod", "os.utime", "os.listdir")
# A full save has fewer. A number beyond the last means that it is not killed at all.
MOST_STEPS = 60
HEAD = "ForMaskedLM"


class Saved(NamedTuple):
    """How something is saved as number 1 or 2, and what is read: a number, or an error."""

    save: Callable[[Path, int], object]
    read: Callable[[Path], int]


def config_of(number: int) -> XLMRobertaConfig:
    return XLMRobertaConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=number,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=20,
        architectures=["XLMRobertaForMaskedLM"],
        layer_norm_eps=number / 10,
    )


def save_weights(folder: Path, number: int, format: str, size: str) -> None:
    config = config_of(number)
    rows = parameters(config, HEAD)
    tensors = {name: RawTensor.from_numpy(np.full(rows[name].shape, number, np.float32)) for name in stored_names(rows)}
    small = {"config.json": config.to_json_string().encode(), "dict.txt": b"a 1\n" * number}
    save_checkpoint(folder, format, tensors, config, HEAD, max_shard_size=size, together=small)


def read_weights(folder: Path) -> int:
    with open_checkpoint(folder) as checkpoint:
        values = {float(value) for name in checkpoint.names for value in np.unique(checkpoint.tensor(name).to_numpy())}
    config = XLMRobertaConfig.from_pretrained(folder)
    values |= {config.num_hidden_layers, round(config.layer_norm_eps * 10)}
    values.add((folder / "dict.txt").read_bytes().count(b"a"))
    assert len(values) == 1, f"the values of {sorted(values)} are mixed"
    return int(values.pop())


def weights(format: str, *sizes: str) -> Saved:
    return Saved(lambda folder, number: save_weights(folder, number, format, sizes[number % len(sizes)]), read_weights)


@functools.cache
def tokenizers(kind: type) -> dict[int, Any]:
    made = {number: kind.from_pretrained("xlmr-mini", model_max_length=100 * number) for number in (1, 2)}
    made[1].add_tokens(["<newtok>", "qqq"])
    return made


def tokenizer(kind: Any, **how: Any) -> Saved:
    def answer(one: Any) -> tuple[Any, ...]:
        return one("a <newtok> qqq")["input_ids"], one.model_max_length, len(one)

    def read(folder: Path) -> int:
        left = answer(kind.from_pretrained(folder))
        found = [number for number, one in tokenizers(kind).items() if answer(one) == left]
        assert found, f"{left} is neither tokenizer"
        return found[0]

    return Saved(lambda folder, number: tokenizers(kind)[number].save_pretrained(folder, **how), read)


def configuration() -> Saved:
    return Saved(
        lambda folder, number: config_of(number).save_pretrained(folder),
        lambda folder: XLMRobertaConfig.from_pretrained(folder).num_hidden_layers,
    )


@functools.cache
def sources() -> dict[int, Path]:
    """Two small models, made once a process."""
    top = Path(tempfile.mkdtemp(prefix="xlmr-fuzz-sources-"))
    for number in (1, 2):
        save_weights(top / str(number), number, "safetensors", "5GB")
    return {number: top / str(number) for number in (1, 2)}


def conversion(format: str) -> Saved:
    return Saved(
        lambda folder, number: convert(sources()[number], folder, format, force=True, pooler=False), read_weights
    )


WAYS: dict[str, Saved] = {
    "shards over shards": weights("safetensors", "3KB"),
    "single over shards": weights("safetensors", "5GB", "3KB"),
    "shards over single": weights("safetensors", "3KB", "5GB"),
    "single over single": weights("safetensors", "5GB"),
    "tokenizer, fast": tokenizer(XLMRobertaTokenizerFast),
    "tokenizer, slow": tokenizer(XLMRobertaTokenizer),
    "configuration": configuration(),
    **{f"conversion to {format}": conversion(format) for format in writable_formats() if format != "fairseq"},
}


def kill_at(step: int, save: Callable[[], object]) -> None:
    """Save in a forked child that is killed before a step."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or status == 0, f"the save failed by itself: {status}"
        return
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.fsync = lambda handle: None  # only a crash of the machine needs it, and it is slow
        count = 0

        def watch(event: str, arguments: Any) -> None:
            nonlocal count
            if event in STEPS:
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        save()
        os._exit(0)
    finally:
        os._exit(1)


def is_undone(folder: Path) -> bool:
    """Whether a record names what has not taken its place, or is still to go."""
    if not (folder / RECORD).exists():
        return False
    record = json.loads((folder / RECORD).read_text())
    return any((folder / name).exists() for name in (*record["files"].values(), *record["remove"]))


def attempt(seed: int, folder: Path, way: Saved) -> None:
    old, before = folder / "old", seed // MOST_STEPS % 2 + 1
    way.save(old, before)
    names = {path.name for path in old.iterdir()}
    kill_at(seed % MOST_STEPS + 1, lambda: way.save(old, 3 - before))
    if (old / "config.json").exists() and is_undone(old):
        assert not diagnose(old).healthy, "doctor does not see the killed save"
    copy = folder / "copy"
    shutil.copytree(old, copy)
    assert way.read(old) in (1, 2)
    assert way.read(copy) == way.read(old), "a copy reads otherwise"
    way.save(old, 3 - before)
    assert way.read(old) == 3 - before
    way.save(old, before)
    left = {path.name for path in old.iterdir() if not path.name.endswith(".tmp")}
    assert {name.replace("-r2", "") for name in left} == names, f"left over: {sorted(left ^ names)}"


def kind(way: Saved) -> Attempt:
    return lambda seed, folder: attempt(seed, folder, way)


KINDS = {f"killed: {name}": kind(way) for name, way in WAYS.items()}
