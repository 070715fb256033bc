"""What ``xlmr_flax`` has otherwise than ``xlmr_torch``, and why; ``-`` it lacks, ``+`` it adds."""

from __future__ import annotations

TREE = "parameters are also a plain nested dictionary here, which published scripts hold outside the model"
LAYERS = "PyTorch brings these layers; NNX's own would draw values, and would not accumulate half precision in float32"
TIED = "a shared parameter stands in the tree once, so that nothing has to be tied again"
CODES = "tensors of quantized weights are variables of a kind of their own, which no cast, gradient or optimizer meets"
WIDENED = "XLA has no kernels for codes: a layer says how some rows of its weight are widened, and all else is shared"
WHOLE_WEIGHTS = "schemes encode in NumPy, so that one function does it for all; values are drawn before a model has any"
ROWS = "packed rows are padded rows to every layer, so that no kernel, and no packing without padding, is needed"
PARTS = "research code imports the parts of the published modeling files of PyTorch and calls them by themselves"
LOOKS = "hooks, replicas and offloading, which look into a model or empty it, are PyTorch's"
SIZES = "arrays of a program have a fixed size, so that there is one kind of cache; none changes, a call gives another"
LOOPS = "a loop is one compiled program here, made of functions of a state, or the same functions step by step"
GIVEN = "published for Flax: who writes a loop makes the cache, and asks for the next inputs"
ADDED = "an adapter is a pair of leaves beside a kernel, which is added to it wherever the parameters are read"
SHAPES = "a step is compiled for each shape of a batch, so that there are to be few"
RATES = "the published schedules set the rates of an optimizer of PyTorch; optax asks a function for the rate"
LABELLED = "a program knows no number of labels; it puts the labelled in front and goes on as long as there are more"
WIDE = "XLA gives a product in the dtype that its sums are made in, and what is added up along the layers stays so"

