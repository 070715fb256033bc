"""How a pipeline runs a model of PyTorch: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xlmr_torch.placement import find_one_device
from xlmr_torch.pooling import POOLED
from xlmr_torch.values import tensors_in

__all__ = ["Runner"]


class Runner:
    """A model for :class:`xlmr_core.tasks.pipeline.Pipeline`; see :class:`xlmr_core.tasks.runner.Runner`.

    Args:
        model: a model with any head; it is put into evaluation mode.
    """

    framework = "pt"

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        self.projections: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def add_projection(self, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        """Let a projection of the token states be an output too."""
        self.projections[name] = (torch.from_numpy(weight), torch.from_numpy(bias))

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """Where inputs go: to the model, or where it is offloaded, to the host, from which its wrapper takes them."""
        device = next(tensors_in(self.model)).device
        return torch.device("cpu") if device.type == "meta" else device

    def move(self, device: int | str | torch.device) -> None:
        """Put the model on a device."""
        self.model.to(find_one_device(device))

    @torch.inference_mode()
    def run(self, arrays: dict[str, NDArray[Any]], wanted: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The wanted outputs of a batch, float32; see :meth:`xlmr_core.tasks.runner.Runner.run`."""
        device = self.device
        tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        weights_BPS = tensors.pop("pooling", None)
        outputs = self.model(**tensors, return_dict=True)

        def found(name: str) -> torch.Tensor:
            if name in outputs:
                return outputs[name]
            states_BSD = outputs["last_hidden_state"].float()
            if name in self.projections:
                weight, bias = (values.to(device) for values in self.projections[name])
                return torch.nn.functional.linear(states_BSD, weight, bias)
            return POOLED[name](states_BSD, weights_BPS)

        return {name: found(name).float().cpu().numpy() for name in wanted}

    @torch.inference_mode()
    def attentions(self, arrays: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """How tokens attend to each other; see :meth:`xlmr_core.tasks.runner.Runner.attentions`."""
        tensors = {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}
        outputs = self.model(**tensors, output_attentions=True, return_dict=True)
        return [layer_BNSS.float().cpu().numpy() for layer_BNSS in outputs["attentions"]]

    @torch.inference_mode()
    def generate(
        self, arrays: dict[str, NDArray[Any]], options: Mapping[str, Any], streamer: Any = None
    ) -> NDArray[np.int64]:
        """What the model writes (R, L); see :meth:`xlmr_core.tasks.runner.Runner.generate`."""
        device, said = self.device, dict(options)
        if "seed" in said:
            said["generator"] = torch.Generator(device).manual_seed(said.pop("seed"))
        tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        found = self.model.generate(**tensors, **said, streamer=streamer)
        return getattr(found, "sequences", found).cpu().numpy()

    def tensor(self, array: NDArray[Any]) -> Any:
        """An array as a tensor."""
        return torch.from_numpy(array)
