"""Records what transformers' own ``generate`` answers to the cases of ``generation_cases.py``.

    python -m tests.parity.golden.record_generation

in an environment with transformers==4.57.6, torch and safetensors, from the root of the repository. The original
computes in float64, each prompt by itself and without padding: that others stand beside it, with padding, must change
nothing. Positions are those of the forward pass, so it computes without its cache and makes none itself; where a case
asks for ``zero_based``, it does as it does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity.generation_cases import GENERATIONS, Asked, MadeGeneration, made_of
from tests.parity.golden.record import checksum
from xlmr_core.generation import Generation, GenerationConfig, arrange_prompt, plan_generation, read_request
from xlmr_core.heads import model_class_name

__all__ = ["RECORDED", "recordable"]

RECORDED = Path(__file__).resolve().parent / "generation.json"


def recordable(asked: Asked) -> bool:
    """Whether the original can make the call: groups of beams are no part of it any more."""
    return "num_beam_groups" not in asked.options


def planned(made: MadeGeneration) -> Generation:
    """What a call means here; lengths are handed to the original as numbers of new tokens."""
    request = read_request(
        made.config, GenerationConfig.from_model_config(made.config), caller="generate()", kwargs=made.options
    )
    numbering = request.options.position_numbering
    prompt = arrange_prompt(
        made.config, made.inputs["input_ids"], made.inputs["attention_mask"], position_numbering=numbering
    )
    return plan_generation(made.config, request, prompt)


def original(asked: Asked, made: MadeGeneration) -> dict[str, Any]:
    """New tokens of every sequence, filled up with padding, and the scores of beams."""
    import torch
    import transformers

    values = {name: x for name, x in made.config.to_dict().items() if name != "name_or_path"}
    config = getattr(transformers, type(made.config).__name__)(**values)
    config._attn_implementation = "eager"
    model = getattr(transformers, model_class_name(made.config, asked.head))(config).double().eval()
    model.load_state_dict({name: torch.from_numpy(x) for name, x in made.params.items()}, strict=True)
    plan, options = planned(made), dict(made.options)
    zero_based = options.pop("position_numbering", "model") == "zero_based"
    for name in ("max_length", "min_length", "use_cache"):
        options.pop(name, None)
    options |= {"max_new_tokens": plan.new_tokens, "min_new_tokens": plan.min_length - plan.prompt_length}
    if not zero_based:
        options["use_cache"] = False

        def prepared(input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None, **kwargs: Any) -> Any:
            if token_type_ids is not None:
                more = input_ids.shape[1] - token_type_ids.shape[1]
                token_type_ids = torch.cat([token_type_ids, token_type_ids[:, -1:].expand(-1, more)], dim=1)
            memory = {name: x for name, x in kwargs.items() if name.startswith("encoder_")}
            given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
            return {**given, **memory, "use_cache": False}

        model.prepare_inputs_for_generation = prepared
    tokens: list[list[int]] = []
    scores: list[float] = []
    pad = made.config.pad_token_id
    for row in range(len(asked.rows)):
        mask = made.inputs["attention_mask"][row]
        here = np.flatnonzero((mask == 1) | (made.inputs["input_ids"][row] != pad))
        columns = slice(here.min(), np.flatnonzero(mask == 1).max() + 1)
        inputs = {
            name: torch.from_numpy(np.ascontiguousarray(x[[row]] if name.startswith("encoder_") else x[[row], columns]))
            for name, x in made.inputs.items()
        }
        inputs = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
        output = model.generate(**inputs, **options, do_sample=False, return_dict_in_generate=True, output_scores=True)
        new = output.sequences[:, inputs["input_ids"].shape[1] :].tolist()
        tokens.extend([*one, *[pad] * (plan.new_tokens - len(one))] for one in new)
        if plan.has_beams:
            scores.extend(output.sequences_scores.tolist())
    return {"checksum": checksum(made.params), "tokens": tokens, **({"scores": scores} if scores else {})}


def main() -> None:
    import torch
    import transformers

    torch.set_num_threads(1)
    found = {name: original(asked, made_of(asked)) for name, asked in GENERATIONS.items() if recordable(asked)}
    about = {
        "written_by": "tests/parity/golden/record_generation.py",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "computed_in": "float64",
    }
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(one)}" for name, one in found.items())
    RECORDED.write_text(f'{json.dumps(about, indent=1)[:-2]},\n "cases": {{\n{lines}\n }}\n}}\n')


if __name__ == "__main__":
    main()
