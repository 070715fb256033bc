"""The most likely words at a <mask>, in several languages at once."""

from __future__ import annotations

from xlmr_torch import pipeline

fill_mask = pipeline(task="fill-mask", model="xlmr-mini", batch_size=4)

texts = [
    "Plants create <mask> through a process known as photosynthesis.",
    "Bonjour, je suis un modèle <mask>.",
    "Die Hauptstadt von Frankreich ist <mask>.",
    "Мы живём в <mask>.",
]
for text, candidates in zip(texts, fill_mask(texts, top_k=3), strict=True):
    print(text)
    for candidate in candidates:
        print(f"  {candidate['score']:.3f}  {candidate['token_str']}")

# Which of these words fits best? Scores are probabilities over the whole vocabulary.
for candidate in fill_mask("It took many <mask>.", targets=["▁water", "▁people", "▁years"]):
    print(f"{candidate['score']:.2e}  {candidate['token_str']}")
