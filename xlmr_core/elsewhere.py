"""Published names that scripts import and that are not here: what is in their place.

A name that is only misspelt is answered with the nearest; see :func:`xlmr_core.importing.import_when_used`.
"""

from __future__ import annotations

import re

from xlmr_core.wording import nearest

__all__ = ["answer"]

_TRAINERS = (
    "the models of xlmr_torch train in that of transformers (from transformers import {name}), in a loop of your own, "
    "or by the loop here: xlmr train, or xlmr_torch.training.train in Python (docs/torch-training.md)"
)
_OWN_LOOPS = {
    "xlmr_torch": _TRAINERS,
    "xlmr_tf": "models of Keras train by compile() and fit(), or by the loop here: xlmr train --backend tf, or "
    "xlmr_tf.training.train in Python (docs/keras-training.md)",
    "xlmr_flax": "train in a loop of optax, or by the loop here: xlmr train --backend flax, or "
    "xlmr_flax.training.train in Python (docs/flax-training.md)",
}
_SCHEDULES = {
    "xlmr_tf": "learning_rate_schedule() and create_optimizer() make schedules for Keras",
    "xlmr_flax": "learning_rate_schedule() makes schedules for optax",
}
_SEEDS = {
    "xlmr_torch": "call torch.manual_seed()",
    "xlmr_tf": "call keras.utils.set_random_seed()",
    "xlmr_flax": "pass jax.random.key() where randomness is asked for",
}
_OPTIMIZERS = {
    "xlmr_torch": "use torch.optim.AdamW",
    "xlmr_tf": "use keras.optimizers.AdamW, or create_optimizer()",
    "xlmr_flax": "use optax.adamw",
}
_ADAPTERS = {
    "xlmr_torch": "PEFT works on these models (from peft import {name}), a recipe with lora_rank trains by it, and a "
    "folder with an adapter loads like any other",
    "xlmr_tf": "adapters train by model.enable_lora(), or by a recipe with lora_rank; a folder with one of PEFT's "
    "loads like any other",
    "xlmr_flax": "adapters train by a recipe with lora_rank; a folder with one of PEFT's loads like any other",
}
# Published names, by a pattern, and what to do in each backend, or in all.
_INSTEAD: tuple[tuple[str, dict[str, str] | str], ...] = (
    (r"(Seq2Seq)?(Trainer|TrainingArguments)|Trainer\w+|TF(Trainer|TrainingArguments)", _OWN_LOOPS),
    (r"(EarlyStopping|Printer|Progress|DefaultFlow)Callback|EvalPrediction|IntervalStrategy", _OWN_LOOPS),
    (r"get_peft_model|Peft(Model|Config)\w*|LoraConfig|prepare_model_for_kbit_training", _ADAPTERS),
    (r"get_\w*schedule\w*|get_scheduler|SchedulerType", _SCHEDULES),
    (r"AdamW|Adafactor|AdamWeightDecay", _OPTIMIZERS),
    (r"set_seed|enable_full_determinism", _SEEDS),
    (r"HfArgumentParser", "it reads options of scripts, from transformers import {name}; xlmr train --help has ours"),
    (r"logging", "use Python's own logging, under the names of these packages"),
)
_PREFIXES = {"TF": "xlmr_tf", "Flax": "xlmr_flax"}


def answer(package: str, name: str, known: list[str]) -> str:
    """What to do about a name that a package does not have.

    Args:
        package: ``xlmr_torch``, ``xlmr_tf`` or ``xlmr_flax``.
        name: what was asked for.
        known: the names that it has.

    Returns:
        The nearest name that there is, or what is in its place; empty where nothing is known of it.
    """
    for pattern, instead in _INSTEAD:
        told = instead if isinstance(instead, str) else instead.get(package, "")
        if re.fullmatch(pattern, name) and told:
            return told.format(name=name)
    near = nearest(name, known)
    for prefix, other in _PREFIXES.items():
        if name.startswith(prefix) and other != package and not near.startswith(prefix):
            return f"names with {prefix} are those of {other}: from {other} import {name}"
    return f"did you mean {near!r}?" if near else ""
