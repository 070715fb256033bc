"""The model that training for a task starts from: vectors of pieces reach its last layer in channels of their own.

A layer adds to what it gets and norms the sum, so of what is only added to the embeddings little is left some layers
on. Therefore the vectors take the coordinates of the built-in model that vary least: no layer writes there
before it is trained, and norms are set to keep their length. What a bag of pieces knows is in what the head sees
from the first step, and the layers learn what order and context add to it. For tasks that look at ``<s>`` alone a head
of the last layer gathers the channels there, and the classifier starts as a regression on them. All this is of low
rank, as an adapter needs it (delta.py).

Shapes: V pieces of the vocabulary, F numbers of a vector, D width of the model, F of its coordinates are channels.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from weights.maker.pieces import BASE, BEGIN, END, FIRST, PAD, Ids, generator, step_down
from xlmr_core import hub
from xlmr_torch import XLMRobertaModel

PREFIX = "roberta."
TEXTS, TOKENS = 64, 32  # of random pieces, on which the norms are set
WRITE = ("attention.output.dense", "output.dense")
STRAIGHT = 0.3  # spread of what the classifier bends, which is nearly straight there
ROUNDS, RATE = 300, 0.3  # of the regression
GATHERED = 4.0  # times the mean of a text, in which the vectors of pieces cancel each other out
# Of the first layers, whose head looks for pieces that are alike; how much more a piece looks at itself than at others.
MATCHING, ALIKE = 2, 8.0


@dataclass(frozen=True)
class Labelled:
    """Texts from which a classifier learns what to make of the channels.

    Attributes:
        rows: ids of each, without those at its ends.
        labels_N: the number of its label.
        labels: K.
    """

    rows: Ids
    labels_N: NDArray[np.int64]
    labels: int

    def some(self, most: int) -> Labelled:
        """So many of them, drawn; all where there are no more."""
        drawn = np.random.default_rng(0).choice(len(self.rows), min(most, len(self.rows)), replace=False)
        return Labelled([self.rows[number] for number in drawn], self.labels_N[drawn], self.labels)


def write_start(
    vectors_VF: NDArray[np.float32],
    counts_V: NDArray[np.int64],
    folder: Path,
    labelled: Labelled | None = None,
    matching: bool = False,
) -> None:
    """Write the built-in model with vectors in channels.

    Args:
        vectors_VF: of the pieces.
        counts_V: how often texts have each, by which lengths are compared.
        folder: for the model; one that is there stays.
        labelled: for a classifier of texts, which is written too.
        matching: whether layers begin with looking for pieces that are alike.
    """
    base = hub.resolve(BASE)
    model = XLMRobertaModel.from_pretrained(base, add_pooling_layer=False, dtype=torch.float32).eval()
    values = load_file(base / "model.safetensors")
    with torch.no_grad():
        share_V = torch.from_numpy(counts_V / counts_V.sum()).float()
        own_F = open_channels(model, torch.from_numpy(vectors_VF), share_V)
        if matching:
            match_channels(model, own_F, texts_of(share_V))
        if labelled is not None:
            gather_channels(model, own_F, texts_of(share_V))
            values |= {
                f"classifier.{name}": value.numpy() for name, value in classifier(model, own_F, labelled).items()
            }
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
            if not folder.is_dir():  # else another maker of it was sooner
                raise


def open_channels(model: nn.Module, vectors_VF: Tensor, share_V: Tensor) -> Tensor:
    """Give vectors their channels in an encoder; the coordinates come back, (F,).

    Args:
        model: an encoder, in float32.
        vectors_VF: of the pieces.
        share_V: which part of all pieces each is, of texts.
    """
    ids_BS = texts_of(share_V)
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
    for number, norm in enumerate(norms):  # each hears those before it
        norm.weight[own_F], norm.bias[own_F] = 1.0, 0.0
        states_ND = after(model, norms, ids_BS)[number]
        norm.weight[own_F] *= states_ND[:, others_D].std() / states_ND[:, own_F].std()
    return own_F


def gather_channels(model: nn.Module, own_F: Tensor, ids_BS: Tensor) -> None:
    """Let a head of the last layer, that whose ``<s>`` looks most evenly at a text, add up channels there.

    Args:
        model: an encoder, in float32.
        own_F: its channels, no more than a head is wide.
        ids_BS: texts.
    """
    layer = model.get_submodule("encoder.layer")[-1]
    looks_BHSS = model(input_ids=ids_BS, output_attentions=True).attentions[-1]
    size = size_of_heads(model, own_F)
    head = evenest(looks_BHSS[:, :, :1])
    places_F = head * size + torch.arange(len(own_F))
    query, value = layer.get_submodule("attention.self.query"), layer.get_submodule("attention.self.value")
    query.weight[head * size : (head + 1) * size] = 0  # evenly
    query.bias[head * size : (head + 1) * size] = 0
    value.weight[places_F] = 0
    value.bias[places_F] = 0
    value.weight[places_F, own_F] = 1
    output = layer.get_submodule("attention.output.dense")
    output.weight[:, places_F] = 0
    output.weight[own_F, places_F] = GATHERED


def match_channels(model: nn.Module, own_F: Tensor, ids_BS: Tensor) -> None:
    """Let a head of each of the first layers look at the pieces that are most like its own, by their channels.

    Args:
        model: an encoder, in float32.
        own_F: its channels, no more than a head is wide.
        ids_BS: texts.
    """
    found = model(input_ids=ids_BS, output_attentions=True, output_hidden_states=True)
    size = size_of_heads(model, own_F)
    layers = model.get_submodule("encoder.layer")
    for number in range(MATCHING):
        head = evenest(found.attentions[number])
        square = (found.hidden_states[number][:, 1:, own_F] ** 2).sum(dim=-1).mean()
        places_F = head * size + torch.arange(len(own_F))
        for name in ("query", "key"):
            part = layers[number].get_submodule(f"attention.self.{name}")
            part.weight[head * size : (head + 1) * size] = 0
            part.bias[head * size : (head + 1) * size] = 0
            part.weight[places_F, own_F] = (ALIKE * size**0.5 / square).sqrt()


def size_of_heads(model: nn.Module, own_F: Tensor) -> int:
    """How wide a head is, which has room for the channels."""
    size: int = model.config.hidden_size // model.config.num_attention_heads
    assert len(own_F) <= size, "a head has no room for so many channels"
    return size


def evenest(looks_BHSS: Tensor) -> int:
    """The head that looks most evenly at texts."""
    return int(-(looks_BHSS * looks_BHSS.clamp(min=1e-9).log()).sum(dim=-1).mean(dim=(0, 2)).argmax())


def classifier(model: nn.Module, own_F: Tensor, labelled: Labelled) -> dict[str, Tensor]:
    """The head of a classifier that tells labels from what ``<s>`` has in the channels, by its names."""
    rows = labelled.rows
    states_ND = torch.cat([first_states(model, rows[begin : begin + TEXTS]) for begin in range(0, len(rows), TEXTS)])
    scale_F = STRAIGHT / states_ND[:, own_F].std(dim=0)
    width, number = states_ND.shape[1], len(own_F)
    dense_DD = torch.randn(width, width, generator=generator(0)) * 0.02
    dense_DD[:number] = 0
    dense_DD[torch.arange(number), own_F] = scale_F
    bias_D = torch.zeros(width)
    bias_D[:number] = -scale_F * states_ND[:, own_F].mean(dim=0)
    told_NF = (states_ND @ dense_DD.T + bias_D).tanh()[:, :number]
    regression = nn.Linear(number, labelled.labels)
    nn.init.zeros_(regression.weight)
    nn.init.zeros_(regression.bias)
    right_N, optimizer = torch.from_numpy(labelled.labels_N), torch.optim.Adam(regression.parameters(), lr=RATE)
    with torch.enable_grad():
        for step in range(ROUNDS):
            step_down(optimizer, nn.functional.cross_entropy(regression(told_NF), right_N), 1 - step / ROUNDS, RATE)
    print(f"labels from the channels: {(regression(told_NF).argmax(dim=1) == right_N).float().mean():.3f}")
    out_KD = torch.zeros(labelled.labels, width)
    out_KD[:, :number] = regression.weight
    return {
        "dense.weight": dense_DD,
        "dense.bias": bias_D,
        "out_proj.weight": out_KD,
        "out_proj.bias": regression.bias.detach(),
    }


def first_states(model: nn.Module, rows: Ids) -> Tensor:
    """What ``<s>`` is in texts, (B, D)."""
    ids_BS = torch.full((len(rows), max(map(len, rows)) + 2), PAD)
    for number, row in enumerate(rows):
        ids_BS[number, : len(row) + 2] = torch.from_numpy(np.concatenate([[BEGIN], row, [END]]))
    states_BSD: Tensor = model(input_ids=ids_BS, attention_mask=(ids_BS != PAD).long()).last_hidden_state
    return states_BSD[:, 0]


def texts_of(share_V: Tensor) -> Tensor:
    """Random texts of pieces in these shares, behind ``<s>``, (B, S)."""
    ids_BS = torch.multinomial(share_V, TEXTS * TOKENS, replacement=True, generator=generator(0)).view(TEXTS, TOKENS)
    ids_BS[:, 0] = BEGIN
    return ids_BS


def after(model: nn.Module, norms: list[nn.LayerNorm], ids_BS: Tensor) -> list[Tensor]:
    """What each norm gives, (B * S, D)."""
    found: list[Tensor] = []
    hooks = [norm.register_forward_hook(lambda *given: found.append(given[-1].flatten(0, -2))) for norm in norms]
    model(input_ids=ids_BS)
    for hook in hooks:
        hook.remove()
    return found
