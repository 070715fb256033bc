"""The trainer of the built-in checkpoint: it learns, and a killed run goes on as if nothing had happened."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from weights import publish_mini
from weights.maker import rows, start, training
from xlmr_core.config import XLMRobertaConfig
from xlmr_torch import XLMRobertaForMaskedLM

VOCABULARY = 64
ROWS = 1600


def small_rows() -> rows.Rows:
    """Rows with a rule that a model learns at once: only eight of the tokens ever occur."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(6, 24, size=ROWS)
    body = [rng.integers(4, 12, size=length - 2) for length in lengths]
    ids = np.concatenate([[rows.BOS, *row, rows.EOS] for row in body]).astype(np.uint16)
    return rows.Rows(ids, np.concatenate([[0], np.cumsum(lengths)]), np.zeros(ROWS, dtype=np.uint8), ["xx"])


def small_run(folder: Path, **options: object) -> training.Run:
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
        type_vocab_size=1,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.0,
    )
    settings = {"steps": 12, "part_tokens": 128, "parts": 2, "bfloat16": False, **options}
    recipe = training.Recipe(**settings)  # type: ignore[arg-type]
    return training.Run(XLMRobertaForMaskedLM(config), small_rows(), VOCABULARY, recipe, folder, workers=1)


def weights(run: training.Run) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def test_every_parameter_has_one_optimizer(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    held = [id(p) for optimizer in run.optimizers for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in run.model.parameters())


def test_the_loss_starts_at_chance_and_falls(tmp_path: Path) -> None:
    run = small_run(tmp_path, steps=60, adam_rate=0.02)
    losses = [run._step() for _ in range(60)]
    assert losses[0] == pytest.approx(np.log(VOCABULARY), abs=0.3)
    assert np.mean(losses[-5:]) < np.log(8) + 0.5


def test_a_run_ends_with_its_rows(tmp_path: Path) -> None:
    run = small_run(tmp_path, steps=10_000)
    run.train(save_every=1e9)
    assert run.step == len(run.batches) // 2
    assert run.progress == 1.0, "the learning rate has come down to zero"


def test_the_number_of_workers_does_not_change_the_result(tmp_path: Path) -> None:
    results = []
    for workers in (1, 2):
        run = small_run(tmp_path / str(workers))
        run.model.eval()  # dropout draws from one generator in the order of the workers
        run.pool._max_workers = workers
        for _ in range(3):
            run._step()
        results.append(weights(run))
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    assert [training.rate_factor(p, 0.1) for p in (0.0, 0.05, 0.1, 0.55, 1.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    run._step()
    run._save()
    with pytest.raises(ValueError, match=r"another recipe.*masking was 0\.2, is now 0\.4"):
        small_run(tmp_path, masking=0.4)
    assert small_run(tmp_path, steps=30).step == 1, "more time is no other recipe"


@pytest.fixture(scope="module")
def informed() -> XLMRobertaForMaskedLM:
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=400,
        hidden_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=100,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = XLMRobertaForMaskedLM(config)
    start.informed(model, small_rows(), seed=0)
    return model.eval()


def test_a_run_starts_with_the_frequencies(informed: XLMRobertaForMaskedLM) -> None:
    frequency = informed.lm_head.bias.detach().exp()
    counts = np.bincount(small_rows().ids, minlength=400)
    assert np.allclose(frequency, counts / counts.sum(), atol=1e-3)


def test_a_run_starts_looking_at_the_neighbours(informed: XLMRobertaForMaskedLM) -> None:
    ids = torch.from_numpy(np.random.default_rng(0).integers(4, VOCABULARY - 1, size=(1, 40)))
    attentions = informed(input_ids=ids, output_attentions=True).attentions
    for layer, offsets in enumerate(start.OFFSETS):
        for head, offset in enumerate(offsets):
            looked_at = attentions[layer][0, head, 5:35].argmax(-1) - torch.arange(5, 35)
            assert (looked_at == offset).float().mean() > 0.8, (layer, head)


def test_words_that_stand_together_start_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    body = [rng.integers(low, low + 25, size=12) for low in (5, 35) for _ in range(300)]  # two languages
    ids = np.concatenate(body)
    row = np.repeat(np.arange(600), 12)
    counts = np.bincount(ids, minlength=VOCABULARY).astype(float)
    vectors = start.word_vectors((ids, row), counts, 16, torch.Generator().manual_seed(0))
    near = torch.nn.functional.cosine_similarity(vectors[5:30, None], vectors[None, 5:30], dim=-1).mean()
    far = torch.nn.functional.cosine_similarity(vectors[5:30, None], vectors[None, 35:60], dim=-1).mean()
    assert near > far + 0.3


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.torch import test_mini_maker
run = test_mini_maker.small_run(Path({folder!r}))
step = run._step
def slow():
    time.sleep(0.15)
    return step()
run._step = slow
run.train(save_every=0.0)
"""


def test_a_killed_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    whole = small_run(tmp_path / "whole")
    whole.train(save_every=1e9)
    root = Path(__file__).resolve().parents[2]
    folder = tmp_path / "killed"
    code = KILLED.format(root=str(root), folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (folder / "state.pt").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()
    resumed = small_run(folder)
    assert 0 < resumed.step < 12, "the process was to be killed in the middle"
    resumed.train(save_every=1e9)
    assert resumed.step == whole.step == 12
    expected = weights(whole)
    for name, value in weights(resumed).items():
        assert torch.equal(value, expected[name]), name


def test_a_save_that_was_interrupted_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_run(tmp_path)
    run._step()
    run._save()
    before = run.state.read_bytes()
    run._step()

    def broken(state: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        run._save()
    assert run.state.read_bytes() == before


def test_publishing_again_lists_a_run_once() -> None:
    first, second, third = ({"recipe": {"seed": seed}, "steps": 10} for seed in range(3))
    once = publish_mini.continued([first], [second, third])
    assert once == [first, {**second, "after": "weights/xlmr-mini"}, third]
    assert publish_mini.continued(once, [second, third]) == once
