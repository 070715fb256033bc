"""Train `xlmr-mini`: `python -m weights.make_mini` from the repository root; run it again to resume a killed run.

Needs the vocabulary (`weights.make_vocab`) and writes only into the folder `--work`, which lies outside the repository.
`python -m weights.publish_mini` then makes the checkpoint of it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from weights.maker import corpus, rows, start, training
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.tokenization import XLMRobertaTokenizerFast

MODEL = Path(__file__).parent / "xlmr-mini"
WORK = Path.home() / ".cache" / "xlmr-maker"
RUN = "run"  # in a work folder


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
        # The published file has XLM-R's 0.1.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def arguments() -> argparse.ArgumentParser:
    """The options of the trainer; the defaults are those of a first run, `README.md` has the runs of the checkpoint
    here.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=corpus.PRETRAIN, help="the folder pretrain of the data")
    parser.add_argument("--vocabulary", type=Path, default=MODEL / "sentencepiece.bpe.model")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for rows and run")
    parser.add_argument(
        "--after", type=Path, help="start from the weights of the run in this other work folder, or of this checkpoint"
    )
    parser.add_argument("--steps", type=int, default=0, help="train for so many steps; 0: until the rows end")
    parser.add_argument("--largest", type=float, default=0.5, help="at most so many passes over the largest language")
    parser.add_argument("--words", type=float, default=0.0, help="share of the batches in which whole words are hidden")
    parser.add_argument("--rate", type=float, default=1.0, help="factor of the learning rates")
    parser.add_argument("--seed", type=int, default=0, help="of rows, order, masks and fresh weights")
    return parser


def model_in(folder: Path) -> Path:
    """Where the model is that a run in a work folder left; any other folder is that of a checkpoint."""
    return folder / RUN if (folder / RUN).is_dir() else folder


def main() -> None:
    # Imported here: `publish_mini` and tests use the architecture of this file without a backend.
    from xlmr_torch.training import model_for, train

    options = arguments().parse_args()
    packed = rows.build(options.data, options.vocabulary, options.work, options.largest, options.seed)
    recipe = training.recipe_of(steps=options.steps, words=options.words, rate=options.rate, seed=options.seed)
    if options.after:
        recipe = recipe.replace(model=str(model_in(options.after)))
    else:
        architecture(rows.vocabulary_size(options.vocabulary)).save_pretrained(options.work)
        recipe = recipe.replace(model="", config=str(options.work))
    tokenizer = XLMRobertaTokenizerFast(vocab_file=str(options.vocabulary), model_max_length=rows.LONGEST)
    data = {"rows": json.loads((options.work / rows.SETTINGS).read_text(encoding="utf-8"))}
    run = training.run_of(packed, tokenizer, recipe, options.work / RUN, data=data)
    model = model_for(run)
    if not options.after:
        start.informed(model, packed, options.seed)
    with run:
        train(model, run, make_optimizer=training.optimizer_of)


if __name__ == "__main__":
    main()
