"""Train a masked language model on a mesh of devices: data parallel, with every parameter divided too (FSDP).

The step is written for one device; XLA divides the work by where its inputs lie. Two virtual devices of the CPU stand
for accelerators.
"""

from __future__ import annotations

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"  # before jax is imported; not on a real machine

from functools import partial

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xlmr_flax import AutoTokenizer, FlaxAutoModelForMaskedLM
from xlmr_flax.batching import pad_batch
from xlmr_flax.sharding import FSDP, param_shardings

TEXTS = [
    "Plants create energy through a process known as photosynthesis.",
    "Die Hauptstadt von Frankreich ist Paris.",
    "El agua hierve a cien grados.",
    "Мы живём в большом городе.",
]
MASKED = 3  # positions a text

tokenizer = AutoTokenizer.from_pretrained("xlmr-mini")
model, params = FlaxAutoModelForMaskedLM.from_pretrained("xlmr-mini", _do_init=False)

# A mask at some tokens of each text; logits are computed there only, and their number is fixed, as a compiled step
# wants it.
batch = dict(tokenizer(TEXTS, padding=True, return_tensors="np"))
rng = np.random.default_rng(0)
lengths = batch["attention_mask"].sum(1)
positions = np.stack([rng.choice(np.arange(1, length - 1), MASKED, replace=False) for length in lengths])
rows = np.arange(len(TEXTS))[:, None]
labels = np.full_like(batch["input_ids"], -100)
labels[rows, positions] = batch["input_ids"][rows, positions]
batch["input_ids"][rows, positions] = tokenizer.mask_token_id
batch = pad_batch({**batch, "labels": labels, "masked_positions": positions}, lengths=(32, 64, 128))

mesh = Mesh(np.array(jax.devices()), ("data",))
shardings = param_shardings(model, mesh, FSDP)
params = jax.device_put(params, shardings)
batch = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
optimizer = optax.adamw(3e-4)
moments = optimizer.init(params)  # lie where the parameters do, but for the number of steps
everywhere = NamedSharding(mesh, PartitionSpec())
places = jax.tree.map(lambda x: x.sharding if x.ndim else everywhere, (params, moments))


# What comes out lies where it went in, and takes its memory.
@partial(jax.jit, donate_argnums=(0, 1), out_shardings=(*places, everywhere))
def train_step(params, moments, batch, dropout_rng):
    def loss_of(params):
        return model(**batch, params=params, dropout_rng=dropout_rng, train=True).loss

    loss, gradients = jax.value_and_grad(loss_of)(params)
    updates, moments = optimizer.update(gradients, moments, params)
    return optax.apply_updates(params, updates), moments, loss


losses = []
for step in range(8):
    params, moments, loss = train_step(params, moments, batch, jax.random.key(step))
    losses.append(float(loss))
    print(f"step {step + 1}  loss {losses[-1]:.3f}")
assert losses[-1] < losses[0] / 2, losses

kernel, moment = (
    tree["roberta"]["encoder"]["layer"]["0"]["intermediate"]["dense"]["kernel"] for tree in (params, moments[0].mu)
)
print(f"a kernel {kernel.shape} lies on {len(kernel.devices())} devices as {kernel.addressable_shards[0].data.shape}")
assert moment.sharding == kernel.sharding
