"""What ``xlmr_flax`` has otherwise than ``xlmr_torch``, and why; ``-`` it lacks, ``+`` it adds."""

from __future__ import annotations

DIFFERENCES = {
    "-activations.py": "the models of this backend are still to come",
    "-attention.py": "the models of this backend are still to come",
    "-auto.py": "the models of this backend are still to come",
    "-checks.py": "the models of this backend are still to come",
    "-embeddings.py": "the models of this backend are still to come",
    "-encoder.py": "the models of this backend are still to come",
    "-heads.py": "the models of this backend are still to come",
    "-inference.py": "the models of this backend are still to come",
    "-int8.py": "the models of this backend are still to come",
    "-kernels.py": "the models of this backend are still to come",
    "-layers.py": "the models of this backend are still to come",
    "-linear.py": "the models of this backend are still to come",
    "-lm_heads.py": "the models of this backend are still to come",
    "-loading.py": "the models of this backend are still to come",
    "-losses.py": "the models of this backend are still to come",
    "-modeling_xlm_roberta.py": "the models of this backend are still to come",
    "-modeling_xlm_roberta_xl.py": "the models of this backend are still to come",
    "-packed_attention.py": "the models of this backend are still to come",
    "-packing.py": "the models of this backend are still to come",
    "-pipelines.py": "the models of this backend are still to come",
    "-placement.py": "the models of this backend are still to come",
    "-pretrained.py": "the models of this backend are still to come",
    "-tensors.py": "the models of this backend are still to come",
    "+__init__.py:to_tensor": "the models of this backend are still to come",
}