DIFFERENCES = {
    **{f"+losses.py:{name}": LABELLED for name in ("labelled_cross_entropy", "_Projection")},
    "+lm_heads.py:VocabularyModel.projection": LABELLED,
    "+linear.py:narrowed": WIDE,
    "+linear.py:Linear.wide": WIDE,
    "+packing.py:Packing.first_slots": ROWS,
    # A decoder's cache, and generation
    "-cache_layers.py": SIZES,
    **{
        f"-cache.py:{name}": SIZES
        for name in (
            *("DynamicCache", "StaticCache", "EncoderDecoderCache", "Unchanged", "Slots"),
            *("new_cache", "of_tokens", "of_memory", "keys_and_values", "tokens_counted", "places_of"),
            *(
                "Cache.update",
                "Cache.get_max_cache_shape",
                "Cache.max_cache_len",
                "Cache.is_initialized",
                "Cache.reset",
            ),
            *("Cache.crop", "Cache.batch_select_indices"),
        )
    },
    "-cache.py:see_cache_of_model": "no layer is called by itself with a cache that others have not added to yet",
    "-cache.py:register_caches": "a cache is a data class, which JAX sees through by a decorator",
    "-cache.py:_Unflatten": "a cache is a data class, which JAX sees through by a decorator",
    **{
        f"+cache.py:{name}": SIZES
        for name in (
            *("Held", "Cache.empty", "Cache.capacity", "Cache.held", "Cache.held_memory", "Cache.stacked"),
            "Cache.begun",
        )
    },
    "-attention.py:SelfAttention.heads_of": "a layer gives its keys and values back, and writes them nowhere",
    "-attention.py:SelfAttention.of_memory": "a layer gives its keys and values back, and writes them nowhere",
    "-kernels.py:causal_from": "the number of tokens before may be traced, so that one function serves both",
    "-encoder.py:Encoder.recomputes": "a call gives a cache where it was given one, as published for Flax",
    "+encoder.py:EncoderModel.init_cache": GIVEN,
    "+lm_heads.py:CausalLM.init_cache": GIVEN,
    "+generation.py:GenerationMixin.update_inputs_for_generation": GIVEN,
    "+generation.py:GreedySearchOutput": "published for Flax, where generate always gives an output",
    "+generation.py:SampleOutput": "published for Flax, where generate always gives an output",
    "+generation.py:BeamSearchOutput": "published for Flax, where generate always gives an output",
    "-generation.py:on_host": "inside a caller's program there is nothing to be seen of a prompt",
    "+generation.py:prompt_of": "inside a caller's program there is nothing to be seen of a prompt",
    "+generation.py:runs_on_host": LOOPS,
    "+generation.py:answer": LOOPS,
    **{f"-steps.py:{name}": LOOPS for name in ("Steps", "Judged", "Loop")},
    **{
        f"+steps.py:{name}": LOOPS
        for name in ("Context", "prefill", "advance", "processed", "best", "is_end", "Between")
    },
    **{f"-beams.py:{name}": LOOPS for name in ("beam_search", "goes_on")},
    **{f"+beams.py:{name}": LOOPS for name in ("Candidates", "BeamSearch")},
    **{f"-decoding.py:{name}": LOOPS for name in ("token_by_token", "check_cache_of_prompt")},
    **{f"+decoding.py:{name}": LOOPS for name in ("Rows", "search", "search_on_host")},
    "+mask_predict.py:one_pass": "a pass is one compiled program",
    "+linear.py:by_rows": "the published tree holds the table of a tied projection once, by rows",
    # Published parts, and tools that look into a model
    "-hooks.py": LOOKS,
    "-values.py:first_float": LOOKS,
    "-values.py:tensors_in": LOOKS,
    "-placement.py:as_device_map": "the published attribute hf_device_map is PyTorch's",
    "-placement.py:NoValuesError": "the meta device is PyTorch's",
    "-placement.py:refuse_meta": "the meta device is PyTorch's",
    "-parts_xlm_roberta.py": PARTS,
    "-parts_xlm_roberta_xl.py": PARTS,
    "-plan.py:plan_by_bias": PARTS,
    "-plan.py:plan_by_biases": PARTS,
    "-attention.py:SelfAttention.num_attention_heads": PARTS,
    "-attention.py:SelfAttention.all_head_size": PARTS,
    "-attention.py:Attention.pruned_heads": PARTS,
    "-attention.py:heads_left": PARTS,
    "-embeddings.py:Embeddings.create_position_ids_from_inputs_embeds": PARTS,
    "-embeddings.py:Embeddings.position_ids": PARTS,
    "-embeddings.py:Embeddings.register_buffer": PARTS,
    "-encoder.py:Encoded.last_hidden_state": LOOKS,
    "-encoder.py:Encoded.output": LOOKS,
    "-encoder.py:Encoder.run": PARTS,
    "-linear.py:begun": PARTS,
    "-linear.py:values_follow": PARTS,
    # Files
    "-compiling.py": "options of PyTorch's compiler; XLA computes once what a graph repeats",
    "-integer_attention.py": "a kernel that PyTorch's compiler builds; XLA takes none of this kind",
    "-quantized.py:leave_file": "arrays are copies of a file's values",
    "-inference.py": "jax.jit and dtype= do what optimize_for_inference does",
    # Training
    **{f"-adapters.py:{name}": ADDED for name in ("whole_modules", "merged_values")},
    "-objectives.py:loss_of": "the loss is one of the answers, of which a program computes what it returns",
    **{f"+objectives.py:{name}": SHAPES for name in ("fitted", "trimmed", "width_of")},
    "+optimizers.py:united": TREE,
    "+optimizers.py:rescaled": "PyTorch brings what scales a loss in float16",
    "+devices.py": "a mesh says where arrays lie, and the compiler divides the work by that",
    "-used_rows.py": "a step is one program over all parameters, in which optax has the whole table",
    "-processes.py:Processes": "jax.distributed knows its processes, and a mesh their devices",
    "-training.py:check": "nothing is refused here that not every backend refuses",
    "-training_state.py:gathered": "Orbax writes what is divided as it lies",
    "-training_state.py:whole": "Orbax writes what is divided as it lies",
    "-training_state.py:_Kept": "Orbax opens its files itself, and says what the system said",
    "+training_step.py": "a step is one compiled program",
    "-later.py": "an eager output computes its logits when they are read; under jit XLA leaves out what nobody returns",
    "-activations.py:kernel_of": "as onednn.py",
    "-linear.py:Linear.by_onednn": "as onednn.py",
    "-linear.py:Linear.is_for_pytorch": "as onednn.py",
    "-onednn.py": "oneDNN by a call of its own is for PyTorch; XLA chooses its kernels by itself",
    # Quantized weights
    "+pretrained.py:PreTrainedModel.codes": TREE,
    "-values.py:ModelValues.requires_grad_": CODES,
    **{f"+widening.py:{name}": CODES for name in ("Codes", "Text", "Derived", "QuantizedLayer.part")},
    **{
        f"-{name}": CODES
        for name in (
            *("bitsandbytes.py:Params4bit", "bitsandbytes.py:Linear4bit.settle", "four_bit.py:_FourBitLayer.settle"),
            *("four_bit.py:FourBitLinear.settle", "widening.py:frozen"),
            *("widening.py:let_go", "widening.py:QuantizedLayer.settle"),
        )
    },
    **{
        f"-{name}": WHOLE_WEIGHTS
        for name in (
            *("bitsandbytes.py:encoded", "four_bit.py:encoded", "int8.py:encoded", "int8.py:quantize_rows"),
            *("bitsandbytes.py:Linear4bit.set_values", "bitsandbytes.py:Linear8bitLt.set_values"),
            *("four_bit.py:_FourBitLayer.set_values", "int8.py:_Int8Module.set_values"),
        )
    },
    "+values.py:layer_at": "torch.nn.Module brings it",
    "+values.py:put_layer": "torch.nn.Module brings it",
    "-cuda_four_bit.py": WIDENED,
    **{
        f"-{name}": WIDENED
        for name in (
            *("bitsandbytes.py:Linear4bit.by_kernel", "bitsandbytes.py:Linear8bitLt.product_dtype"),
            *(f"four_bit.py:FourBitLinear.{name}" for name in ("product_dtype", "by_kernel", "rows", "__call__")),
            *(f"four_bit.py:FourBitLinear.{name}" for name in ("has_kernel", "prepare", "in_order")),
            *("four_bit.py:FourBitEmbedding.extra_repr", "int8.py:row_sums", "int8.py:Int8Linear.__call__"),
            *("int8.py:Int8Embedding.extra_repr", "int8.py:Int8Linear.extra_repr", "quantized.py:prepare"),
            *(f"widening.py:WidenedLinear.{name}" for name in ("rows", "prepare", "dequantize", "by_kernel")),
            *("widening.py:WidenedLinear.extra_repr", "widening.py:_Product", "widening.py:pairs_of"),
        )
    },
    **{
        f"+{name}": WIDENED
        for name in (
            *("four_bit.py:_FourBitLayer.rows", "int8.py:_Int8Module.rows", "int8.py:_Int8Module.dequantize"),
            *("int8.py:_Int8Module.product", "widening.py:rows_of", "widening.py:held_back", "widening.py:in_blocks"),
            *(f"widening.py:QuantizedLayer.{name}" for name in ("rows", "dequantize", "product")),
            "widening.py:WidenedLinear.wide",
        )
    },
    "-kernels.py:kernel_called": "published names of kernels of PyTorch mean the packed kernel there",
    "-packed_attention.py": ROWS,
    "-packing.py:Packing.full": ROWS,
    "+packing.py:bucket": "shapes are static under jax.jit, so that numbers of rows come from a short list",
    "+functional.py": TREE,
    "+placement.py:check_mesh": "meshes of JAX have axes of several types",
    "+placement.py:refuse_explicit_axes": "meshes of JAX have axes of several types",
    "+batching.py": "shapes are static under jax.jit, so that batches are padded to few lengths",
    "+sharding.py": (
        "where parameters lie is an argument of arrays here; PyTorch wraps modules and Keras sets a distribution"
    ),
    "-auto.py:AutoModelForTextEncoding": "published for PyTorch and TensorFlow only",
    "-auto.py:AutoModelWithLMHead": "published for PyTorch and TensorFlow only",
    # Layers
    "-embeddings.py:embedding": LAYERS,
    "+embeddings.py:Embedding": LAYERS,
    "-linear.py:linear": LAYERS,
    "-linear.py:is_plain": "hooks and subclasses that get in the way of a fast path exist in PyTorch alone",
    "+linear.py:LayerNorm": LAYERS,
    "+linear.py:is_loading": "a constructor draws its values itself, where nothing is about to be loaded",
    "+linear.py:accumulator": LAYERS,
    "+linear.py:dropout": "a random key is an argument here and no state of a layer",
    "-kernels.py:causal_bias": "the fused kernel of JAX takes the causal mask as part of the bias",
    "+encoder.py:EncoderModel.pool": "a part that is compiled by itself, as the heads are",
    "+plan.py:Plan": "a pytree, which goes into the compiled run and draws its biases there",
    "-encoder.py:recomputed": "jax.checkpoint takes any function, so that one place serves all ways through a layer",
    # The plan goes into the compiled run, the packing does not
    "+kernels.py:AttentionPlan.drawn": "biases are drawn inside the compiled run, from masks or from rows that came in",
    "-losses.py:_ChunkedCrossEntropy": (
        "XLA fuses the cast into the sums, so that float32 logits never exist without chunks"
    ),
    # The vocabulary projection
    "+lm_heads.py:Decoder": TIED,
    "+lm_heads.py:VocabularyModel.project": TIED,
    "-lm_heads.py:VocabularyModel.set_output_bias": TIED,
    "-resizing.py:ResizableModel.set_output_bias": TIED,
    "-values.py:ModelValues.tie_weights": TIED,
    # Parameters
    "+pretrained.py:PreTrainedModel.params": TREE,
    "+pretrained.py:PreTrainedModel.params_shape_tree": TREE,
    "+pretrained.py:PreTrainedModel.required_params": TREE,
    "+values.py:ModelValues.logical_axes": (
        "shardings are derived from the names of axes, in a tree like the parameters"
    ),
    "+pretrained.py:PreTrainedModel.to_bf16": TREE,
    "+pretrained.py:PreTrainedModel.to_fp16": TREE,
    "+pretrained.py:PreTrainedModel.to_fp32": TREE,
    "+pretrained.py:PreTrainedModel.apply": TREE,
    "+pretrained.py:PreTrainedModel.prepare": TREE,
    "-values.py:ModelValues.post_init": (
        "values are drawn into a tree, outside the model, which the base constructor then takes"
    ),
    "-values.py:ModelValues.load_state_dict": "the setter of params takes a tree",
    "-pretrained.py:PreTrainedModel.device": "parameters may lie on many devices, each says on which",
    "-pretrained.py:PreTrainedModel.enable_input_require_grads": (
        "gradients are asked for by argument, not by attribute"
    ),
    "-pretrained.py:PreTrainedModel.disable_input_require_grads": (
        "gradients are asked for by argument, not by attribute"
    ),
    # Attributes that NNX keeps, and a mode that PyTorch brings
    "+pretrained.py:PreTrainedModel.config": (
        "NNX needs attributes that can be hashed, so that the configuration is kept in a wrapper"
    ),
    "+pretrained.py:PreTrainedModel.name_or_path": "the configuration keeps it, an attribute would be one more to hash",
    "-pretrained.py:PreTrainedModel.__call__": "every class has its own, which is wrapped to word its refusals alike",
    "+pretrained.py:PreTrainedModel.train": "torch.nn.Module brings it",
    "+pretrained.py:PreTrainedModel.eval": "torch.nn.Module brings it",
    "+pretrained.py:PreTrainedModel.enable_gradient_checkpointing": "the published name in Flax",
    "+pretrained.py:PreTrainedModel.set_scan_layers": (
        "to compile one layer in place of all is for XLA, which takes long to compile"
    ),
    # Values and places
    "-inputs.py:is_traced": "a traced array shows that it is one",
    "+inputs.py:check_key": "random keys are JAX's",
    "+inputs.py:is_integer": "dtypes of NumPy and JAX are asked in one way",
    "+inputs.py:narrow": "NumPy's integers are wider than JAX's, and inputs of both kinds come",
    "+heads.py:class_labels": "labels come from NumPy as well, and stay there as long as they can",
    "-loading.py:to_torch": "named after the framework",
    "+loading.py:to_numpy": "named after the framework",
    "-values.py:tensor_at": "a tree of parameters is put together first, and then set as a whole",
    "-values.py:put": "a tree of parameters is put together first, and then set as a whole",
    "-values.py:share": TIED,
    "+values.py:Spot": "a variable of NNX has a path in the tree and a published name, and they differ",
    "+values.py:lost": "in PyTorch plain tensors are no part of the state, and every parameter has a path",
    "+values.py:spots": "a variable of NNX has a path in the tree and a published name, and they differ",
    "-encoder_decoder.py:EncoderDecoderModel.dummy_inputs": "no Flax model has it; parameters depend on no input",
    "+encoder_decoder.py:EncoderDecoderModel.encode": "published in Flax: the two sides in two calls",
    "+encoder_decoder.py:EncoderDecoderModel.decode": "published in Flax: the two sides in two calls",
    "+encoder_decoder.py:EncoderDecoderModel.init_cache": "published in Flax: a cache of a fixed size is made first",
    "+encoder_decoder.py:EncoderDecoderModel.dtype": "in which is computed; both sides are told",
    "+encoder_decoder.py:EncoderDecoderModel.set_scan_layers": "one layer is compiled for all, of both sides",
    # Schedules and collators
    "-schedules.py:get_constant_schedule": RATES,
    "-schedules.py:get_constant_schedule_with_warmup": RATES,
    "-schedules.py:get_linear_schedule_with_warmup": RATES,
    "-schedules.py:get_cosine_schedule_with_warmup": RATES,
    "-schedules.py:get_cosine_with_hard_restarts_schedule_with_warmup": RATES,
    "-schedules.py:get_polynomial_decay_schedule_with_warmup": RATES,
    "-schedules.py:get_inverse_sqrt_schedule": RATES,
    "-schedules.py:get_scheduler": RATES,
    "+schedules.py:learning_rate_schedule": RATES,
    "-collators.py:DataCollatorForLanguageModeling.torch_mask_tokens": "the published method gives tensors of PyTorch",
}
