"""What ``xlmr_tf`` has otherwise than ``xlmr_torch``, and why; ``-`` it lacks, ``+`` it adds."""

from __future__ import annotations

IN_PLACE = "variables are filled in their places, so that a shared one stays shared and a frozen one frozen"
PARTS = "research code imports the parts of the published modeling files of PyTorch and calls them by themselves"
LOOKS = "hooks, replicas and offloading, which look into a model or empty it, are PyTorch's"

DIFFERENCES = {
    # Published parts, and tools that look into a model
    "-hooks.py": LOOKS,
    "-values.py:first_float": LOOKS,
    "-values.py:tensors_in": LOOKS,
    "-placement.py:as_device_map": "the published attribute hf_device_map is PyTorch's",
    "-placement.py:NoValuesError": "the meta device is PyTorch's",
    "-placement.py:refuse_meta": "the meta device is PyTorch's",
    "-parts_xlm_roberta_xl.py": PARTS,
    "-plan.py:plan_by_bias": PARTS,
    "-plan.py:plan_by_biases": PARTS,
    "-attention.py:SelfAttention.num_attention_heads": PARTS,
    "-attention.py:SelfAttention.all_head_size": PARTS,
    "-attention.py:Attention.pruned_heads": PARTS,
    "-attention.py:heads_left": PARTS,
    "-embeddings.py:create_position_ids_from_input_ids": PARTS,
    "-embeddings.py:Embeddings.create_position_ids_from_inputs_embeds": PARTS,
    "-embeddings.py:Embeddings.position_ids": PARTS,
    "-embeddings.py:Embeddings.register_buffer": PARTS,
    "-encoder.py:Encoded.last_hidden_state": LOOKS,
    "-encoder.py:Encoded.output": LOOKS,
    "-encoder.py:Encoder.run": PARTS,
    "-lm_heads.py:CausalLM.prepare_inputs_for_generation": "peft, which asks for it, is for PyTorch",
    "-linear.py:begun": PARTS,
    "-linear.py:values_follow": PARTS,
    # What PyTorch needs and Keras does not
    "-inference.py": (
        "int8, bfloat16 tables and oneDNN calls are kernels of PyTorch; a graph of TensorFlow fuses by itself"
    ),
    "-onednn.py": "oneDNN by a call of its own is for PyTorch; TensorFlow chooses its kernels by itself",
    "-int8.py": "int8 on the CPU is a kernel of PyTorch; TensorFlow has none for dynamic activations",
    "-loading.py:to_torch": (
        "a tensor over a file's bytes; Keras variables own their memory and are filled piece by piece"
    ),
    "-placement.py:find_dtype": "Keras computes by a dtype policy, which may keep float32 variables",
    "-losses.py:_ChunkedCrossEntropy": "the kernel of TensorFlow keeps no log-probabilities beside its gradient",
    "+packed_attention.py:_Kind": "there is no kernel for packed tokens, so a loop is traced for each kind of model",
    "-packed_attention.py:can_be_causal": "there is one kernel, for every dtype and head size",
    "-pretrained.py:PreTrainedModel.is_quantized": "there are no quantized models in this backend",
    "-pretrained.py:PreTrainedModel.quantization_scheme": "as is_quantized",
    "-quantized.py": "as is_quantized",
    "-pretrained.py:PreTrainedModel.device": "variables have devices, a Keras model has none of its own",
    "-pretrained.py:PreTrainedModel.dtype": "keras.Model has it, the dtype of the variables",
    "-values.py:ModelValues.tie_weights": "a tied head holds the embedding layer itself, nothing can come untied",
    "-values.py:ModelValues.load_state_dict": (
        "Keras has load_weights; from_pretrained(None, state_dict=...) takes arrays"
    ),
    "-pretrained.py:PreTrainedModel.enable_input_require_grads": "recomputed layers need no input with a gradient here",
    "-pretrained.py:PreTrainedModel.disable_input_require_grads": "as enable_input_require_grads",
    "-values.py:tensor_at": IN_PLACE,
    "-values.py:put": IN_PLACE,
    "-values.py:share": IN_PLACE,
    "-resizing.py:ResizableModel.set_output_bias": "only heads with a vocabulary projection have it",
    # What Keras needs and PyTorch does not
    "+_keras.py": "Keras chooses its backend when it is first imported",
    "+attention.py:SelfAttention.by_head": "tensors have no unflatten",
    "+placement.py:find_policy": "in the place of find_dtype",
    "+inputs.py:_AnySize": "a graph does not know every size",
    "+inputs.py:is_xla": "XLA wants every size to be known, so it takes the padded path",
    "+inputs.py:shape_of": "a shape in which unknown sizes fit everything",
    "+embeddings.py:Embeddings.without_padding": (
        "torch.nn.Embedding leaves the padding row without a gradient by itself"
    ),
    "+encoder.py:flat": "tensors have no flatten that keeps known sizes",
    "+heads.py:flat_logits": "tensors have no flatten that keeps known sizes",
    "-linear.py:is_plain": "hooks and subclasses that get in the way of a fast path exist in PyTorch alone",
    "+linear.py:layer_norm": "layers are built in constructors, without a first call",
    "+linear.py:dropout": "layers are built in constructors, without a first call",
    "+linear.py:replace_values": "a Keras layer keeps a list of its variables, so another shape means another entry",
    "+linear.py:dims": "sizes are numbers or scalars of the graph",
    "+linear.py:leave_unset": "takes the place of the meta device, on which a tensor shows that it has no values",
    "+losses.py:next_tokens": "one expression of PyTorch that the metrics do not need there",
    "+losses.py:sequence_losses": "the published losses, and those that fit weighs, are one a row",
    "+losses.py:weigh": "fit takes weights of examples",
    "+heads.py:weights_of": "fit takes weights of examples",
    "+lm_heads.py:at_places": "of labels and of their weights",
    "+lm_heads.py:labels_at": "in a graph the shape of the labels may show only when it runs",
    "+values.py:ModelValues.get_parameter": "torch.nn.Module has it",
    "+values.py:ModelValues.get_values": "kernels lie transposed, and adapters are added up",
    "+values.py:lost": "in PyTorch plain tensors are no part of the state, and every parameter has a path",
    "+values.py:nodes": "in place of named_modules, which sees no lists and dictionaries",
    "+values.py:parts": "in place of named_modules, which sees no lists and dictionaries",
    "+values.py:nowhere": "variables of Keras that no attribute leads to",
    "+values.py:set_trainable": "Keras on TensorFlow passes over a flag that is set already",
    "+values.py:unbuilt": "layers of Keras may have no variables before their first call",
    "+values.py:variable_at": IN_PLACE,
    "+values.py:value_at": "kernels lie transposed, and adapters are added up",
    "+pretrained.py:PreTrainedModel.set_dtype": "torch.nn.Module has it, as to()",
    "+pretrained.py:PreTrainedModel.enable_lora": "Keras has adapters, for PyTorch there is peft",
    "+pretrained.py:PreTrainedModel.get_config": "what Keras's own files hold beside the values",
    "+pretrained.py:PreTrainedModel.from_config": "the way back from get_config",
    "+pretrained.py:PreTrainedModel.get_build_config": "what Keras's own files hold beside the values",
    "+tensors.py:register_errors": "Keras and AutoGraph rewrite the errors that pass through them",
    "+fit.py": "fit, evaluate and predict, which PyTorch does not have",
    "+datasets.py": "fit on texts in a tf.data.Dataset, which PyTorch does not have",
    "+distribution.py": "Keras's fit does not train with several workers; for PyTorch there is torchrun",
    "+serving.py": "SavedModel and LiteRT",
    "+tracking.py": "tf.train.Checkpoint asks for what is in lists; a state dict of PyTorch has it by itself",
    "+freezing.py": "Keras's own files hold what is trained; a checkpoint of PyTorch does not",
    "+modeling_xlm_roberta.py:XLMRobertaMainLayer": "a published part of the classes for TensorFlow",
}
