"""The tokenizer without any framework: ids, pairs, offsets, windows over a long text."""

from __future__ import annotations

import sys

from xlmr_core.tokenization import XLMRobertaTokenizerFast

tokenizer = XLMRobertaTokenizerFast.from_pretrained("xlmr-mini")

# A pair, with the place of every token in the user's own string.
question, context = "Wo lebt sie?", "Sie wohnt seit 1990 in Lissabon."
encoded = tokenizer(question, context, return_offsets_mapping=True)
for token, sequence, (start, end) in zip(
    encoded.tokens(), encoded.sequence_ids(), encoded["offset_mapping"], strict=True
):
    source = {0: question, 1: context}.get(sequence, "")
    print(f"{token:>12}  {source[start:end]!r}")

# A text over the model's length, as windows that overlap by four tokens.
windows = tokenizer(context, max_length=12, truncation=True, stride=4, return_overflowing_tokens=True)
for ids in windows["input_ids"]:
    print(tokenizer.decode(ids, skip_special_tokens=True))

# A padded batch as NumPy arrays.
batch = tokenizer(["Hello", "Guten Morgen zusammen"], padding=True, return_tensors="np")
print(batch["input_ids"].shape, batch["attention_mask"].sum(axis=1))

assert not {"torch", "tensorflow", "jax"} & set(sys.modules)
