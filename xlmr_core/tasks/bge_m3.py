"""``BGEM3FlagModel`` as scripts call it, over the task sentence-embedding: three kinds of vectors from one pass.

Arguments and results are those of FlagEmbedding, but that all three kinds are given unless a call leaves one out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.tasks.task import check_texts, pair_of_texts
from xlmr_core.tasks.thin import Thin, as_array, refuse, several
from xlmr_core.tasks.vectors import normalized

__all__ = ["BGEM3FlagModel"]

Weights: TypeAlias = Mapping[str, float]

# Published keys of an answer, by the words of the task.
KEYS = {"dense": "dense_vecs", "sparse": "lexical_weights", "colbert": "colbert_vecs"}
# Of compute_score, in the order of its weights.
MODES = ("dense", "sparse", "colbert")
# Pairs that are scored together, and their passages padded to the longest of them, as published.
PADDED = 256
_NOT_SERVED = {
    "colbert_dim": "the projection beside the weights says how many numbers a vector has",
    "pooling_method": "bge-m3 takes the first token",
    "convert_to_numpy": "leave it out: vectors are arrays",
}


class BGEM3FlagModel(Thin):
    """bge-m3: a vector for a text, a weight for each of its word pieces, and a vector for each of its tokens.

    Args:
        model_name_or_path: a folder or a name on the hub, with ``sparse_linear`` and ``colbert_linear`` beside the
            weights.
        normalize_embeddings: whether vectors have length one.
        use_fp16, use_bf16: half precision on a GPU, bfloat16 before float16; on the CPU float32.
        query_instruction_for_retrieval, query_instruction_format: what stands before the texts of
            :meth:`encode_queries`, and how.
        passage_instruction_for_retrieval, passage_instruction_format: the same of :meth:`encode_corpus`.
        devices: where to run: one device.
        pooling_method, colbert_dim: must be left as they are.
        trust_remote_code: of the published signature.
        cache_dir: where downloads are kept.
        batch_size: texts that run together, those of similar length; by default as many as make 4096 tokens.
        query_max_length, passage_max_length: tokens of a text at most, where a call says nothing.
        return_dense, return_sparse, return_colbert_vecs: what :meth:`encode` gives where a call says nothing.
        truncate_dim: numbers of a vector, dense or of a token, at most.
        convert_to_numpy: must be left as it is.
        device: the older name of ``devices``.
        revision, token: of a name on the hub.
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str],
        normalize_embeddings: bool = True,
        use_fp16: bool = True,
        use_bf16: bool = False,
        query_instruction_for_retrieval: str | None = None,
        query_instruction_format: str = "{}{}",
        devices: Any = None,
        pooling_method: str = "cls",
        trust_remote_code: bool = False,
        cache_dir: str | None = None,
        colbert_dim: int = -1,
        batch_size: int | None = None,
        query_max_length: int = 512,
        passage_max_length: int = 512,
        return_dense: bool = True,
        return_sparse: bool = True,
        return_colbert_vecs: bool = True,
        truncate_dim: int | None = None,
        *,
        passage_instruction_for_retrieval: str | None = None,
        passage_instruction_format: str = "{}{}",
        convert_to_numpy: bool = True,
        device: Any = None,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> None:
        refuse(
            _NOT_SERVED,
            colbert_dim=None if colbert_dim == -1 else colbert_dim,
            pooling_method=None if pooling_method == "cls" else pooling_method,
            convert_to_numpy=None if convert_to_numpy else "no arrays",
        )
        devices = device if devices is None else devices
        if isinstance(devices, list | tuple):
            if len(devices) != 1:
                raise InputError(f"expected one device, received {len(devices)}; run a process for each")
            devices = devices[0]
        on_cpu = devices is None or str(devices) in ("cpu", "-1")
        half = "bfloat16" if use_bf16 else "float16" if use_fp16 else None
        self._load(
            "sentence-embedding",
            model_name_or_path,
            device=devices,
            cache_folder=cache_dir,
            revision=revision,
            token=token,
            model_kwargs={"dtype": half} if half and not on_cpu else None,
        )
        self.normalize_embeddings = normalize_embeddings
        self.query_instruction_for_retrieval = query_instruction_for_retrieval
        self.query_instruction_format = query_instruction_format
        self.passage_instruction_for_retrieval = passage_instruction_for_retrieval
        self.passage_instruction_format = passage_instruction_format
        self.truncate_dim = truncate_dim
        self.batch_size = batch_size
        self.query_max_length = query_max_length
        self.passage_max_length = passage_max_length
        self.return_dense = return_dense
        self.return_sparse = return_sparse
        self.return_colbert_vecs = return_colbert_vecs

    def encode(
        self,
        sentences: Any,
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
        *,
        instruction: str | None = None,
        instruction_format: str = "{}{}",
        convert_to_numpy: bool | None = None,
    ) -> dict[str, Any]:
        """The vectors of texts.

        Args:
            sentences: a text, or several.
            batch_size: texts that run together.
            max_length: tokens of a text at most.
            return_dense, return_sparse, return_colbert_vecs: what is given.
            instruction, instruction_format: what stands before each text, and how.
            convert_to_numpy: of the published signature.

        Returns:
            ``dense_vecs``, an array (n, D); ``lexical_weights``, a dictionary of ids and weights for each text;
            ``colbert_vecs``, an array (S, D) for each text; ``None`` for what was left out. Of one text each without
            the list around it.

        Raises:
            InputError: for what is no text, or a model without the projections.
        """
        chosen = {
            "dense": self.return_dense if return_dense is None else return_dense,
            "sparse": self.return_sparse if return_sparse is None else return_sparse,
            "colbert": self.return_colbert_vecs if return_colbert_vecs is None else return_colbert_vecs,
        }
        wanted = tuple(name for name, is_wanted in chosen.items() if is_wanted)
        single = isinstance(sentences, str)
        texts = [sentences] if single else several(sentences, "a text")
        if instruction is not None:
            check_texts(texts)
            how = instruction_format.replace("\\n", "\n")  # as published
            texts = [how.format(instruction, text) for text in texts]
        answers = self._vectors(texts, wanted, batch_size, max_length or self.passage_max_length) if wanted else []
        found: dict[str, Any] = {}
        for name, key in KEYS.items():
            column = [answer[name] for answer in answers] if name in wanted else None
            if column is None or not single:
                found[key] = np.array(column) if column is not None and name == "dense" else column
            else:
                found[key] = column[0]
        return found

    def encode_queries(
        self, queries: Any, batch_size: int | None = None, max_length: int | None = None, *more: Any, **wanted: Any
    ) -> dict[str, Any]:
        """As :meth:`encode`, behind the instruction for queries."""
        before = {
            "instruction": self.query_instruction_for_retrieval,
            "instruction_format": self.query_instruction_format,
        }
        return self.encode(queries, batch_size, max_length or self.query_max_length, *more, **{**before, **wanted})

    def encode_corpus(
        self, corpus: Any, batch_size: int | None = None, max_length: int | None = None, *more: Any, **wanted: Any
    ) -> dict[str, Any]:
        """As :meth:`encode`, behind the instruction for passages if there is one."""
        before = {
            "instruction": self.passage_instruction_for_retrieval,
            "instruction_format": self.passage_instruction_format,
        }
        return self.encode(corpus, batch_size, max_length or self.passage_max_length, *more, **{**before, **wanted})

    def _vectors(
        self, texts: Sequence[str], outputs: Sequence[str], batch_size: int | None, max_length: int
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.pipeline(
            list(texts),
            outputs=tuple(outputs),
            batch_size=batch_size or self.batch_size,
            max_length=max_length,
            prompt="",
            pooling="cls",
            normalize=self.normalize_embeddings,
        )
        if self.truncate_dim is None:
            return found
        return [{name: self._cut(value) for name, value in answer.items()} for answer in found]

    def _cut(self, vectors: Any) -> Any:
        if isinstance(vectors, dict):
            return vectors
        vectors = vectors[..., : self.truncate_dim]
        return normalized(vectors) if self.normalize_embeddings else vectors

    def compute_score(
        self,
        sentence_pairs: Sequence[Any],
        batch_size: int | None = None,
        max_query_length: int | None = None,
        max_passage_length: int | None = None,
        weights_for_different_modes: Sequence[float] | None = None,
    ) -> Any:
        """How well passages answer queries, by each kind of vectors and by all together.

        Args:
            sentence_pairs: pairs of a query and a passage, or one.
            batch_size: pairs that are scored together, 256 if nothing is said; as published, where a passage is padded
                to the longest of them, a token of the query that is like none of its tokens counts as zero.
            max_query_length, max_passage_length: tokens at most; by default ``query_max_length`` and
                ``passage_max_length``.
            weights_for_different_modes: of dense, sparse and colbert; by default the same.

        Returns:
            ``colbert``, ``sparse``, ``dense``, ``sparse+dense`` and ``colbert+sparse+dense``, each a list, or of one
            pair a number; of no pairs an empty list.

        Raises:
            InputError: for other than pairs of texts, or three weights.
        """
        weights = [1.0, 1.0, 1.0] if weights_for_different_modes is None else list(weights_for_different_modes)
        if len(weights) != len(MODES) or not sum(weights) > 0:
            raise InputError(f"expected three weights, of {', '.join(MODES)}, received {weights}; pass three numbers")
        pairs = several(sentence_pairs, "a pair of texts")
        if not pairs:
            return []  # as published
        single = isinstance(pairs[0], str)
        pairs = [pair_of_texts(pair, index) for index, pair in enumerate([pairs] if single else pairs)]
        size = batch_size or self.batch_size or PADDED
        queries = self._vectors(
            [pair[0] for pair in pairs], MODES, batch_size, max_query_length or self.query_max_length
        )
        passages = self._vectors(
            [pair[1] for pair in pairs], MODES, batch_size, max_passage_length or self.passage_max_length
        )
        scores: dict[str, list[float]] = {
            name: [] for name in ("colbert", "sparse", "dense", "sparse+dense", "colbert+sparse+dense")
        }
        dense_weight, sparse_weight, colbert_weight = weights
        for index, (query, passage) in enumerate(zip(queries, passages, strict=True)):
            beside = passages[index - index % size : index - index % size + size]
            is_padded = len(passage["colbert"]) < max(len(other["colbert"]) for other in beside)
            dense = float(query["dense"] @ passage["dense"])
            sparse = self.compute_lexical_matching_score(query["sparse"], passage["sparse"])
            colbert = _colbert(query["colbert"], passage["colbert"], is_padded)
            both = sparse * sparse_weight + dense * dense_weight
            two = sparse_weight + dense_weight
            scores["colbert"].append(colbert)
            scores["sparse"].append(sparse)
            scores["dense"].append(dense)
            scores["sparse+dense"].append(both / two if two else float("nan"))
            scores["colbert+sparse+dense"].append((both + colbert * colbert_weight) / sum(weights))
        return {name: values[0] for name, values in scores.items()} if single else scores

    def compute_lexical_matching_score(
        self, lexical_weights_1: Weights | Sequence[Weights], lexical_weights_2: Weights | Sequence[Weights]
    ) -> Any:
        """The sum of the products of the weights that both have: a number, or of lists an array (n, m)."""
        if isinstance(lexical_weights_1, Mapping) and isinstance(lexical_weights_2, Mapping):
            other = lexical_weights_2
            return float(
                sum(float(weight) * float(other[name]) for name, weight in lexical_weights_1.items() if name in other)
            )
        if isinstance(lexical_weights_1, Mapping) or isinstance(lexical_weights_2, Mapping):
            raise InputError("expected two dictionaries or two lists of them, received one of each; pass two of a kind")
        return np.array(
            [
                [self.compute_lexical_matching_score(one, other) for other in lexical_weights_2]
                for one in lexical_weights_1
            ]
        )

    def colbert_score(self, q_reps: Any, p_reps: Any) -> float:
        """The mean over the tokens of a query (S, D) of the most alike token of a passage (M, D)."""
        return _colbert(as_array(q_reps), as_array(p_reps), is_padded=False)

    def convert_id_to_token(self, lexical_weights: Weights | Sequence[Weights]) -> Any:
        """The weights by the text of each piece in place of its id; pieces with the same text are one, the last.

        As published, a list of one is answered as what is in it.
        """
        if isinstance(lexical_weights, Mapping):
            return {self.tokenizer.decode([int(token)]): weight for token, weight in lexical_weights.items()}
        found = [self.convert_id_to_token(weights) for weights in lexical_weights]
        return found[0] if len(found) == 1 else found


def _colbert(query: NDArray[Any], passage: NDArray[Any], is_padded: bool) -> float:
    best = (query @ passage.T).max(axis=1)
    return float(np.maximum(best, 0).mean() if is_padded else best.mean())
