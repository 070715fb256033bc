"""A causal model that continues texts: the little encoder, fine-tuned to predict the next token, and asked to write.

As it stands this trains for a few seconds: the loss falls, and what is written are words, not sentences. More minutes
make it look like the language:

    python examples/continue_texts.py --minutes 12 --save my-writer
    xlmr run --task text-generation --model my-writer --do-sample "The children of the village"

Twelve on one core of a busy machine were 679 steps. The held-out loss fell from 15.1 to 5.1, and it wrote, with little
sense yet:

    The children of the village today. However, and the Never of the Next's let in the Sciliff, area.
    The children of the village of the day.
    The children of the village was a hand-cote-ection.

`--language` takes any code of the shared text, such as `fr`, and `--prompt` what is to be continued in it.
"""

from __future__ import annotations

import argparse
import lzma
import os
import random
import sys
import time
from pathlib import Path

import torch

from xlmr_torch import AutoTokenizer, TextStreamer, XLMRobertaForCausalLM

SHARED = Path(os.environ.get("XLMR_SHARED", Path(__file__).resolve().parents[2] / "shared"))
BATCH, LONGEST, RATE, WARMUP = 16, 64, 1e-3, 0.05

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=12, help="of training (%(default)s)")
parser.add_argument("--minutes", type=float, help="train for so long in place of so many steps")
parser.add_argument("--language", default="en", help="a code of the shared text (%(default)s)")
parser.add_argument("--prompt", default="The children of the village", help="what is continued (%(default)s)")
parser.add_argument("--save", metavar="FOLDER", help="where to keep the model")
asked = parser.parse_args()


def lines(part: str) -> list[str]:
    """The sentences of the language."""
    path = SHARED / "data" / "pretrain" / part / f"{asked.language}.txt.xz"
    if not path.exists():
        sys.exit(f"no text at {path}; set XLMR_SHARED to the folder that holds data/")
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [line for line in map(str.strip, file) if line]


training, held_out = lines("train"), lines("dev")[:64]
torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained("xlmr-mini", use_fast=False)
# An encoder that learned to fill gaps. As a decoder it sees only the tokens before.
without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
model = XLMRobertaForCausalLM.from_pretrained("xlmr-mini", is_decoder=True, **without)


def loss_of(texts: list[str]) -> torch.Tensor:
    """Mean over the tokens of how unexpected each is to the model."""
    batch = tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    return model(**batch, labels=batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)).loss


@torch.no_grad()
def held_out_loss() -> float:
    return float(loss_of(held_out))


def progress(step: int) -> float:
    """The share of the training that is done, by the clock or by the steps."""
    return (time.monotonic() - start) / (60 * asked.minutes) if asked.minutes else step / asked.steps


first = held_out_loss()
print(f"held-out loss {first:.2f} before")
optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), fused=True)
draw = random.Random(0)
start, step = time.monotonic(), 0
while (done := progress(step)) < 1:
    for group in optimizer.param_groups:  # up for a moment, then down to nothing
        group["lr"] = RATE * min((done + 0.01) / WARMUP, (1 - done) / (1 - WARMUP))
    loss = loss_of(draw.sample(training, BATCH))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    step += 1
    if step % 250 == 0:
        print(f"step {step}  {done:.0%}  held-out loss {held_out_loss():.2f}", flush=True)
last = held_out_loss()
print(f"held-out loss {last:.2f} after {step} steps")

if asked.save:
    model.save_pretrained(asked.save)
    tokenizer.save_pretrained(asked.save)

# The prompt begins a sentence, so `</s>` does not stand behind it. A line ends where the model writes one.
ids = tokenizer(asked.prompt, return_tensors="pt")["input_ids"][:, :-1]
streamer = TextStreamer(tokenizer, skip_special_tokens=True)
model.eval()
for seed in range(3):
    torch.manual_seed(seed)
    written = model.generate(
        ids, do_sample=True, top_p=0.9, temperature=0.8, min_new_tokens=5, max_new_tokens=40, streamer=streamer
    )
    assert written.shape[1] >= ids.shape[1] + 5, written.shape

again = model.generate(ids, num_beams=4, no_repeat_ngram_size=2, max_new_tokens=20)
print("with four beams:", tokenizer.decode(again[0], skip_special_tokens=True))
assert last < 0.6 * first, (first, last)
