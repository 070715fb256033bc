"""The model that training for a task starts from: vectors of pieces reach its last layer in channels of their own.

A layer adds to what it gets and norms the sum, so of what is only added to the embeddings little is left some layers
on. Therefore the vectors take the coordinates of the built-in model that vary least: no layer writes there, none reads
there before it is trained, and norms are set to keep their length. What a bag of pieces knows is in what the head sees
from the first step, and the layers learn what order and context add to it. All this is of low rank, as an adapter needs
it (delta.py).

Shapes: V pieces of the vocabulary, F numbers of a vector, D width of the model, F of its coordinates are channels.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from weights.maker.pieces import BASE, FIRST, generator
from xlmr_core import hub
from xlmr_torch import XLMRobertaModel

PREFIX = "roberta."
TEXTS, TOKENS = 64, 32  # of random pieces, on which the norms are set
READ = ("attention.self.query", "attention.self.key", "attention.self.value", "intermediate.dense")
WRITE = ("attention.output.dense", "output.dense")


def write_start(vectors_VF: NDArray[np.float32], counts_V: NDArray[np.int64], folder: Path) -> None:
    """Write the built-in model with vectors in channels.

    Args:
        vectors_VF: of the pieces.
        counts_V: how often texts have each, by which lengths are compared.
        folder: for the model; one that is there stays.
    """
    base = hub.resolve(BASE)
    model = XLMRobertaModel.from_pretrained(base, add_pooling_layer=False, dtype=torch.float32).eval()
    with torch.no_grad():
        open_channels(model, torch.from_numpy(vectors_VF), torch.from_numpy(counts_V / counts_V.sum()).float())
    values = load_file(base / "model.safetensors")
    values |= {PREFIX + name: value.numpy() for name, value in model.state_dict().items() if PREFIX + name in values}
    with TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as name:
        made = Path(name, "made")
        shutil.copytree(base, made, ignore=shutil.ignore_patterns("*.md", "evaluation.json", "model.safetensors"))
        save_file(
            {name: np.ascontiguousarray(value, np.float32) for name, value in values.items()},
            made / "model.safetensors",
            metadata={"format": "pt"},
        )
        try:
            made.replace(folder)
        except OSError:
            if not folder.is_dir():  # else a maker of another model that starts there was sooner
                raise


def open_channels(model: nn.Module, vectors_VF: Tensor, share_V: Tensor) -> Tensor:
    """Give vectors their channels in an encoder; the coordinates come back, (F,).

    Args:
        model: an encoder, in float32.
        vectors_VF: of the pieces.
        share_V: which part of all pieces each is, of texts.
    """
    ids_BS = torch.multinomial(share_V, TEXTS * TOKENS, replacement=True, generator=generator(0)).view(TEXTS, TOKENS)
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    spreads_D = sum(states_ND.var(dim=0) / states_ND.var(dim=0).mean() for states_ND in after(model, norms, ids_BS))
    assert isinstance(spreads_D, Tensor)
    own_F = spreads_D.argsort()[: vectors_VF.shape[1]].sort().values
    others_D = torch.ones(len(spreads_D), dtype=torch.bool).index_fill(0, own_F, False)

    embeddings = model.get_submodule("embeddings")
    words_VD = embeddings.get_parameter("word_embeddings.weight")
    centred_VF = vectors_VF - share_V @ vectors_VF
    centred_VF[:FIRST] = 0
    length = (share_V @ words_VD[:, others_D] ** 2).mean().sqrt() / (share_V @ centred_VF**2).mean().sqrt()
    words_VD[:, own_F] = length * centred_VF - embeddings.get_parameter("token_type_embeddings.weight")[0, own_F]
    for name, module in model.named_modules():
        if name.endswith(WRITE):
            module.get_parameter("weight")[own_F] = 0
            module.get_parameter("bias")[own_F] = 0
        elif name.endswith(READ):
            module.get_parameter("weight")[:, own_F] = 0
    for number, norm in enumerate(norms):  # each hears those before it
        norm.weight[own_F], norm.bias[own_F] = 1.0, 0.0
        states_ND = after(model, norms, ids_BS)[number]
        norm.weight[own_F] *= states_ND[:, others_D].std() / states_ND[:, own_F].std()
    return own_F


def after(model: nn.Module, norms: list[nn.LayerNorm], ids_BS: Tensor) -> list[Tensor]:
    """What each norm gives, (B * S, D)."""
    found: list[Tensor] = []
    hooks = [norm.register_forward_hook(lambda *given: found.append(given[-1].flatten(0, -2))) for norm in norms]
    model(input_ids=ids_BS)
    for hook in hooks:
        hook.remove()
    return found
