"""A graph that ONNX Runtime runs: of a folder that ``xlmr export`` or another library wrote, or made now of a
checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from xlmr_core.checkpoints.found import fetch_files
from xlmr_core.checkpoints.model_files import ModelFiles, open_model
from xlmr_core.checks import Seen, check_encoder_inputs, see_array
from xlmr_core.config import AutoConfig, XLMRobertaConfig
from xlmr_core.errors import CheckpointError, InputError
from xlmr_core.formats.onnx_format import FOLDER, NAMES, ONNX
from xlmr_core.heads import HEADS, Head, head_of_class
from xlmr_core.hub import BUILT_IN, MODEL_FILES, resolve
from xlmr_core.onnx.mapped import map_values
from xlmr_core.placement import one_device, refuse_absent, refuse_device, refuse_dtype

if TYPE_CHECKING:
    from xlmr_core.onnx.in_memory import MadeNow

__all__ = ["SUFFIX", "OnnxModel", "find_graph"]

Arrays = dict[str, NDArray[Any]]

# The file of each dtype that can be asked for.
FILE_OF_DTYPE: Mapping[str, str] = {"float32": NAMES[0], "int8": NAMES[1]}
# What is fetched of a repository: the graph, its values and what describes it; of one without a graph its weights.
GRAPH_FILES = ("config.json", *(f"{FOLDER}/{name}{suffix}" for name in NAMES for suffix in ("", "_data")))
SUFFIX = ".onnx"
# Where a graph in memory finds the files that it names.
FOLDER_OF_VALUES = "session.model_external_initializers_file_folder_path"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Another library's graphs of sentence encoders call the states so.
OTHER_NAMES: Mapping[str, str] = {"last_hidden_state": "token_embeddings"}
STATES, MASKED = "last_hidden_state", "masked_positions"


class OnnxModel:
    """A model as a session of ONNX Runtime. Called with arrays, it gives arrays.

    Attributes:
        session: of ONNX Runtime.
        config: of the model.
        name_or_path: where it came from.
        inputs: names of what it takes, those that may be left out among them.
        outputs: names of what it gives.
    """

    def __init__(self, session: Any, config: XLMRobertaConfig, head: Head, name_or_path: str = "") -> None:
        self.session = session
        self.config = config
        self.name_or_path = name_or_path
        self._task_head = head
        given = (*session.get_inputs(), *session.get_overridable_initializers())
        self.inputs = tuple(port.name for port in given)
        self.outputs = tuple(port.name for port in session.get_outputs())

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        head: str | None = None,
        file_name: str | None = None,
        dtype: Any = None,
        device: Any = None,
        config: Any = None,
        threads: int | None = None,
        **where: Any,
    ) -> OnnxModel:
        """Load a graph, or make one of a checkpoint.

        Args:
            name_or_path: a folder, a graph in one, a built-in model or a name on the hub. A folder without a graph, but
                with weights of any format, is exported in memory.
            head: a suffix of ``HEADS``, where the graph or the configuration does not say it.
            file_name: of the graph in the folder, by default the first of ``onnx/model.onnx`` and
                ``onnx/model_quantized.onnx`` that is there.
            dtype: ``float32`` or ``int8``, which is the quantized file.
            device: ``cpu``, or ``cuda`` where that build of ONNX Runtime is installed.
            config: in place of the folder's own.
            threads: of one call; by default those of the variable ``OMP_NUM_THREADS``, or as many as there are cores.
            **where: as for :func:`xlmr_core.hub.resolve`.

        Raises:
            ModelNotFoundError, CheckpointError, ConfigError: if there is no such model, or it is no encoder.
            InputError: for a dtype or device that is not to be had.
        """
        tag = _dtype(dtype)
        folder, path = find_graph(name_or_path, file_name, tag, **where)
        if path is None:
            if tag == "int8":
                raise CheckpointError(
                    f"expected {FOLDER}/{NAMES[1]} in {folder}, found none; make it with: xlmr export {name_or_path} "
                    "DST --scheme int8"
                )
            with open_model(fetch_files(name_or_path, patterns=MODEL_FILES, **where), head=head) as files:
                named = replace(files, name=str(name_or_path))
                return cls.from_files(named, config=config, device=device, threads=threads)
        own = config if isinstance(config, XLMRobertaConfig) else AutoConfig.from_pretrained(config or folder)
        session = _session(os.fspath(path), path, threads, device)
        return cls(session, own, _head_of(session, own, head), str(name_or_path))

    @classmethod
    def from_files(
        cls, files: ModelFiles, *, config: Any = None, device: Any = None, threads: int | None = None
    ) -> OnnxModel:
        """The graph of an open checkpoint: its own, or one that is made now.

        Args:
            files: the checkpoint.
            config, device, threads: as of :meth:`from_pretrained`.

        Raises:
            CheckpointError: if it is no encoder, or lacks a head.
        """
        own = config if isinstance(config, XLMRobertaConfig) else files.config
        files = replace(files, config=own)
        graph: str | MadeNow = os.fspath(files.checkpoint.path)
        if files.checkpoint.format != ONNX.name:
            from xlmr_core.onnx.in_memory import made_now  # what writes graphs is imported where one is written

            graph = made_now(files)
        session = _session(graph, files.checkpoint.path, threads, device)
        assert isinstance(own, XLMRobertaConfig), "others are refused"
        return cls(session, own, HEADS[files.head], files.name)

    @property
    def device(self) -> str:
        """Where it runs."""
        return next(name for name, one in PROVIDERS.items() if one == self.session.get_providers()[0])

    @property
    def dtype(self) -> str:
        """Of what it gives."""
        return "float32"

    def __call__(self, **arrays: NDArray[Any]) -> Arrays:
        """All outputs of a call by name; see :meth:`run`."""
        return self.run(arrays)

    def run(self, arrays: Mapping[str, NDArray[Any]], wanted: Sequence[str] | None = None) -> Arrays:
        """Run a batch.

        Args:
            arrays: ``input_ids`` (B, S), of multiple choice (B, C, S), and what else the graph takes. A mask of three
                axes, all rows of a text alike, asks for the states of padding too.
            wanted: names of outputs; by default all.

        Returns:
            The outputs, float32.

        Raises:
            InputError: for inputs that no backend takes either, or an output that the graph does not give.
        """
        given = {name: np.asarray(array) for name, array in arrays.items()}
        mask = given.get("attention_mask")
        given["attention_mask"] = np.ones_like(given["input_ids"]) if mask is None else mask
        self._check(given)
        given["attention_mask"] = _two_axes(given["attention_mask"], given["input_ids"])
        places = None if MASKED in self.inputs else given.pop(MASKED, None)
        if "token_type_ids" in self.inputs and self._must_have("token_type_ids"):
            given.setdefault("token_type_ids", np.zeros_like(given["input_ids"]))
        names = {name: self._output(name) for name in wanted or self.outputs}
        feeds = {name: np.ascontiguousarray(array, np.int64) for name, array in given.items() if name in self.inputs}
        found = self.session.run(list(names.values()), feeds, _only_what_is_asked_for())
        outputs = dict(zip(names, (np.asarray(array, np.float32) for array in found), strict=True))
        if places is not None and "logits" in outputs:
            at = np.take_along_axis(outputs["logits"], np.maximum(places, 0)[:, :, None], axis=1)
            outputs["logits"] = at * (places >= 0)[:, :, None]
        return outputs

    def _must_have(self, name: str) -> bool:
        return any(port.name == name for port in self.session.get_inputs())

    def _output(self, name: str) -> str:
        other = OTHER_NAMES.get(name, name)
        found = name if name in self.outputs else other if other in self.outputs else None
        if found is None:
            raise InputError(
                f"expected a graph with the output {name}, received one with {', '.join(self.outputs)}; export the "
                "model for the task"
            )
        return found

    def _check(self, given: Arrays) -> None:
        of_choices = given["input_ids"].ndim == 3

        def seen(name: str) -> Seen | None:
            array = given.get(name)
            return see_array(name, array.reshape(-1, *array.shape[2:]) if of_choices and array is not None else array)

        check_encoder_inputs(
            self.config,
            input_ids=seen("input_ids"),
            attention_mask=seen("attention_mask"),
            token_type_ids=seen("token_type_ids"),
        )

    def save_pretrained(self, save_directory: Any, **arguments: Any) -> NoReturn:
        """Refuse: a graph is written by an export.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"a graph is not saved again, received {os.fspath(save_directory)!r}; copy the folder that it was loaded "
            "from, or write it with xlmr export"
        )


