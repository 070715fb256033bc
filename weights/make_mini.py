"""Train `xlmr-mini`: `python -m weights.make_mini` from the repository root; run it again to resume a killed run.

Needs the vocabulary (`weights.make_vocab`) and writes only into the folder `--work`, which lies outside the repository.
`python -m weights.publish_mini` then makes the checkpoint of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from weights.maker import corpus, rows, start, training
from xlmr_core.config import XLMRobertaConfig

MODEL = Path(__file__).parent / "xlmr-mini"
WORK = Path.home() / ".cache" / "xlmr-maker"


def architecture(vocabulary: int) -> XLMRobertaConfig:
    """The configuration of `xlmr-mini`: 11.6 M parameters, 8.2 M of them the word embedding that the head shares."""
    return XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        # Most text is read twice or less, so there is little to overfit; the published file has XLM-R's 0.1.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def arguments() -> argparse.ArgumentParser:
    """The options of the trainer; the defaults are those of a first run, `README.md` has the runs of the checkpoint
    here.
    """
    recipe = training.Recipe()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=corpus.PRETRAIN, help="the folder pretrain of the data")
    parser.add_argument("--vocabulary", type=Path, default=MODEL / "sentencepiece.bpe.model")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for rows, state and log")
    parser.add_argument(
        "--after", type=Path, help="start from the weights of the run in this other work folder, or of this checkpoint"
    )
    parser.add_argument("--minutes", type=float, default=recipe.minutes, help="training time")
    parser.add_argument("--steps", type=int, default=0, help="train for so many steps instead of minutes")
    parser.add_argument("--largest", type=float, default=0.5, help="at most so many passes over the largest language")
    parser.add_argument("--words", type=float, default=0.0, help="share of the batches in which whole words are hidden")
    parser.add_argument("--rate", type=float, default=1.0, help="factor of the learning rates")
    parser.add_argument("--workers", type=int, default=2, help="CPU cores to use")
    parser.add_argument("--seed", type=int, default=recipe.seed)
    return parser


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """The float32 state dict of a run's work folder, or of a published checkpoint."""
    from xlmr_torch import XLMRobertaForMaskedLM

    state = folder / "run" / "state.pt"
    if state.exists():
        return torch.load(state, weights_only=True)["model"]
    return XLMRobertaForMaskedLM.from_pretrained(folder, dtype="float32").state_dict()


def main() -> None:
    # Imported here: `publish_mini` and tests use the architecture of this file without a backend.
    from xlmr_torch import XLMRobertaForMaskedLM

    options = arguments().parse_args()
    recipe = training.Recipe(
        minutes=options.minutes,
        steps=options.steps,
        words=options.words,
        adam_rate=training.Recipe.adam_rate * options.rate,
        muon_rate=training.Recipe.muon_rate * options.rate,
        seed=options.seed,
    )
    packed = rows.build(options.data, options.vocabulary, options.work, options.largest, options.seed)
    vocabulary = rows.vocabulary_size(options.vocabulary)
    torch.manual_seed(options.seed)
    model = XLMRobertaForMaskedLM(architecture(vocabulary))
    if options.after:
        model.load_state_dict(weights_of(options.after))
    else:
        start.informed(model, packed, options.seed)
    hiding = rows.hiding_of(options.vocabulary)
    training.Run(model, packed, vocabulary, recipe, options.work / "run", options.workers, hiding).train()


if __name__ == "__main__":
    main()
