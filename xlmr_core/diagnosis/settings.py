"""Checks of the configuration and of the tokenizer, and of what they say about each other and about the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from xlmr_core.config import EncoderDecoderConfig, XLMRobertaConfig, parts_of_config
from xlmr_core.diagnosis.examined import Examined, Remark, advice, fault, json_object, listed
from xlmr_core.tokenization import XLMRobertaTokenizer, XLMRobertaTokenizerFast
from xlmr_core.tokenization.dictionary import DICTIONARY_FILE, order_differs
from xlmr_core.tokenization.files import CONFIG_FILE, TOKENIZER_FILE, VOCAB_FILE
from xlmr_core.verification import SENTENCES

# The published rows of XL's embedding are rounded up by some hundred beyond its vocabulary.
SPARE_ROWS = 1024
# Classes in tokenizer_config.json that say nothing against XLM-R's ids.
NEUTRAL_CLASSES = ("PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", "SentencePieceBackend")

# Configuration


def check_config(examined: Examined) -> Iterator[Remark]:
    for prefix, config in parts_of_config(examined.config).items():
        for remark in _check_part(examined, config):
            yield _of_side(prefix, remark)
    whole = examined.config
    if isinstance(whole, EncoderDecoderConfig) and whole.decoder_start_token_id is None:
        yield advice(
            "decoder_start_token_id is not set, and labels and generate() need it",
            "set it to the id with which the decoder's training began each text, such as that of <s>",
        )


def _of_side(prefix: str, remark: Remark) -> Remark:
    """What was found, with the side of an encoder-decoder that it is about."""
    return replace(remark, what=f"in the {prefix.removesuffix('.')}, {remark.what}") if prefix else remark


def _check_part(examined: Examined, config: XLMRobertaConfig) -> Iterator[Remark]:
    own_family = config.model_type.startswith("xlm-roberta")
    if own_family and config.layer_norm_eps < 1e-6:
        # What a configuration says where nobody chose it, so it may be right: of a model that was made with it.
        yield advice(
            f"layer_norm_eps is {config.layer_norm_eps:g}, and every published XLM-R was trained with 1e-05",
            "nothing if this model was trained so; set it to 1e-05 if its weights come from a published one",
        )
    if own_family and config.pad_token_id != 1 and examined.tokenizer is None:
        yield advice(
            f"pad_token_id is {config.pad_token_id}, and that of published models is 1; positions start behind it",
            "set it to the tokenizer's, unless the model was trained so",
        )
    rows = config.max_position_embeddings
    if rows >= 512 and math.log2(rows).is_integer():
        yield advice(
            f"max_position_embeddings is {rows}, which takes texts of {config.max_tokens} tokens: the first "
            f"{rows - config.max_tokens} rows are never used, and published tables have them on top ({rows + 2})",
            "nothing if it was trained so; otherwise the tool that exported it cut them off: convert the original "
            "again",
        )


def check_labels(examined: Examined) -> Iterator[Remark]:
    config = examined.config
    heads = ("ForSequenceClassification", "ForTokenClassification")
    if isinstance(config, EncoderDecoderConfig) or examined.files.head not in heads:
        return
    nameless = [label for index, label in config.id2label.items() if label == f"LABEL_{index}"]
    if config.num_labels > 1 and nameless:
        yield advice(
            f"id2label has no names for {len(nameless)} of {config.num_labels} labels ({listed(nameless)})",
            "write their names into id2label and label2id of config.json, in the order of the training data",
        )
    wrong = [label for index, label in config.id2label.items() if config.label2id.get(label) != index]
    if wrong:
        yield fault(
            f"label2id does not lead back from id2label for {listed(wrong)}", "make label2id the inverse of id2label"
        )


# Tokenizer


def check_tokenizer(examined: Examined) -> Iterator[Remark]:
    there = examined.tokenizer_files
    if not there:
        yield advice(
            f"no {TOKENIZER_FILE} and no {VOCAB_FILE} beside the weights",
            "copy them from the checkpoint this model was trained from",
        )
        return
    for name, kind in ((TOKENIZER_FILE, XLMRobertaTokenizerFast), (VOCAB_FILE, XLMRobertaTokenizer)):
        if name in there and name not in examined.tokenizers:
            kind.from_pretrained(examined.folder)  # raises the error that says why
    if VOCAB_FILE in there and order_differs(examined.folder / VOCAB_FILE):
        say = advice if examined.files.checkpoint.format == "fairseq" else fault
        yield say(
            f"{DICTIONARY_FILE} lists the pieces in another order than {VOCAB_FILE}: ids follow {DICTIONARY_FILE} "
            "here, as the rows of a model of fairseq do, and the order of the model in other libraries",
            "convert it: xlmr convert SOURCE DESTINATION --to safetensors writes a model in the order of the rows",
        )
    said = examined.tokenizer_config.get("tokenizer_class")
    if (
        examined.config.model_type.startswith("xlm-roberta")
        and isinstance(said, str)
        and not said.startswith("XLMRoberta")
        and said not in NEUTRAL_CLASSES
    ):
        yield fault(
            f"{CONFIG_FILE} names the class {said}, which numbers the pieces of XLM-R's vocabulary differently",
            "set tokenizer_class to XLMRobertaTokenizer if the vocabulary is XLM-R's, otherwise fetch the right "
            "tokenizer",
        )
    if len(examined.tokenizers) == 2:
        fast, slow = examined.tokenizers.values()
        differing = [
            text for text in SENTENCES if text and fast.encode(text, verbose=False) != slow.encode(text, verbose=False)
        ]
        if len(differing) > len(SENTENCES) // 4:  # a few texts with odd spaces differ by nature
            yield fault(
                f"{TOKENIZER_FILE} and {VOCAB_FILE} give different ids to {len(differing)} of {len(SENTENCES)} texts",
                "remove the one that the model was not trained with",
            )


def check_vocabulary(examined: Examined) -> Iterator[Remark]:
    parts = parts_of_config(examined.config)
    first = next(iter(parts.values())).vocab_size
    for prefix, config in parts.items():
        # A decoder with another vocabulary has a tokenizer of its own, which is not in the folder.
        if config.vocab_size == first:
            for remark in _check_vocabulary_of(examined, config):
                yield _of_side(prefix, remark)


def _check_vocabulary_of(examined: Examined, config: XLMRobertaConfig) -> Iterator[Remark]:
    tokenizer, rows = examined.tokenizer, config.vocab_size
    if tokenizer is None:
        return
    ids = max(tokenizer.get_vocab().values()) + 1
    if ids > rows:
        yield fault(
            f"the tokenizer gives ids up to {ids - 1}, and the embedding has {rows} rows: some texts cannot be "
            "embedded",
            "use the tokenizer that the model was trained with, or model.resize_token_embeddings(len(tokenizer)) and "
            "train",
        )
    elif rows - ids > SPARE_ROWS and ids < 0.9 * rows:
        yield fault(
            f"the embedding has {rows} rows and the tokenizer {ids} ids: it is that of another model",
            "use the tokenizer that the model was trained with",
        )
    for name in ("pad", "bos", "eos"):
        expected, received = getattr(tokenizer, f"{name}_token_id"), getattr(config, f"{name}_token_id")
        if expected is not None and received is not None and expected != received:
            why = ": padding would be attended to, and positions would start elsewhere" if name == "pad" else ""
            yield fault(
                f"{name}_token_id is {received} in config.json and {expected} in the tokenizer{why}",
                f"set {name}_token_id to {expected}, unless the model was trained with the other one",
            )


def check_length(examined: Examined) -> Iterator[Remark]:
    limit, tokenizer = examined.config.max_tokens, examined.tokenizer
    if tokenizer is not None and tokenizer.model_max_length > limit:
        length = tokenizer.model_max_length
        rows = {part.max_position_embeddings for part in parts_of_config(examined.config).values()}
        is_set, is_rows = length < 10**9, length in rows
        what = (
            f"is {length}, the rows of the position table, of which a text can use {limit}"
            if is_rows
            else f"is {length}, and the model takes {limit} tokens"
            if is_set
            else f"is not set, and the model takes {limit} tokens"
        )
        yield (fault if is_set else advice)(
            f"model_max_length of the tokenizer {what}: truncation would leave texts too long",
            f"set it to {limit} in {CONFIG_FILE}",
        )
    longest = json_object(examined.folder / "sentence_bert_config.json").get("max_seq_length")
    if isinstance(longest, int) and longest > limit:
        yield fault(
            f"sentence_bert_config.json says max_seq_length {longest}, and the model takes {limit} tokens",
            f"set it to {limit} or less",
        )
