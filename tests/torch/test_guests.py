"""Our models in the training loops of others, as guests: Trainer, Accelerate, Lightning, sentence-transformers.

``nox -s guests`` has them; elsewhere what is not installed is skipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.small_runs import SIZES, WORDS, sentence
from xlmr_core.config import XLMRobertaConfig
from xlmr_torch import AutoTokenizer, XLMRobertaForSequenceClassification, XLMRobertaModel

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
STEPS = 12


@pytest.fixture
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained("xlmr-mini")


@pytest.fixture
def model() -> XLMRobertaForSequenceClassification:
    torch.manual_seed(0)
    return XLMRobertaForSequenceClassification(XLMRobertaConfig(**SIZES, num_labels=3))


def rows(tokenizer: Any) -> list[dict[str, Any]]:
    """Ids and a label each; the last word of a text tells it."""
    return [{"input_ids": tokenizer(f"{sentence(n)} {WORDS[n % 3]}")["input_ids"], "labels": n % 3} for n in range(24)]


def collate(tokenizer: Any) -> Any:
    """Rows to a batch."""

    def batch(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        padded = tokenizer.pad([{"input_ids": row["input_ids"]} for row in features], return_tensors="pt")
        return {**padded, "labels": torch.tensor([row["labels"] for row in features])}

    return batch


def test_trainer(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Trainer(transformers.Trainer):
        def _save(self, output_dir: Any = None, state_dict: Any = None) -> None:
            folder = Path(output_dir or self.args.output_dir)
            self.accelerator.unwrap_model(self.model).save_pretrained(folder, state_dict=state_dict)

    def trainer(model: Any, steps: int) -> Any:
        arguments = transformers.TrainingArguments(
            str(tmp_path / "trainer"),
            max_steps=steps,
            per_device_train_batch_size=8,
            learning_rate=0.01,
            lr_scheduler_type="constant",
            save_steps=6,
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        return Trainer(model=model, args=arguments, train_dataset=rows(tokenizer), data_collator=collate(tokenizer))

    whole = trainer(model, STEPS)
    whole.train()
    losses = [line["loss"] for line in whole.state.log_history if "loss" in line]
    assert len(losses) == STEPS and sum(losses[-3:]) < sum(losses[:3])
    # It goes on from its checkpoint in the same weights.
    again = trainer(XLMRobertaForSequenceClassification(model.config), STEPS)
    again.train(resume_from_checkpoint=str(tmp_path / "trainer" / "checkpoint-6"))
    for name, value in again.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=0, atol=1e-5)
    loaded = XLMRobertaForSequenceClassification.from_pretrained(tmp_path / "trainer" / f"checkpoint-{STEPS}")
    assert torch.equal(loaded.classifier.out_proj.weight, again.model.classifier.out_proj.weight)


def test_accelerate(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    loader = torch.utils.data.DataLoader(rows(tokenizer), batch_size=8, collate_fn=collate(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    prepared, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    losses = []
    for _ in range(4):
        for batch in loader:
            loss = prepared(**batch).loss
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(prepared.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss))
    assert sum(losses[-3:]) < sum(losses[:3])
    accelerator.save_state(str(tmp_path / "state"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.classifier.out_proj.weight.zero_()
    accelerator.load_state(str(tmp_path / "state"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    accelerator.unwrap_model(prepared).save_pretrained(tmp_path / "model")
    loaded = XLMRobertaForSequenceClassification.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded.classifier.out_proj.weight, model.classifier.out_proj.weight)


def test_lightning(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    losses: list[float] = []

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            loss = self.model(**batch).loss
            losses.append(float(loss))
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    loader = torch.utils.data.DataLoader(rows(tokenizer), batch_size=8, collate_fn=collate(tokenizer))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_steps=STEPS, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    trainer.fit(Classifier(), loader)
    assert len(losses) == STEPS and sum(losses[-3:]) < sum(losses[:3])
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    state = torch.load(tmp_path / "model.ckpt", weights_only=False)["state_dict"]
    assert all(torch.equal(value, state[f"model.{name}"]) for name, value in model.state_dict().items())


def test_sentence_transformers(tokenizer: Any, tmp_path: Path) -> None:
    """Its losses and its training, around our encoder as a module of its own."""
    library = pytest.importorskip("sentence_transformers")
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("accelerate")
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from sentence_transformers.models import Pooling

    class Encoder(nn.Module):
        """What sentence-transformers asks of the module that reads texts."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.model = XLMRobertaModel(XLMRobertaConfig(**SIZES), add_pooling_layer=False)
            self.tokenizer = tokenizer

        def tokenize(self, texts: Any, **options: Any) -> Any:
            return tokenizer(list(texts), padding=True, return_tensors="pt")

        preprocess = tokenize

        def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
            states = self.model(features["input_ids"], attention_mask=features["attention_mask"]).last_hidden_state
            return {**features, "token_embeddings": states}

        def save(self, output_path: str, *arguments: Any, **options: Any) -> None:
            self.model.save_pretrained(output_path)

    model = library.SentenceTransformer(modules=[Encoder(), Pooling(16)], device="cpu")
    data = datasets.Dataset.from_dict(
        {"anchor": [sentence(n) for n in range(24)], "positive": [sentence(n + 1) for n in range(24)]}
    )
    arguments = library.SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path),
        max_steps=STEPS,
        per_device_train_batch_size=8,
        learning_rate=0.01,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = library.SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=data, loss=MultipleNegativesRankingLoss(model)
    )
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert len(losses) == STEPS and sum(losses[-3:]) < sum(losses[:3])