# ---- Files


def find_graph(
    name_or_path: str | os.PathLike[str], file_name: str | None = None, dtype: str | None = None, **where: Any
) -> tuple[Path, Path | None]:
    """The folder of a model, and the graph in it if there is one.

    Args:
        name_or_path: a folder, a graph in one, a built-in model or a name on the hub.
        file_name: of the graph, in place of the usual ones.
        dtype: a key of ``FILE_OF_DTYPE``, whose file is looked for alone.
        **where: as for :func:`xlmr_core.hub.resolve`.

    Raises:
        ModelNotFoundError: if there is no such model.
        CheckpointError: if there is no file of that name.
    """
    local = Path(name_or_path).expanduser()
    if local.is_file() and local.suffix != SUFFIX:
        return local, None  # weights
    if local.is_file():
        folder = local.parent
        is_inner = folder.name == FOLDER and not (folder / "config.json").is_file()
        return folder.parent if is_inner else folder, local
    names = NAMES if dtype is None else (FILE_OF_DTYPE[dtype],)
    usual = tuple(f"{before}{name}" for before in (f"{FOLDER}/", "") for name in names)
    wanted = usual if file_name is None else (file_name, f"{FOLDER}/{file_name}")
    is_on_hub = not local.is_dir() and os.fspath(name_or_path) not in BUILT_IN
    patterns = (*GRAPH_FILES, *wanted, *(f"{name}_data" for name in wanted)) if is_on_hub else None
    folder = resolve(name_or_path, patterns=patterns, **where)
    path = next((folder / name for name in wanted if (folder / name).is_file()), None)
    if path is None and file_name is not None:
        raise CheckpointError(f"expected the graph {file_name} in {folder}, found none; check the name")
    return folder, path


