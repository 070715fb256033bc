"""From what a user types to an open model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.core.small_models import config_of, save
from xlmr_core.checkpoints import found
from xlmr_core.checkpoints.found import fetch
from xlmr_core.checkpoints.model_files import find_model, open_model
from xlmr_core.conversion import convert, writable_formats
from xlmr_core.errors import ModelNotFoundError
from xlmr_core.hub import MODEL_FILES


class Hub:
    """A stand-in for the hub: a folder per name, of which files are fetched into another folder by their patterns."""

    def __init__(self, remote: Path, local: Path) -> None:
        self.remote, self.local = remote, local
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, name: str, *, patterns: tuple[str, ...] | None = None) -> Path:
        wanted = MODEL_FILES if patterns is None else patterns
        self.asked.append(wanted)
        found = [path for pattern in wanted for path in self.remote.glob(pattern)]
        if not found:
            raise ModelNotFoundError(f"{name!r} on the hub has no {' or '.join(wanted)}; check")
        self.local.mkdir(exist_ok=True)
        for path in found:
            shutil.copy(path, self.local)
        return self.local


@pytest.mark.parametrize("format", writable_formats())
@pytest.mark.parametrize("size", ["5GB", "10kB"])
def test_of_a_repository_on_the_hub_one_format_is_fetched(
    format: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("base", "ForMaskedLM")
    save(tmp_path / "a", config, "ForMaskedLM")
    convert(tmp_path / "a", tmp_path / "remote", format, max_shard_size=size)
    others = [name for name in writable_formats() if name not in ("safetensors", format)]
    if format == "safetensors":
        for other in others:
            convert(tmp_path / "a", tmp_path / other, other)
            for path in (tmp_path / other).glob("*model*"):
                shutil.copy(path, tmp_path / "remote")
    hub = Hub(tmp_path / "remote", tmp_path / "local")
    monkeypatch.setattr(found, "resolve", hub)
    with open_model("somebody/model") as files:
        assert files.checkpoint.format == format
    fetched = {path.name for path in (tmp_path / "local").iterdir()}
    assert not any(name.endswith((".bin", ".pt", ".h5", ".msgpack")) for name in fetched) or format != "safetensors"
    if format == "safetensors":
        assert hub.asked == [MODEL_FILES]


def test_a_file_is_taken_as_it_is_and_a_folder_is_not_looked_for_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a", config_of("base", "Model"), "Model")
    assert find_model(tmp_path / "a" / "model.safetensors") == tmp_path / "a" / "model.safetensors"
    (tmp_path / "a" / "model.safetensors").unlink()
    hub = Hub(tmp_path / "a", tmp_path / "a")
    monkeypatch.setattr(found, "resolve", lambda name, **where: hub.local)
    assert find_model(tmp_path / "a") == tmp_path / "a"
    assert hub.asked == []


@pytest.mark.parametrize("format", ["torch", "tf", "flax"])
def test_an_index_without_its_shards_does_not_keep_them_from_being_fetched(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a", config_of("base", "ForMaskedLM"), "ForMaskedLM")
    convert(tmp_path / "a", tmp_path / "remote", format, max_shard_size="10kB")
    hub = Hub(tmp_path / "remote", tmp_path / "local")
    monkeypatch.setattr(found, "resolve", hub)
    hub("somebody/model", patterns=("*.json",))  # as for a tokenizer
    with fetch("somebody/model").open() as opened:
        assert opened.format == format and len(opened.names) > 20
