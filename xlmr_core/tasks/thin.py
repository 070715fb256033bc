"""What the published classes of other libraries share here: how they find their pipeline, and what they refuse.

``SentenceTransformer``, ``CrossEncoder`` and ``BGEM3FlagModel`` are the names that scripts call, over the tasks of this
library. A backend gives each its ``pipeline``; all the rest is decided here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.tasks.pipeline import Pipeline
from xlmr_core.tasks.sentence_folder import SentenceFolder, prompt_called

__all__ = ["Prompted", "Thin", "as_array", "refuse", "several"]


class Thin:
    """The base of the published classes."""

    _pipeline: ClassVar[Callable[..., Pipeline]]
    """The backend's own, as a static method."""

    def _load(
        self,
        task: str,
        name_or_path: str | os.PathLike[str] | None,
        *,
        device: Any = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Make the pipeline of a task."""
        if not isinstance(name_or_path, str | os.PathLike):
            received = type(name_or_path).__name__
            raise InputError(f"expected the name or the folder of a model, received {received}; pass its name")
        where: dict[str, Any] = {"cache_dir": cache_folder, "local_files_only": local_files_only or None}
        where = {name: value for name, value in where.items() if value is not None}
        model = {**where, **(config_kwargs or {}), **(model_kwargs or {})}
        dtype = model.pop("torch_dtype", None) or model.pop("dtype", None)
        self.pipeline: Pipeline = type(self)._pipeline(
            task,
            model=name_or_path,
            tokenizer=(name_or_path, {**where, **(tokenizer_kwargs or {})}),
            device=device,
            dtype=dtype,
            revision=revision,
            token=token,
            model_kwargs=model,
            # As published, what is too long is cut without a word.
            on_overflow="truncate",
            progress=False,
            **more,
        )

    @property
    def model(self) -> Any:
        """The model."""
        return self.pipeline.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self.pipeline.tokenizer

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self.pipeline.device

    def save_pretrained(self, path: str | os.PathLike[str], **arguments: Any) -> None:
        """Write the model, its tokenizer and what stands beside them, so that the folder can be named.

        Args:
            path: the folder.
            **arguments: of the model's ``save_pretrained``.
        """
        Path(path).mkdir(parents=True, exist_ok=True)
        self.pipeline.save_pretrained(path, **arguments)

    save = save_pretrained

    def _tensor(self, array: NDArray[Any]) -> Any:
        return self.pipeline.runner.tensor(np.asarray(array, order="C"))

    def _refuse_device(self, device: Any) -> None:
        own, said = str(self.device), str(device)
        if device is not None and said not in (own, f"{own}:0", own.partition(":")[0]):
            raise InputError(
                f"the model stays on {self.device}, received device={said!r}; pass device to the constructor"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.pipeline!r})"


class Prompted(Thin):
    """A published class whose texts may have a prompt before them.

    Attributes:
        prompts: what stands before a text, by name.
        default_prompt_name: the prompt of a call that names none.
    """

    prompts: dict[str, str]
    default_prompt_name: str | None

    def _take_prompts(
        self,
        usual: Mapping[str, str],
        prompts: Mapping[str, str] | None,
        default_prompt_name: str | None,
        folder: SentenceFolder,
    ) -> None:
        """As published: a user's own prompts, those of the folder where they have other names, and the usual ones."""
        self.prompts = {**usual, **folder.prompts, **(prompts or {})}
        self.default_prompt_name = default_prompt_name or folder.default_prompt_name
        if self.default_prompt_name is not None:
            self._prompt(None, self.default_prompt_name)

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        if prompt is not None:
            return prompt
        return prompt_called(self.default_prompt_name if name is None else name, self.prompts)


def refuse(remedies: Mapping[str, str], **received: Any) -> None:
    """Refuse published arguments that ask for what is not there.

    Args:
        remedies: what to say, by argument.
        **received: what was passed; ``None`` and ``False`` ask for nothing.

    Raises:
        InputError: naming the first that asks for something.
    """
    for name, value in received.items():
        if value is not None and value is not False:
            raise InputError(f"{name} is not served, received {value!r:.80}; {remedies[name]}")


def several(received: Any, what: str) -> list[Any]:
    """A list of what a user passed, which was one thing or several.

    Raises:
        InputError: for what holds nothing that could be meant, and for a dictionary, of which only the keys would be.
    """
    if isinstance(received, Mapping) or not hasattr(received, "__iter__"):
        raise InputError(f"expected {what}, or several, received {received!r:.100}; pass a list")
    return list(received)


def as_array(numbers: Any) -> NDArray[Any]:
    """An array of what a user holds: lists, arrays, or tensors of any framework, wherever they are."""
    if isinstance(numbers, list | tuple):
        of_tensors = bool(numbers) and hasattr(numbers[0], "detach")
        return np.asarray([as_array(row) for row in numbers] if of_tensors else numbers, np.float32)
    if hasattr(numbers, "detach"):
        numbers = numbers.detach().cpu()
        numbers = numbers.float() if str(numbers.dtype) == "torch.bfloat16" else numbers
    array = np.asarray(numbers)
    return array.astype(np.float32) if array.dtype.kind not in "iufb" else array
