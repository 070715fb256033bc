"""The checks of this project. ``nox`` runs those of ``SUITE`` side by side, ``nox -s NAME`` one of them, ``nox -l``
lists all.

Most sessions run in the environment that nox itself is installed in (``pip install -c constraints.txt -e
'.[all,dev]'``), so that three frameworks are installed once. ``package``, ``bench`` and the oracles make their own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import MappingProxyType

import nox

ROOT = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("XLMR_SHARED", ROOT.parent / "shared")).resolve()
ENV = {"XLMR_SHARED": str(SHARED), "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUTF8": "1"}
# Checked by `types` in strict mode; the backends are typed too, but their frameworks are not.
CORE = "xlmr_core"
# What the benchmarks compare with, beside PyTorch itself; docs/benchmarks.md says which versions its figures are of.
PEERS = (
    "transformers>=5,<6",
    "ctranslate2",
    "onnxruntime",
    "onnx",
    "onnxscript",
    "openvino",
    "nncf",
    "protobuf",
    "keras-hub",
    "sentence-transformers",
)
BACKENDS = ("torch", "tf", "flax")
SENTENCES = (
    "Plants create <mask> through a process known as photosynthesis.",
    "Bonjour, je suis un modèle <mask>.",
)

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "none"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["suite"]

# The sessions of `nox`, the longest first, so that no long one is left to run alone at the end. DEVELOP.md has their
# minutes.
SUITE = (
    *("tf", "flax", "parity(backend='flax')", "torch", "examples", "core", "parity(backend='tf')"),
    *("package", "parity(backend='torch')", "types", "lint"),
)
# Of the recipes of Keras and Flax, which differ from those of PyTorch in nouns (tests/structure/test_recipes.py) and
# compile first, the session `examples` starts these: one whose loss stands outside the model, and one of a vocabulary.
# The session `everything` starts all.
TWINS = {"tf": ("sentence_embedding",), "flax": ("masked_language_modeling",)}
WORKERS = 2
# Two sessions at a time keep two cores busy only if neither takes both.
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1"),
    **dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"), "1"),
    # What is tested is the programs: less is spent on how fast they run.
    "XLA_FLAGS": (
        "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    ),
}


@nox.session
def suite(session: nox.Session) -> None:
    """All of ``SUITE``, two at a time with a thread each: a line as each ends, and the first failure whole."""
    logs = ROOT / ".nox" / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    with ThreadPoolExecutor(WORKERS) as pool:
        running = [pool.submit(run_apart, name, logs, session.posargs) for name in SUITE]
        for number, ended in enumerate(as_completed(running), 1):
            name, passed, minutes, log = ended.result()
            session.log(f"{number} of {len(SUITE)}: {name} {'passed' if passed else 'FAILED'}, {minutes}, {log}")
            if not passed:
                if not failed:
                    print(log.read_text(encoding="utf-8", errors="replace"), flush=True)
                failed.append(name)
    if failed:
        session.error(f"failed: {', '.join(failed)}")


def run_apart(name: str, logs: Path, arguments: Sequence[str]) -> tuple[str, bool, str, Path]:
    """A session in a process of its own: its name, whether it passed, its minutes, and the log of what it said."""
    log = logs / f"{'-'.join(re.findall('[a-z]+', name.replace('backend', '')))}.log"
    command = [sys.executable, "-m", "nox", "--session", name, "--", *arguments]
    with log.open("wb") as file:
        start = time.monotonic()
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **ONE_THREAD}, stdout=file, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall, cpu = (time.monotonic() - start) / 60, (used.ru_utime + used.ru_stime) / 60
    return name, process.returncode == 0, f"{wall:.1f} minutes, {cpu:.1f} of a core", log


def python(session: nox.Session, *arguments: str, env: Mapping[str, str] = MappingProxyType({})) -> None:
    """Run this environment's Python, whether or not the environment is activated."""
    session.run(sys.executable, *arguments, env={**ENV, **env}, external=True)