def _head_of(session: Any, config: XLMRobertaConfig, head: str | None) -> Head:
    said = session.get_modelmeta().custom_metadata_map.get("head", head)
    if said in HEADS:
        return HEADS[said]
    outputs = {port.name for port in session.get_outputs()}
    if not outputs & {"logits", "start_logits"}:
        return HEADS["Model"]
    for name in config.architectures or ():
        return head_of_class(name)
    raise CheckpointError(
        f"a graph with the outputs {', '.join(sorted(outputs))} does not say its head, and neither does config.json; "
        "name the architecture there"
    )


def _session(graph: str | MadeNow, path: object, threads: int | None, device: Any) -> Any:
    """A session of ONNX Runtime, whose own errors, of many classes, become a ``CheckpointError``.

    Args:
        graph: the path of a file, or one that was made in memory.
        path: what errors name.
        threads, device: as of :meth:`OnnxModel.from_pretrained`.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    said = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = threads or (int(said) if said.isdecimal() else 0)
    provider = _provider(device)
    try:
        if isinstance(graph, str):
            return onnxruntime.InferenceSession(_with_places(graph, options), options, providers=[provider])
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in graph.values.values()]
        options.add_external_initializers(list(graph.values), values)
        session = onnxruntime.InferenceSession(graph.content, options, providers=[provider])
        session.values = [*graph.values.values(), *values]  # which the session does not keep by itself
        return session
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "onnxruntime":
            raise
        said = " ".join(str(error).split())
        raise CheckpointError(f"ONNX Runtime cannot load {path}: {said[:300]}; export it again") from error


def _with_places(path: str, options: Any) -> str | bytes:
    """The graph of a file, whose values stay there if they can."""
    mapped = map_values(Path(path))
    if mapped is None:
        return path
    options.add_session_config_entry(FOLDER_OF_VALUES, os.fspath(mapped.folder))
    return mapped.graph


# ---- Settings


def _dtype(dtype: Any) -> str | None:
    name = None if dtype in (None, "auto") else str(dtype).rpartition(".")[2]
    if name is not None and name not in FILE_OF_DTYPE:
        refuse_dtype(dtype, tuple(FILE_OF_DTYPE))
    return name


def _provider(device: Any) -> str:
    found = one_device(device, None)
    name = "cpu" if found in (None, -1, "cpu", "auto") else str(found).partition(":")[0]
    name = "cuda" if name.isdecimal() else name
    if name not in PROVIDERS:
        refuse_device(device, "'cpu', -1, a GPU's number or 'cuda'")
    if PROVIDERS[name] not in onnxruntime.get_available_providers():
        refuse_absent(device, "a GPU", "ONNX Runtime", None, "onnxruntime-gpu")
    return PROVIDERS[name]


def _only_what_is_asked_for() -> Any:
    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    return options


def _two_axes(mask: NDArray[Any], ids: NDArray[Any]) -> NDArray[Any]:
    """A mask of a row a token as one of a row a text, where -1 stands for what has a state and is not attended to.

    Raises:
        InputError: if the rows of a text differ.
    """
    if mask.ndim <= ids.ndim:
        return mask
    if (mask != mask[:, :1]).any():
        raise InputError(
            "a graph takes one mask for all tokens of a text, received another for each; pass attention_mask (B, S)"
        )
    return np.where(mask[:, 0] == 0, -1, mask[:, 0])
