"""Records the golden files: what transformers' own PyTorch classes answer to the cases.

    python -m tests.parity.golden.record

in an environment with transformers==4.57.6, torch and safetensors, from the root of the repository. The original
computes in float64 with eager attention; outputs are stored as float32, gradients as their norm and their products with
two random directions. Weights are not stored: they are drawn again from their names (``weights.py``), and a checksum
says whether they came out the same.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.parity.cases import CASES, Case
from tests.parity.inputs import Made, make
from tests.parity.weights import uniform
from xlmr_core.parameters import parameters

__all__ = ["DIRECTIONS", "FOLDER", "checksum", "fingerprint"]

FOLDER = Path(__file__).resolve().parent
DIRECTIONS = 2
# Whoever needs more of the inside to find a mistake has the reference; these cases pin it.
WITH_STATES = ("Model-right", "Model-left-and-inside", "cross-masked", "relative-key", "mask-3d", "head-mask-by-layer")

Array = NDArray[Any]


def with_states(name: str) -> bool:
    """Whether hidden states and attentions of a case are stored."""
    return any(name.endswith(f"-{case}") for case in WITH_STATES)


def checksum(params: dict[str, Array]) -> float:
    """A number that any other weights would change."""
    return float(sum(np.abs(x.astype(np.float64)).sum() * (1 + index) for index, x in enumerate(params.values())))


def fingerprint(name: str, gradient: Array) -> list[float]:
    """The norm of a gradient and its products with random directions."""
    gradient = gradient.astype(np.float64)
    products = [float((gradient * uniform(number, name, gradient.shape)).sum()) for number in range(DIRECTIONS)]
    return [float(np.linalg.norm(gradient)), *products]


def original(case: Case, made: Made) -> tuple[dict[str, Array], dict[str, Array]]:
    """Outputs, and gradients by name if there is a loss, of the original model."""
    import torch
    import transformers

    from tests.parity.compare import flatten
    from xlmr_core.heads import model_class_name

    values = made.config.to_dict()
    config = getattr(transformers, type(made.config).__name__)(
        **{k: v for k, v in values.items() if k != "name_or_path"}
    )
    config._attn_implementation = "eager"
    model = getattr(transformers, model_class_name(made.config, case.head))(config).double().eval()
    model.load_state_dict({name: torch.from_numpy(x) for name, x in made.params.items()}, strict=True)
    tensors = {name: torch.from_numpy(x) for name, x in made.inputs.items()}
    tensors = {name: x.double() if x.is_floating_point() else x for name, x in tensors.items()}
    cache = {"use_cache": False} if made.config.is_decoder and case.head in ("Model", "ForCausalLM") else {}
    states = with_states(case.name)
    output = model(**tensors, **cache, output_hidden_states=states, output_attentions=states)
    gradients: dict[str, Array] = {}
    if "loss" in output and torch.isfinite(output.loss):
        output.loss.backward()
        gradients = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}

    def convert(x: Any) -> Any:
        return tuple(map(convert, x)) if isinstance(x, tuple) else x.detach().numpy()

    return flatten({name: convert(x) for name, x in output.items() if x is not None}), gradients


def main() -> None:
    import torch
    import transformers

    torch.set_num_threads(1)
    arrays: dict[str, Array] = {}
    checksums: dict[str, float] = {}
    for name, case in CASES.items():
        if not case.original:
            continue
        made = make(case)
        outputs, gradients = original(case, made)
        arrays.update({f"{name}/input/{key}": x for key, x in made.inputs.items()})
        arrays.update({f"{name}/output/{key}": x.astype(np.float32) for key, x in outputs.items()})
        if gradients:
            # In the order of the parameter table; a parameter that the call does not reach has none, which is a
            # gradient of zero.
            names = [row.name for row in parameters(made.config, case.head).values() if row.tied_to is None]
            assert set(gradients) <= set(names)
            rows = [fingerprint(key, gradients.get(key, np.zeros(made.params[key].shape))) for key in names]
            arrays[f"{name}/gradients"] = np.array(rows)
        checksums[name] = checksum(made.params)
    np.savez_compressed(FOLDER / "golden.npz", **arrays)
    about = {
        "written_by": "tests/parity/golden/record.py",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "attention": "eager",
        "computed_in": "float64",
        "seeds": "crc32 of the case's name (inputs), and of each parameter's name beside it (weights)",
        "checksums": checksums,
    }
    (FOLDER / "golden.json").write_text(json.dumps(about, indent=1) + "\n")
    print(
        f"{len(checksums)} cases, {(FOLDER / 'golden.npz').stat().st_size + (FOLDER / 'golden.json').stat().st_size} "
        "bytes"
    )


if __name__ == "__main__":
    main()
