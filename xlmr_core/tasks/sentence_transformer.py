"""``SentenceTransformer`` as scripts call it, over the task sentence-embedding.

Arguments and results are those of sentence-transformers 6.2: its own prompts ``query`` and ``document`` are empty where
a folder names none; ``truncate_dim`` cuts after the model's own normalization, and ``normalize_embeddings`` gives what
was cut length one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from xlmr_core.errors import InputError
from xlmr_core.tasks.sentence_folder import read_sentence_folder
from xlmr_core.tasks.thin import Prompted, as_array, refuse, several
from xlmr_core.tasks.vectors import PRECISIONS, SIMILARITIES, normalized, pairwise, quantized, similarity

__all__ = ["SentenceTransformer"]

_NOT_SERVED = {
    "modules": "pass the name of a folder, whose modules.json is read",
    "backend": "leave it out: the package that the class is imported from runs the model",
    "trust_remote_code": "no code from a checkpoint is run",
    "pool": "run several processes, each with a part of the texts",
}


class SentenceTransformer(Prompted):
    """A model that makes vectors of texts.

    Args:
        model_name_or_path: a folder or a name on the hub; folders of every version of sentence-transformers are read.
        modules: must be ``None``.
        device: where to run; see ``pipeline``.
        prompts: what stands before a text, by name; before the folder's.
        default_prompt_name: the prompt of a call that names none.
        similarity_fn_name: ``cosine``, ``dot``, ``euclidean`` or ``manhattan``; by default the folder's.
        cache_folder, revision, local_files_only, token: of a name on the hub.
        trust_remote_code, use_auth_token, model_card_data: of the published signature.
        truncate_dim: numbers of a vector; a call can say otherwise.
        model_kwargs, processor_kwargs, config_kwargs: of ``from_pretrained`` of the model and the tokenizer.
        tokenizer_kwargs: the older name of ``processor_kwargs``.
        backend: must be left as it is.

    Attributes:
        prompts, default_prompt_name, similarity_fn_name, truncate_dim: as of the arguments.
        max_seq_length: tokens of a text at most, prompt and special tokens counted.
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        modules: Any = None,
        device: Any = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        use_auth_token: str | bool | None = None,
        truncate_dim: int | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        model_card_data: Any = None,
        backend: str = "torch",
        *,
        processor_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        refuse(_NOT_SERVED, modules=modules, backend=None if backend == "torch" else backend)
        token = token if use_auth_token is None else use_auth_token
        where = {"cache_dir": cache_folder, "revision": revision, "local_files_only": local_files_only, "token": token}
        folder = read_sentence_folder(model_name_or_path or "", **where)
        processor_kwargs = tokenizer_kwargs if processor_kwargs is None else processor_kwargs
        self._load(
            "sentence-embedding",
            model_name_or_path,
            device=device,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
            token=token,
            model_kwargs=model_kwargs,
            tokenizer_kwargs=processor_kwargs,
            config_kwargs=config_kwargs,
            beside=folder,
        )
        self._take_prompts({"query": "", "document": ""}, prompts, default_prompt_name, folder)
        self.similarity_fn_name = similarity_fn_name or folder.similarity
        self.truncate_dim = truncate_dim
        config = self.pipeline.runner.config
        said = (processor_kwargs or {}).get("model_max_length") or folder.max_seq_length
        self.max_seq_length = int(min(said or self.tokenizer.model_max_length, config.max_tokens))
        self._folder = folder

    @property
    def similarity_fn_name(self) -> str:
        """How vectors are compared; also set by a member of an enumeration whose value is the name."""
        return self._similarity

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: Any) -> None:
        name = getattr(name, "value", name)
        if name not in SIMILARITIES:
            raise InputError(f"similarity_fn_name must be one of {', '.join(SIMILARITIES)}, received {name!r}")
        self._similarity: str = name

    def encode(
        self,
        sentences: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: Any = None,
        chunk_size: int | None = None,
        *,
        inputs: Any = None,
        task: str | None = None,
    ) -> Any:
        """Make vectors of texts.

        Args:
            sentences: a text, or several.
            prompt_name, prompt: what stands before each text, by its name or itself.
            batch_size: texts that run together, those of similar length; by default as many as make 4096 tokens.
            show_progress_bar: show how much is done.
            output_value: ``sentence_embedding``, or ``token_embeddings`` for the states of all tokens.
            precision: of the vectors: float32, int8, uint8, binary or ubinary.
            convert_to_numpy, convert_to_tensor: one array, one tensor, or else a list of tensors.
            device: must be the model's.
            normalize_embeddings: give all vectors length one.
            truncate_dim: numbers of a vector at most.
            pool: must be ``None``.
            chunk_size, task: of the published signature.
            inputs: another name of ``sentences``.

        Returns:
            (n, D), or (D,) of one text; of the tokens a list of tensors (S, D), or one.

        Raises:
            InputError: for a prompt that the model does not have, and what is no text.
        """
        refuse(_NOT_SERVED, pool=pool)
        self._refuse_device(device)
        if output_value not in ("sentence_embedding", "token_embeddings"):
            raise InputError(
                f"output_value must be 'sentence_embedding' or 'token_embeddings', received {output_value!r}"
            )
        precision = "float32" if precision is None else precision
        if precision not in PRECISIONS:
            raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, received {precision!r}")
        sentences = inputs if sentences is None else sentences
        single = isinstance(sentences, str)
        asked: dict[str, Any] = {
            "prompt": self._prompt(prompt, prompt_name),
            "max_length": self.max_seq_length,
            "batch_size": batch_size,
            "progress": bool(show_progress_bar),
        }
        texts = [sentences] if single else several(sentences, "a text")
        if not texts:  # as published, whatever the precision
            if output_value == "token_embeddings" or not (convert_to_tensor or convert_to_numpy):
                return []
            nothing = np.zeros(0, np.float32)
            return self._tensor(nothing) if convert_to_tensor else nothing
        if output_value == "token_embeddings":
            found = [self._tensor(one["tokens"]) for one in self.pipeline(texts, outputs=("tokens",), **asked)]
            return found[0] if single else found
        vectors = self.pipeline(texts, **asked)
        size = self.truncate_dim if truncate_dim is None else truncate_dim
        vectors = vectors if size is None else vectors[..., :size]
        vectors = normalized(vectors) if normalize_embeddings else vectors
        vectors = quantized(vectors, precision)
        if convert_to_tensor:
            return self._tensor(vectors[0] if single else vectors)
        if convert_to_numpy:
            return vectors[0] if single else vectors
        rows = [self._tensor(vector) for vector in vectors]
        return rows[0] if single else rows

    def encode_query(
        self,
        sentences: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *more: Any,
        **arguments: Any,
    ) -> Any:
        """As :meth:`encode`, with the prompt ``query`` if none is said."""
        usual = "query" if prompt is None and prompt_name is None else prompt_name
        return self.encode(sentences, usual, prompt, *more, **arguments)

    def encode_document(
        self,
        sentences: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *more: Any,
        **arguments: Any,
    ) -> Any:
        """As :meth:`encode`, with the prompt ``document`` if none is said."""
        usual = "document" if prompt is None and prompt_name is None else prompt_name
        return self.encode(sentences, usual, prompt, *more, **arguments)

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """With this, :meth:`encode` gives so many numbers."""
        before, self.truncate_dim = self.truncate_dim, truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    truncate_sentence_embeddings = truncate_embeddings

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """How alike each of some vectors (n, D) is with each of others (m, D): a tensor (n, m)."""
        return self._tensor(similarity(as_array(embeddings1), as_array(embeddings2), self.similarity_fn_name))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """How alike each vector (n, D) is with that in its place: a tensor (n,), or () of two vectors (D,)."""
        first, second = as_array(embeddings1), as_array(embeddings2)
        found = pairwise(first, second, self.similarity_fn_name)
        return self._tensor(found[0] if first.ndim == second.ndim == 1 else found)

    def get_embedding_dimension(self) -> int:
        """Numbers of a vector."""
        vector = np.zeros(self.pipeline.runner.config.hidden_size * max(len(self._folder.pooling), 1), np.float32)
        for layer in self._folder.layers:
            vector = layer(vector)
        return min(len(vector), self.truncate_dim or len(vector))

    get_sentence_embedding_dimension = get_embedding_dimension

    def get_max_seq_length(self) -> int:
        """Tokens of a text at most."""
        return self.max_seq_length

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        """Ids and masks of texts, as tensors; too long ones are cut."""
        encoded = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_seq_length, return_tensors="np"
        )
        return {name: self._tensor(array) for name, array in encoded.items()}
