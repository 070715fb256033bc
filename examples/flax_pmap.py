"""Fine-tune a classifier with Flax the published way: a train state, ``pmap`` over devices, gradients averaged by
``pmean``.

Two virtual devices of the CPU stand for two accelerators. The averaged step is the step of one device on the whole
batch, which is checked at the end. Eight sentences are no data set: this shows the moving parts.
"""

from __future__ import annotations

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"  # before jax is imported; not on a real machine

import jax
import numpy as np
import optax
from flax import jax_utils
from flax.training import train_state
from flax.training.common_utils import shard

from xlmr_flax import AutoTokenizer, FlaxAutoModelForSequenceClassification

EXAMPLES = [
    ("It rains all day.", 0),
    ("Es schneit seit gestern.", 0),
    ("Il fait très chaud.", 0),
    ("Hoy hace mucho viento.", 0),
    ("The soup is too salty.", 1),
    ("Ich esse gern Brot mit Käse.", 1),
    ("Elle boit un café.", 1),
    ("Me gusta el arroz.", 1),
]

tokenizer = AutoTokenizer.from_pretrained("xlmr-mini")
# The model holds no parameters: the state does. Without dropout, so that two ways of training can be compared.
model, params = FlaxAutoModelForSequenceClassification.from_pretrained(
    "xlmr-mini",
    id2label={0: "weather", 1: "food"},
    _do_init=False,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
order = [0, 4, 1, 5, 2, 6, 3, 7]
batch = dict(tokenizer([EXAMPLES[i][0] for i in order], padding=True, return_tensors="np"))
batch["labels"] = np.array([EXAMPLES[i][1] for i in order])
state = train_state.TrainState.create(apply_fn=model.__call__, params=params, tx=optax.adamw(3e-4))


def gradients_of(state, batch, dropout_rng):
    def loss_of(params):
        return state.apply_fn(**batch, params=params, dropout_rng=dropout_rng, train=True).loss

    return jax.value_and_grad(loss_of)(state.params)


def train_step(state, batch, dropout_rng):
    loss, gradients = jax.lax.pmean(gradients_of(state, batch, dropout_rng), "devices")
    return state.apply_gradients(grads=gradients), loss


# What one device finds on the whole batch, to compare with.
whole_loss, _ = jax.jit(gradients_of)(state, batch, jax.random.key(0))

p_train_step = jax.pmap(train_step, "devices", donate_argnums=0)
state = jax_utils.replicate(state)  # a copy a device
key, losses = jax.random.key(0), []
for step in range(10):
    key, own = jax.random.split(key)
    state, loss = p_train_step(state, shard(batch), jax.random.split(own, jax.device_count()))
    losses.append(float(loss[0]))
    print(f"step {step + 1:2}  loss {losses[-1]:.4f}  on {jax.device_count()} devices")

assert np.isclose(losses[0], whole_loss, atol=1e-5), (losses[0], whole_loss)
assert losses[-1] < losses[0] / 2, losses

trained = jax_utils.unreplicate(state).params
logits = model(**tokenizer("Es regnet.", return_tensors="np"), params=trained).logits
print("Es regnet. ->", model.config.id2label[int(logits.argmax())])
