"""Who may import whom: read from the source, and proved by a process that imports and looks."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = "xlmr_core"

# What a backend may import beside the standard library, the core and itself.
BACKENDS = {
    "xlmr_torch": {"torch", "numpy"},
    "xlmr_tf": {"tensorflow", "keras", "optree", "numpy"},
    "xlmr_flax": {"jax", "jaxlib", "flax", "optax", "numpy"},
}
# What a single module of a backend may import, where it is asked for what that library does.
BACKENDS_ONLY_IN = {"peft": "xlmr_torch.adapters", "orbax": "xlmr_flax.training_state"}
# What the core may import: anywhere, and a single module only.
CORE_ANYWHERE = {"numpy"}
CORE_ONLY_IN = {
    "h5py": {"xlmr_core.formats.h5_file"},
    "safetensors": {"xlmr_core.formats.safetensors_file"},
    "sentencepiece": {"xlmr_core.tokenization.slow", "xlmr_core.tokenization.pipeline"},
    "tokenizers": {
        *(f"xlmr_core.tokenization.{name}" for name in ("deferred", "fast", "pipeline", "read_apart")),
    },
    "huggingface_hub": {"xlmr_core.hub", "xlmr_core.uploads"},
    "tqdm": {"xlmr_core.progress"},
    "argcomplete": {"xlmr_core.cli.completion"},
    "onnxruntime": {"xlmr_core.onnx.model"},
    "pyarrow": {"xlmr_core.jobs.parquet_file"},
    "sklearn": {"xlmr_core.training.metrics"},
    "scipy": {"xlmr_core.training.metrics"},
    "seqeval": {"xlmr_core.training.metrics"},
    "matplotlib": {"xlmr_core.training.curves"},
    "starlette": {"xlmr_core.serving.app"},
    "uvicorn": {"xlmr_core.serving.server"},
    "h11": {"xlmr_core.serving.server"},
    "prometheus_client": {"xlmr_core.serving.metrics"},
}
# Inside the core a module imports from rows above its own, or from its own entry. Types for checkers only are exempt.
LAYERS = (
    ("wording",),
    ("elsewhere", "errors"),
    ("bounded_files",),
    ("adapters", "arguments", "atomic_files", "hub_answers", "importing", "placement", "positions", "progress"),
    ("protobuf",),
    ("hub", "uploads"),
    ("config_checks",),
    ("config_base",),
    ("config_encoder_decoder",),
    ("config", "outputs"),
    ("cache", "heads", "pretrained", "resizing"),
    ("parameters", "checks", "losses"),
    ("calls", "generation", "head_checks", "quantization"),
    ("encoder_decoder", "packing"),
    ("formats",),
    ("backends", "reference"),
    ("tokenization",),
    ("checkpoints", "own_classes"),
    ("checkpoint", "loading"),
    ("inspection", "probe"),
    ("verification",),
    ("conversion", "diagnosis"),
    ("tasks",),
    ("onnx", "pipelines"),
    ("jobs",),
    ("training",),
    ("serving",),
    ("serverless",),
    ("cli",),
    ("__main__",),
)
# Who imports by a name in a string: the one door from the core to a backend, and the table of tasks its own modules.
BY_NAME = {
    "xlmr_core.backends": {"importlib.import_module"},
    "xlmr_core.importing": {"importlib.import_module"},
    "xlmr_core.tasks": {"pkgutil.resolve_name"},
}


class Import(NamedTuple):
    module: str  # who imports
    target: str  # what
    line: int
    for_types: bool  # under ``if TYPE_CHECKING``


def modules(package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


def imports(package: str) -> list[Import]:
    """Every import in the source, also those inside functions."""
    found = []
    for module, path in modules(package):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for_types = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
            for statement in node.body
            for inner in ast.walk(statement)
        }
        for node in ast.walk(tree):
            targets = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: absolute imports only"
                assert node.module is not None
                # `from xlmr_core import cli` imports the module xlmr_core.cli.
                modules_here = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [name if is_module(name) else node.module for name in modules_here]
            found += [Import(module, target, node.lineno, id(node) in for_types) for target in dict.fromkeys(targets)]
    return found


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def root_of(name: str) -> str:
    return name.partition(".")[0]


def layer_of(module: str) -> tuple[int, str]:
    """The row of a core module in the table, and its entry there."""
    entry = module.removeprefix(f"{CORE}.").partition(".")[0]
    for row, entries in enumerate(LAYERS):
        if entry in entries:
            return row, entry
    raise AssertionError(f"{module} has no place in LAYERS; say where it belongs")


# From the source


def test_every_package_is_seen() -> None:
    packages = {path.parent.name for path in ROOT.glob("xlmr_*/__init__.py")}
    assert packages == {CORE, *BACKENDS}
    assert len(list(modules(CORE))) > 20


def test_the_core_imports_no_framework_and_each_library_in_one_place() -> None:
    for entry in imports(CORE):
        root = root_of(entry.target)
        if root in sys.stdlib_module_names or root in {CORE, *CORE_ANYWHERE}:
            continue
        assert root in CORE_ONLY_IN, f"{entry.module}:{entry.line} imports {entry.target}"
        assert entry.module in CORE_ONLY_IN[root], (
            f"{entry.module}:{entry.line}: {root} belongs in {CORE_ONLY_IN[root]}"
        )


@pytest.mark.parametrize("package", BACKENDS)
def test_a_backend_imports_the_core_and_its_framework_only(package: str) -> None:
    for entry in imports(package):
        root = root_of(entry.target)
        allowed = root in sys.stdlib_module_names or root in {CORE, package, *BACKENDS[package]}
        allowed = allowed or entry.module == BACKENDS_ONLY_IN.get(root)
        assert allowed, f"{entry.module}:{entry.line} imports {entry.target}"


def test_nothing_in_the_core_imports_upwards() -> None:
    checked = 0
    for entry in imports(CORE):
        if root_of(entry.target) != CORE or entry.for_types or CORE in (entry.module, entry.target):
            continue
        (row, name), (target_row, target_name) = layer_of(entry.module), layer_of(entry.target)
        below = target_row < row or target_name == name
        assert below, f"{entry.module}:{entry.line} imports {entry.target}, which stands beside it or above it"
        checked += 1
    assert checked > 50


def test_the_table_of_layers_names_what_there_is() -> None:
    entries = [entry for row in LAYERS for entry in row]
    there = {module.split(".")[1] for module, _ in modules(CORE) if module != CORE}
    assert sorted(entries) == sorted(there)


def test_the_core_reaches_backends_through_one_door() -> None:
    for module, path in modules(CORE):
        uses = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith(("import_module", "__import__", "resolve_name"))
        }
        assert uses <= BY_NAME.get(module, set()), module


# From the process

LOADED = """
import json, sys
before = set(sys.modules)
{code}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "jaxlib", "flax", "transformers", "optax"}
PROTOBUF = "google.protobuf"


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(code=code)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def third_party(names: set[str]) -> set[str]:
    return {root_of(name) for name in names} - set(sys.stdlib_module_names) - {CORE}


