"""An encoder and a decoder that learn to write words backwards, letter by letter.

Both are small XLM-Rs whose tokens are letters. The encoder reads a word; the decoder looks at what it made of it, by
cross-attention, and writes. The words are those of the shared English text. 200 of them are held out: the model does
not see them in training and writes them at the end. It gets nearly all of them right, and it cannot know them by
heart.
"""

from __future__ import annotations

import argparse
import lzma
import os
import random
import re
import sys
import tempfile
from pathlib import Path

import torch

from xlmr_torch import (
    AutoModelForSeq2SeqLM,
    EncoderDecoderModel,
    XLMRobertaConfig,
    XLMRobertaForCausalLM,
    XLMRobertaModel,
)

EXPECTED = 0.99
HELD_OUT, BATCH, RATE = 200, 64, 5e-3
SHARED = Path(os.environ.get("XLMR_SHARED", Path(__file__).resolve().parents[2] / "shared"))
BOS, PAD, EOS, FIRST_LETTER = 0, 1, 2, 4

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=250, help="of training (%(default)s: some 10 seconds)")
steps = parser.parse_args().steps

file = SHARED / "data" / "pretrain" / "train" / "en.txt.xz"
if not file.exists():
    sys.exit(f"no text at {file}; set XLMR_SHARED to the folder that holds data/")
with lzma.open(file, "rt", encoding="utf-8") as text:
    words = sorted(set(re.findall(r"\b[a-z]{3,8}\b", text.read())))
random.Random(0).shuffle(words)
held_out, words = words[:HELD_OUT], words[HELD_OUT:]


def tensor(words: list[str]) -> torch.Tensor:
    """Letters as tokens, `</s>` at the end: (B, S)."""
    rows = [[FIRST_LETTER + ord(letter) - ord("a") for letter in word] + [EOS] for word in words]
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def backwards(model: EncoderDecoderModel, words: list[str], **how: int) -> list[str]:
    """What the model writes for each word."""
    ids = tensor(words)
    written = model.generate(input_ids=ids, attention_mask=(ids != PAD).long(), max_new_tokens=10, **how)
    letters = [[chr(ord("a") + token - FIRST_LETTER) for token in row if token >= FIRST_LETTER] for row in written]
    return ["".join(row) for row in letters]


torch.manual_seed(0)
config = XLMRobertaConfig(
    vocab_size=FIRST_LETTER + 26,
    hidden_size=64,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=256,
    max_position_embeddings=32,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
# Two checkpoints would be joined by EncoderDecoderModel.from_encoder_decoder_pretrained(encoder, decoder).
decoder = XLMRobertaForCausalLM(config.copy(is_decoder=True, add_cross_attention=True))
model = EncoderDecoderModel(encoder=XLMRobertaModel(config), decoder=decoder)
model.config.decoder_start_token_id, model.config.pad_token_id, model.config.eos_token_id = BOS, PAD, EOS

model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
draw = random.Random(0)
for step in range(1, steps + 1):
    batch = draw.sample(words, BATCH)
    ids, labels = tensor(batch), tensor([word[::-1] for word in batch])
    labels[labels == PAD] = -100
    loss = model(input_ids=ids, attention_mask=(ids != PAD).long(), labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    schedule.step()
    if step % 50 == 0 or step == steps:
        print(f"step {step}  loss {loss.item():.3f}")

# Two models in one folder, in the published layout.
model.eval()
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)

for beams in (1, 4):
    written = backwards(model, held_out, num_beams=beams)
    right = sum(found == word[::-1] for word, found in zip(held_out, written, strict=True)) / HELD_OUT
    print(f"with {beams} beams right of {HELD_OUT} held-out words: {right:.2f} (expected: about {EXPECTED})")
    assert right >= EXPECTED - 0.1, right
for word, found in zip(held_out[:5], written, strict=False):
    print(f"{word} -> {found}")