def pytest(session: nox.Session, *folders: str) -> None:
    """One process for the tests of one backend; arguments after ``--`` go to pytest."""
    python(session, "-m", "pytest", *folders, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and layout."""
    python(session, "-m", "ruff", "check", ".")
    python(session, "-m", "ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types of the core, strictly."""
    python(session, "-m", "mypy", "-p", CORE)


@nox.session
def core(session: nox.Session) -> None:
    """The core, and the rules between the packages."""
    pytest(session, "tests/core", "tests/structure")


@nox.session
def torch(session: nox.Session) -> None:
    """The PyTorch backend."""
    pytest(session, "tests/torch")


@nox.session
def tf(session: nox.Session) -> None:
    """The Keras backend."""
    python(session, "-c", "import tensorflow")  # without it the tests would skip
    pytest(session, "tests/tf")


@nox.session
def flax(session: nox.Session) -> None:
    """The Flax backend."""
    python(session, "-c", "import jax")  # without it the tests would skip
    pytest(session, "tests/flax")


@nox.session
@nox.parametrize("backend", BACKENDS)
def parity(session: nox.Session, backend: str) -> None:
    """A backend against the reference, and the reference against other people's recorded numbers; a process for each
    backend.
    """
    parity_of(session, backend)


def parity_of(session: nox.Session, backend: str, env: Mapping[str, str] = MappingProxyType({})) -> None:
    of_a_backend = (
        "test_backends.py",
        "test_backends_generation.py",
        "test_backends_recorded.py",
        "test_bites.py",
        "test_dropout.py",
        "test_encoder_decoder.py",
        "test_gradients.py",
        "test_golden.py",
    )
    files = ["tests/parity"] if backend == "torch" else [f"tests/parity/{name}" for name in of_a_backend]
    python(session, "-m", "pytest", *files, *session.posargs, env={**env, "XLMR_PARITY": backend})


@nox.session
@nox.parametrize("backend", BACKENDS)
def everything(session: nox.Session, backend: str) -> None:
    """A backend without the choosing of ``tests/choice.py``: every case in every mode; not part of the default run."""
    env = {"XLMR_EVERYTHING": "1"}
    folders = [f"tests/{backend}", *(["tests/structure/test_benchmarks.py"] if backend == "torch" else [])]
    python(session, "-m", "pytest", *folders, *session.posargs, env=env)
    parity_of(session, backend, env)
    first_steps(session, *sorted((ROOT / "examples" / backend).glob("*.py")))


@nox.session
def examples(session: nox.Session) -> None:
    """Every script of examples/, as a reader would start it; the recipes in its folders take their first steps, all of
    PyTorch and ``TWINS``.
    """
    for script in sorted((ROOT / "examples").glob("*.py")):
        python(session, str(script.relative_to(ROOT)))
    recipes = sorted((ROOT / "examples").glob("*/*.py"))
    first_steps(session, *(path for path in recipes if path.stem in TWINS.get(path.parent.name, (path.stem,))))


def first_steps(session: nox.Session, *recipes: Path) -> None:
    """A few steps of recipes on little data, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="xlmr-examples-") as folder:
        for script in recipes:
            output = Path(folder, f"{script.parent.name}-{script.stem}")
            python(session, str(script.relative_to(ROOT)), "--steps", "3", "--output", str(output))


@nox.session
def fuzz(session: nox.Session) -> None:
    """What hurts, drawn at random, and a table of what came of it; not part of the default run.

    ``nox -s fuzz -- --minutes 10 --seed 1000``: what follows goes to ``python -m tests.fuzz``.
    """
    python(session, "-m", "tests.fuzz", *session.posargs, env={**ONE_THREAD, "PYTHONPATH": str(ROOT)})


def pinned(*packages: str) -> list[str]:
    """The lines of ``constraints.txt`` for these packages."""
    lines = Path("constraints.txt").read_text().splitlines()
    return [line for line in lines if line.partition("==")[0] in packages]


@nox.session(venv_backend="venv", reuse_venv=True)
def bench(session: nox.Session) -> None:
    """The benchmarks beside their peers, in an environment with these; not part of the default run, because figures
    need a quiet machine.

    ``nox -s bench -- encoder -- --rounds 9``: what follows goes to ``python -m benchmarks``.
    """
    session.install("-q", "-c", "constraints.txt", "-e", ".[torch,tf,flax]", *PEERS)
    session.run("python", "-m", "benchmarks", *session.posargs, env=ENV)


@nox.session(name="bench-flag", venv_backend="venv", reuse_venv=True)
def bench_flag(session: nox.Session) -> None:
    """``bge_m3`` beside FlagEmbedding, which takes no transformers 5."""
    session.install("-q", "-c", "constraints.txt", "-e", ".[torch]", "FlagEmbedding==1.4.2", "transformers<5")
    session.run("python", "-m", "benchmarks", "bge_m3", *session.posargs, env=ENV)


@nox.session(name="peers-4", venv_backend="venv", reuse_venv=True)
def peers_4(session: nox.Session) -> None:
    """An environment with transformers 4, the last with TensorFlow and Flax classes, for ``XLMR_TRANSFORMERS_4`` of
    ``bench``.
    """
    pins = pinned("torch", "tensorflow", "jax", "jaxlib", "flax", "optax", "numpy")
    session.install("-q", *pins, "transformers==4.57.6", "tf-keras==2.21.0")
    session.run("python", "-c", "import sys; print(f'XLMR_TRANSFORMERS_4={sys.executable}')")


@nox.session(venv_backend="venv")
def package(session: nox.Session) -> None:
    """Build, install away from the source, and do the main job there, offline and from another folder."""
    with tempfile.TemporaryDirectory(prefix="xlmr-package-") as name:
        away = Path(name).resolve()
        python(session, "-m", "hatchling", "build", "-t", "sdist", "-d", str(away / "dist"))
        (sdist,) = (away / "dist").glob("*.tar.gz")
        # The wheel comes from the sdist, so both are seen to be complete.
        wheel_options = ("-q", "--no-deps", "--no-build-isolation", "-w", str(away / "dist"))
        python(session, "-m", "pip", "wheel", *wheel_options, str(sdist))
        (wheel,) = (away / "dist").glob("*.whl")
        # Compiling all of PyTorch's Python files would take longer than all that is run here.
        session.install("-q", "--no-compile", "-c", "constraints.txt", f"{wheel}[torch]", "pytest")
        shutil.copytree(ROOT / "tests" / "package", away / "checks", ignore=shutil.ignore_patterns("__pycache__"))
        with session.chdir(away):
            session.run("python", "-P", "-m", "pytest", "checks", env={**ENV, "XLMR_SOURCE": str(ROOT)})
            session.run("xlmr", "run", "--task", "fill-mask", *SENTENCES, env=ENV)


# The newest release of what `xlmr` needs, by `nox -s newest`; where one brings a fault it is mended, or stated in
# DEVELOP.md.
NEWEST = (
    *("jax==0.12.0.1", "flax==0.12.12", "optax", "tensorflow==2.21.*", "keras==3.15.*"),
    *("numpy", "h5py", "safetensors", "sentencepiece", "tokenizers", "huggingface_hub", "tqdm"),
)
TEST_TOOLS = ("pytest", "pytest-timeout", "hypothesis")


@nox.session(python=["3.12", "3.13"], venv_backend="venv", reuse_venv=True)
def newest(session: nox.Session) -> None:
    """The core, and a smoke file of the Keras and Flax backends, with the newest versions; not part of the
    default run.
    """
    session.install("-q", "-e", ".", *NEWEST, *TEST_TOOLS)
    for file in ("tests/smoke/test_tf.py", "tests/smoke/test_flax.py", "tests/core"):
        session.run("python", "-m", "pytest", file, *session.posargs, env=ENV)


@nox.session(name="newest-torch", python=["3.12", "3.13"], venv_backend="venv", reuse_venv=True)
def newest_torch(session: nox.Session) -> None:
    """The same for PyTorch, in a session of its own: where an index has no CPU build, its wheel brings 5 GB of CUDA."""
    session.install("-q", "-e", ".[torch]", *TEST_TOOLS)
    session.run("python", "-m", "pytest", "tests/smoke/test_torch.py", *session.posargs, env=ENV)


@nox.session(name="oracle-4", venv_backend="venv", reuse_venv=True)
def oracle_4(session: nox.Session) -> None:
    """Live comparison with transformers 4.57.6 on freshly drawn configurations; it has TensorFlow's and Flax's too."""
    oracle(session, "transformers==4.57.6", "tensorflow", "jax", "jaxlib", "flax", others=("tf-keras==2.21.0",))


@nox.session(name="oracle-5", venv_backend="venv", reuse_venv=True)
def oracle_5(session: nox.Session) -> None:
    """Live comparison with transformers 5, and with bitsandbytes and PEFT behind it."""
    oracle(session, "transformers>=5,<6", others=("bitsandbytes==0.50.2", "peft"))


def oracle(session: nox.Session, transformers: str, *frameworks: str, others: Sequence[str] = ()) -> None:
    # Only frameworks are constrained: transformers 4 needs older companions than we do.
    versions = pinned("torch", *frameworks)
    session.install("-q", "-e", ".[torch]", *versions, *others, transformers, "pytest", "pytest-timeout")
    session.run("python", "-m", "pytest", "tests/parity/oracle", *session.posargs, env=ENV)


@nox.session(venv_backend="venv", reuse_venv=True)
def guests(session: nox.Session) -> None:
    """Our models in the training of other libraries, and adapters by PEFT; not part of the default run."""
    others = ("transformers>=5,<6", "accelerate", "peft", "lightning", "sentence-transformers", "datasets", "nbformat")
    session.install("-q", "-e", ".[torch,train]", *pinned("torch"), *others, "pytest", "pytest-timeout")
    files = ("tests/torch/test_guests.py", "tests/torch/test_adapters.py", "tests/structure/test_notebooks.py")
    session.run("python", "-m", "pytest", *files, *session.posargs, env=ENV)


@nox.session(venv_backend="venv", reuse_venv=True)
def clusters(session: nox.Session) -> None:
    """Answers from the workers of a local Ray and a local Spark, which needs Java; not part of the default run."""
    others = ("ray[data]==2.60.0", "pyspark>=4,<5", "pandas", "pyarrow")
    session.install("-q", "-e", ".[torch,tables]", *pinned("torch", "numpy"), *others, "pytest", "pytest-timeout")
    session.run("python", "-m", "pytest", "tests/core/jobs/test_clusters.py", *session.posargs, env=ENV)


@nox.session(venv_backend="venv", reuse_venv=True)
def clients(session: nox.Session) -> None:
    """The real clients of each dialect against a running server; not part of the default run."""
    session.install("-q", "-e", ".[torch,serve]", *pinned("torch"), "openai", "cohere", "huggingface_hub", *TEST_TOOLS)
    # One of them leaves a socket open, which Python says when it takes the process down.
    options = ("-W", "ignore::pytest.PytestUnraisableExceptionWarning", "tests/torch/test_clients.py")
    session.run("python", "-m", "pytest", *options, *session.posargs, env={**ENV, "HF_HUB_OFFLINE": "0"})


@nox.session(venv_backend="venv", reuse_venv=True)
def browser(session: nox.Session) -> None:
    """The page of the server in a Chromium of this machine, which is skipped where there is none; not part of the
    default run. With ``XLMR_PICTURES=docs/pictures`` it takes the pictures of the documents anew.
    """
    session.install("-q", "-e", ".[torch,serve]", *pinned("torch"), "playwright", *TEST_TOOLS)
    session.run("python", "-m", "pytest", "tests/browser", *session.posargs, env=ENV)


@nox.session(name="function", venv_backend="venv", reuse_venv=True)
def function(session: nox.Session) -> None:
    """The zip of a function: its size, and what it answers in how much memory and time; not part of the default run."""
    session.install("-q", "-e", ".[onnx-runtime]", "hatchling>=1.27", "pip", *TEST_TOOLS)
    session.run("python", "-m", "pytest", "tests/function", "-s", *session.posargs, env=ENV)


@nox.session(name="guests-onnx", venv_backend="venv", reuse_venv=True)
def guests_onnx(session: nox.Session) -> None:
    """Exported folders in the ONNX backend of sentence-transformers, which takes no transformers 5; not part of the
    default run.
    """
    others = ("sentence-transformers<6", "optimum-onnx[onnxruntime]", "transformers<5")
    session.install("-q", "-e", ".[onnx]", *pinned("torch"), *others, *TEST_TOOLS)
    session.run("python", "-m", "pytest", "tests/core/onnx/test_sentence_transformers.py", *session.posargs, env=ENV)


# An npm package; docs/onnx.md names the version.
TRANSFORMERS_JS = "@huggingface/transformers@4.3.1"


@nox.session
def javascript(session: nox.Session) -> None:
    """Exported folders in transformers.js, which npm fetches; skipped without node; not part of the default run."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        session.skip("node and npm are not installed")
    folder = ROOT / ".nox" / "transformers-js"
    # The package of ONNX Runtime has what a CPU needs; it would fetch what a GPU does.
    env = {"ONNXRUNTIME_NODE_INSTALL": "skip", "ONNXRUNTIME_NODE_INSTALL_CUDA": "skip"}
    options = ("--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel", "error")
    session.run("npm", "install", *options, TRANSFORMERS_JS, env=env, external=True)
    modules = {"XLMR_NODE_MODULES": str(folder / "node_modules")}
    python(session, "-m", "pytest", "tests/core/onnx/test_transformers_js.py", *session.posargs, env=modules)


# The shared test files of transformers with our classes in place of theirs: for each backend the version whose files
# and helpers are taken, what else these import, and the files of tests/peer_suite. The last with TensorFlow's and
# Flax's files is 4.51.3.
PEER_SUITE = {
    "torch": (
        "transformers==4.57.6",
        ("accelerate", "parameterized", "protobuf"),
        ("test_torch.py", "test_tokenizers.py"),
    ),
    "tf": ("transformers==4.51.3", ("tf-keras==2.21.0", "datasets"), ("test_tf.py",)),
    "flax": ("transformers==4.51.3", (), ("test_flax.py",)),
}
FRAMEWORKS = {"torch": ("torch",), "tf": ("tensorflow", "keras"), "flax": ("jax", "jaxlib", "flax")}
# Its source holds the small model that XLM-R's tokenizers were tested with.
SMALL_VOCABULARY = "sentencepiece==0.2.0"


@nox.session(name="peer-suite", venv_backend="venv", reuse_venv=True)
@nox.parametrize("backend", BACKENDS)
def peer_suite(session: nox.Session, backend: str) -> None:
    """transformers' own shared tests on our classes, with a table of what fails and why; not part of the default run.

    DEVELOP.md says how the table is read and kept. What follows ``--`` goes to pytest.
    """
    transformers, helpers, files = PEER_SUITE[backend]
    session.install("-q", "-e", f".[{backend}]", *pinned(*FRAMEWORKS[backend]), transformers, *helpers)
    session.install("-q", "pytest", "pytest-timeout", "setuptools", "wheel")
    env = {**ENV, "XLMR_PEER_SUITE": str(unpacked(session, transformers, SMALL_VOCABULARY))}
    folder = Path("tests", "peer_suite")
    options = ("-c", str(folder / "pytest.ini"), *(str(folder / file) for file in files))
    session.run("python", "-m", "pytest", *options, *session.posargs, env=env)


def unpacked(session: nox.Session, *packages: str) -> Path:
    """The folder that holds the archives of sources of these packages, unpacked; the index gives them, once."""
    folder = ROOT / ".nox" / "peer-suite-archives"
    for package in packages:
        name = package.replace("==", "-")
        if not (folder / name).is_dir():
            # Metadata are asked of an archive's own setup.py, which is why setuptools and wheel are installed.
            options = ("-q", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-d", str(folder))
            session.run_install("python", "-m", "pip", "download", *options, package)
            with tarfile.open(folder / f"{name}.tar.gz") as file:
                file.extractall(folder, filter="data")
    return folder
