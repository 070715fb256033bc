"""What ``generate`` means, for all backends: options, plan, prompt, scores, stopping, streaming, outputs.

Read in this order: ``options`` (the table), ``config`` (the file), ``request`` (the arguments of a call), ``prompt``,
``processors``, ``plan`` (what the call means), ``stopping``, ``logits_processing``, ``streamers``, ``outputs``,
``scores``, ``mask_predict``. The loops are the backends' own; ``xlmr_core/reference/generation.py`` is the judge of
them.
"""

from __future__ import annotations

from xlmr_core.generation.config import GenerationConfig, read_generation_config
from xlmr_core.generation.logits_processing import (
    NOTHING_LEFT,
    LogitsProcessor,
    LogitsProcessorList,
    allowed_tokens,
)
from xlmr_core.generation.mask_predict import (
    MaskPredict,
    MaskPredictInputs,
    check_certainty,
    least_certain,
    plan_mask_predict,
)
from xlmr_core.generation.outputs import (
    GenerateBeamDecoderOnlyOutput,
    GenerateBeamEncoderDecoderOutput,
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
    generation_output,
)
from xlmr_core.generation.plan import Generation, plan_generation
from xlmr_core.generation.processors import OF_ENCODER, PROCESSORS, RENORMALIZE, WARPERS, Processor
from xlmr_core.generation.prompt import Prompt, arrange_prompt, bucket, next_position, zero_based_position_ids
from xlmr_core.generation.request import (
    DECODER_INPUTS,
    ENCODER_DECODER_INPUTS,
    Hooks,
    Request,
    decoder_prompt,
    one_prompt,
    read_request,
    start_ids,
)
from xlmr_core.generation.scores import transition_scores
from xlmr_core.generation.stopping import (
    EosTokenCriteria,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
    own_criteria,
)
from xlmr_core.generation.streamers import (
    AsyncTextIteratorStreamer,
    BaseStreamer,
    TextIteratorStreamer,
    TextStreamer,
    ends_streamer,
)

__all__ = [
    "DECODER_INPUTS",
    "ENCODER_DECODER_INPUTS",
    "NOTHING_LEFT",
    "OF_ENCODER",
    "PROCESSORS",
    "RENORMALIZE",
    "WARPERS",
    "AsyncTextIteratorStreamer",
    "BaseStreamer",
    "EosTokenCriteria",
    "GenerateBeamDecoderOnlyOutput",
    "GenerateBeamEncoderDecoderOutput",
    "GenerateDecoderOnlyOutput",
    "GenerateEncoderDecoderOutput",
    "Generation",
    "GenerationConfig",
    "Hooks",
    "LogitsProcessor",
    "LogitsProcessorList",
    "MaskPredict",
    "MaskPredictInputs",
    "MaxLengthCriteria",
    "MaxTimeCriteria",
    "Processor",
    "Prompt",
    "Request",
    "StopStringCriteria",
    "StoppingCriteria",
    "StoppingCriteriaList",
    "TextIteratorStreamer",
    "TextStreamer",
    "allowed_tokens",
    "arrange_prompt",
    "bucket",
    "check_certainty",
    "decoder_prompt",
    "ends_streamer",
    "generation_output",
    "least_certain",
    "next_position",
    "one_prompt",
    "own_criteria",
    "plan_generation",
    "plan_mask_predict",
    "read_generation_config",
    "read_request",
    "start_ids",
    "transition_scores",
    "zero_based_position_ids",
]