def test_importing_the_core_imports_no_other_package() -> None:
    loaded = loaded_by("import xlmr_core")
    assert third_party(loaded) == set()
    heavy = {"xlmr_core.backends", "xlmr_core.checkpoints", "xlmr_core.tokenization", "asyncio", "http.client"}
    assert not {*heavy, "tempfile", "inspect"} & loaded, "light"


def test_the_core_imports_tokenizers_when_one_is_asked_for() -> None:
    light = loaded_by("import xlmr_core; assert 'AutoTokenizer' in dir(xlmr_core)")
    assert "xlmr_core.tokenization" not in light
    loaded = loaded_by("from xlmr_core import AutoTokenizer, XLMRobertaTokenizer, XLMRobertaTokenizerFast")
    assert "xlmr_core.tokenization" in loaded and not {root_of(name) for name in loaded} & {*FRAMEWORKS, *BACKENDS}


def test_importing_everything_in_the_core_imports_no_framework_and_no_protobuf() -> None:
    names = [module for module, _ in modules(CORE) if not module.endswith("__main__")]
    loaded = loaded_by("\n".join(f"import {name}" for name in names))
    assert set(names) <= loaded | {CORE}
    assert not {root_of(name) for name in loaded} & {*FRAMEWORKS, *BACKENDS, "huggingface_hub"}
    assert PROTOBUF not in loaded


def test_using_the_core_imports_no_framework_and_no_protobuf(shared: Path) -> None:
    model = shared / "fixtures" / "tasks" / "fill_mask"
    code = f"""
from xlmr_core.checkpoints.found import open_checkpoint
from xlmr_core.checkpoints.load_plan import plan_load
from xlmr_core.config import AutoConfig
from xlmr_core.tokenization import XLMRobertaTokenizer, XLMRobertaTokenizerFast
config = AutoConfig.from_pretrained({str(model)!r})
plan_load(config, "ForMaskedLM", open_checkpoint({str(model)!r}))
for kind in (XLMRobertaTokenizer, XLMRobertaTokenizerFast):
    kind.from_pretrained({str(model)!r})("a text", return_tensors="np")
"""
    loaded = loaded_by(code)
    assert not {root_of(name) for name in loaded} & {*FRAMEWORKS, *BACKENDS, "huggingface_hub"}
    assert PROTOBUF not in loaded


@pytest.mark.parametrize("package", BACKENDS)
def test_importing_a_backend_imports_no_other_framework(package: str) -> None:
    framework = {"xlmr_torch": "torch", "xlmr_tf": "tensorflow", "xlmr_flax": "jax"}[package]
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    # What the framework brings by itself is not ours to answer for.
    loaded = {root_of(name) for name in loaded_by(f"import {package}") - loaded_by(f"import {framework}")}
    assert package in loaded
    others = FRAMEWORKS - BACKENDS[package]
    assert not loaded & {*others, *(set(BACKENDS) - {package}), "huggingface_hub", "tokenizers", "sentencepiece"}
