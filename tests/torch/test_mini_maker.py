"""The maker of the built-in checkpoint: its rows, batches and optimizers in the library's loop, and how it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.small_runs import losses
from weights import make_mini, publish_mini
from weights.maker import rows, start, training
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.tokenization import AutoTokenizer
from xlmr_core.training.run import Run
from xlmr_torch import XLMRobertaForMaskedLM
from xlmr_torch.training import train

VOCABULARY = 64
ROWS = 1600


def small_rows() -> rows.Rows:
    """Rows with a rule that a model learns at once: only eight of the tokens ever occur."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(6, 24, size=ROWS)
    body = [rng.integers(4, 12, size=length - 2) for length in lengths]
    ids = np.concatenate([[rows.BOS, *row, rows.EOS] for row in body]).astype(np.uint16)
    return rows.Rows(ids, np.concatenate([[0], np.cumsum(lengths)]), np.zeros(ROWS, dtype=np.uint8), ["xx"])


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The card and its pictures are tested elsewhere."""
    monkeypatch.setattr("xlmr_core.training.run.publish", lambda *arguments, **named: None)


def small_run(folder: Path, **values: Any) -> Run:
    recipe = training.recipe_of(steps=4, words=0.5).replace(**{"precision": "float32", **values})
    tokenizer = AutoTokenizer.from_pretrained("xlmr-mini")
    return training.run_of(small_rows(), tokenizer, recipe, folder, tokens=256, tell=lambda kind, text: None)


def small_model() -> XLMRobertaForMaskedLM:
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=32000,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=514,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return XLMRobertaForMaskedLM(config)


def trained(run: Run) -> dict[str, torch.Tensor]:
    """The weights after a run."""
    model = small_model()
    with run:
        train(model, run, make_optimizer=training.optimizer_of)
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_every_parameter_has_one_optimizer_and_one_state(tmp_path: Path) -> None:
    model = small_model()
    optimizer = training.optimizer_of(model, small_run(tmp_path).recipe, 1)
    held = [id(p) for part in optimizer.parts for group in part.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    kinds = {
        id(parameter): type(part).__name__
        for part in optimizer.parts
        for group in part.param_groups
        for parameter in group["params"]
    }
    names = {name: kinds[id(parameter)] for name, parameter in model.named_parameters()}
    assert names["roberta.embeddings.word_embeddings.weight"] == names["lm_head.bias"] == "AdamW"
    assert names["roberta.encoder.layer.0.attention.self.query.weight"] == "Muon"


def test_batches_have_the_tokens_they_may_have_and_all_rows(tmp_path: Path) -> None:
    run = small_run(tmp_path, steps=0)
    assert run.steps == len(run.batches), "a run ends with its rows"
    numbers = np.concatenate([run.batches.numbers(step) for step in range(run.steps)])
    assert sorted(numbers.tolist()) == list(range(ROWS))
    batch = run.batch(0)
    assert batch["input_ids"].size <= 2 * 256, "written as typed, a row may become longer"
    assert (batch["labels"] != -100).any() and set(batch) == {"input_ids", "attention_mask", "labels"}
    assert training.tokens_read(small_rows(), 1, 0) <= training.TOKENS


def test_it_learns_and_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    values = {"steps": 24, "checkpoint_every": 8, "learning_rate": 0.03}
    whole = small_run(tmp_path / "whole", **values)
    expected = trained(whole)
    found = losses(whole)
    assert found[0] == pytest.approx(np.log(32000), abs=0.5) and np.mean(found[-3:]) < np.log(32000) - 2
    stopped = small_run(tmp_path / "stopped", **values)
    batch = stopped.batch

    def stops(step: int) -> Any:
        if step == 10:
            stopped.stop()
        return batch(step)

    stopped.batch = stops  # type: ignore[method-assign]
    trained(stopped)
    resumed = small_run(tmp_path / "stopped", **values)
    again = trained(resumed)
    assert losses(resumed) == found
    for name, value in expected.items():
        assert torch.equal(value, again[name]), name
    # A next run starts from it, by the folder that its run is in.
    (tmp_path / "work").mkdir()
    whole.folder.rename(tmp_path / "work" / "run")
    later = XLMRobertaForMaskedLM.from_pretrained(make_mini.model_in(tmp_path / "work"), dtype="float32")
    for name, value in expected.items():
        assert torch.equal(value, later.state_dict()[name]), name
    assert make_mini.model_in(tmp_path) == tmp_path


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


def test_publishing_again_lists_a_run_once() -> None:
    first, second, third = ({"recipe": {"seed": seed}, "steps": 10} for seed in range(3))
    once = publish_mini.continued([first], [second, third])
    assert once == [first, {**second, "after": "weights/xlmr-mini"}, third]
    assert publish_mini.continued(once, [second, third]) == once
