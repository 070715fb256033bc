"""``CrossEncoder`` as scripts call it, over what the task rerank does with a pair.

Arguments and results are those of sentence-transformers 6.2: with one label scores go through a sigmoid unless the
model's files or the call say otherwise, with several they are the model's numbers. A prompt stands before the first
text of a pair.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xlmr_core.errors import InputError
from xlmr_core.tasks.activations import activation_called
from xlmr_core.tasks.pipeline import Pipeline
from xlmr_core.tasks.rerank import PAIR_SCORES, activation_of, read_pair
from xlmr_core.tasks.sentence_folder import read_sentence_folder
from xlmr_core.tasks.thin import Prompted, refuse, several

__all__ = ["CrossEncoder"]

_NOT_SERVED = {
    "modules": "pass the name of a folder",
    "keep_in_fp32_modules": "leave it out: scores of any model are made in float32",
    "backend": "leave it out: the package that the class is imported from runs the model",
    "pool": "run several processes, each with a part of the pairs",
}


class CrossEncoder(Prompted):
    """A model that reads two texts together.

    Args:
        model_name_or_path: a folder or a name on the hub.
        num_labels: of the head; by default the checkpoint's.
        max_length: tokens of a pair at most; of what is too long the longer text is cut first.
        activation_fn: what makes scores of numbers: a name, a function of an array, or a module of PyTorch that is
            known by the name of its class; by default what the model's files say, or a sigmoid where there is one
            label.
        device: where to run; see ``pipeline``.
        cache_folder, revision, local_files_only, token: of a name on the hub.
        trust_remote_code, model_card_data: of the published signature.
        model_kwargs, processor_kwargs, config_kwargs: of ``from_pretrained`` of the model and the tokenizer.
        backend, modules, keep_in_fp32_modules: must be left as they are.
        prompts, default_prompt_name: what stands before the first text of a pair, by name, and which does where a call
            names none; before those of the folder.
        tokenizer_kwargs, default_activation_function, automodel_args, tokenizer_args, config_args, cache_dir: the older
            names.

    Attributes:
        prompts, default_prompt_name, activation_fn: as of the arguments.
        max_seq_length, max_length: tokens of a pair at most, by both names.
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str],
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: Any = None,
        device: Any = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        model_card_data: Any = None,
        backend: str = "torch",
        *,
        processor_kwargs: Mapping[str, Any] | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        modules: Any = None,
        keep_in_fp32_modules: Any = None,
        default_activation_function: Any = None,
        automodel_args: Mapping[str, Any] | None = None,
        tokenizer_args: Mapping[str, Any] | None = None,
        config_args: Mapping[str, Any] | None = None,
        cache_dir: str | None = None,
    ) -> None:
        refuse(
            _NOT_SERVED,
            modules=modules,
            keep_in_fp32_modules=keep_in_fp32_modules or None,
            backend=None if backend == "torch" else backend,
        )
        cache_folder = cache_dir if cache_folder is None else cache_folder
        where = {"cache_dir": cache_folder, "revision": revision, "local_files_only": local_files_only, "token": token}
        folder = read_sentence_folder(model_name_or_path or "", **where)
        processor_kwargs = tokenizer_kwargs if processor_kwargs is None else processor_kwargs
        config_kwargs = config_args if config_kwargs is None else config_kwargs
        labels = {} if num_labels is None else {"num_labels": num_labels}
        self._load(
            "text-classification",
            model_name_or_path,
            device=device,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
            token=token,
            model_kwargs=automodel_args if model_kwargs is None else model_kwargs,
            tokenizer_kwargs=tokenizer_args if processor_kwargs is None else processor_kwargs,
            config_kwargs={**labels, **(config_kwargs or {})},
        )
        loaded = self.pipeline
        self.pipeline = Pipeline(
            PAIR_SCORES, loaded.runner, loaded.tokenizer, beside=folder, on_overflow="truncate", progress=False
        )
        self.config = loaded.runner.config
        own = self.tokenizer.model_max_length if max_length is None else max_length
        self.max_seq_length = int(min(own, self.config.max_tokens))
        chosen = default_activation_function if activation_fn is None else activation_fn
        self.activation_fn = activation_of(self.config, folder) if chosen is None else chosen
        activation_called(self.activation_fn)
        self._take_prompts({}, prompts, default_prompt_name, folder)

    @property
    def num_labels(self) -> int:
        """Labels of the head."""
        return int(self.config.num_labels)

    @property
    def max_length(self) -> int:
        """``max_seq_length``."""
        return self.max_seq_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        self.max_seq_length = value

    def predict(
        self,
        sentences: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: Any = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
        *,
        activation_fct: Any = None,
        num_workers: int | None = None,
        inputs: Any = None,
    ) -> Any:
        """The scores of pairs of texts.

        Args:
            sentences: pairs, or one.
            prompt_name, prompt: what stands before the first text of each pair, by its name or itself.
            batch_size: pairs that run together, those of similar length; by default as many as make 4096 tokens.
            show_progress_bar: show how much is done.
            activation_fn: in place of the model's; see the constructor.
            apply_softmax: make chances of the scores of several labels.
            convert_to_numpy, convert_to_tensor: one array, one tensor, or else a list of tensors.
            device: must be the model's.
            pool: must be ``None``.
            chunk_size, num_workers: of the published signatures.
            activation_fct: the older name of ``activation_fn``.
            inputs: another name of ``sentences``.

        Returns:
            (n,), or (n, K) with several labels; of one pair a number, or (K,).

        Raises:
            InputError: for a prompt that the model does not have, and naming the first that is no pair of texts.
        """
        refuse(_NOT_SERVED, pool=pool)
        self._refuse_device(device)
        before = self._prompt(prompt, prompt_name)
        sentences = inputs if sentences is None else sentences
        pairs = several(sentences, "a pair of texts")
        single = bool(pairs) and isinstance(pairs[0], str)
        pairs = [pairs] if single else pairs
        if before:
            both = (read_pair(pair, index) for index, pair in enumerate(pairs))
            pairs = [(before + first, second) for first, second in both]
        numbers = self.pipeline(
            pairs,
            max_length=self.max_seq_length,
            batch_size=batch_size,
            progress=bool(show_progress_bar),
        )
        scores = np.array(numbers, np.float32).reshape(len(numbers), self.num_labels)
        chosen = activation_fct if activation_fn is None else activation_fn
        scores = activation_called(self.activation_fn if chosen is None else chosen)(scores)
        scores = activation_called("softmax")(scores) if apply_softmax and self.num_labels > 1 else scores
        scores = np.asarray(scores, np.float32)
        scores = scores[..., 0] if self.num_labels == 1 and scores.ndim == 2 else scores
        if convert_to_tensor:
            return self._tensor(scores)[0] if single else self._tensor(scores)
        rows = scores if convert_to_numpy else [self._tensor(score) for score in scores]
        return rows[0] if single else rows

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: Any = None,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
        *,
        activation_fct: Any = None,
        num_workers: int | None = None,
        apply_softmax: bool = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
    ) -> list[dict[str, Any]]:
        """Documents in the order in which they answer a query.

        Args:
            query: a text.
            documents: several.
            top_k: how many of them.
            return_documents: whether each has its ``text``.
            prompt_name, prompt, batch_size, show_progress_bar, activation_fn, device, pool, activation_fct: as of
                :meth:`predict`.
            chunk_size, num_workers, apply_softmax, convert_to_numpy, convert_to_tensor: of the published signatures;
                scores are numbers.

        Returns:
            ``[{"corpus_id", "score"[, "text"]}]``, best first.

        Raises:
            InputError: for a model with several labels.
        """
        if self.num_labels != 1:
            raise InputError(f"rank needs a model with one label, received {self.num_labels} labels; use predict")
        documents = several(documents, "a document")
        scores = self.predict(
            [[query, document] for document in documents],
            prompt_name,
            prompt,
            batch_size,
            show_progress_bar,
            activation_fn,
            device=device,
            pool=pool,
            activation_fct=activation_fct,
        ).tolist()
        order = sorted(range(len(scores)), key=lambda index: -scores[index])[:top_k]
        return [
            {
                "corpus_id": index,
                "score": scores[index],
                **({"text": documents[index]} if return_documents else {}),
            }
            for index in order
        ]
