"""The machine, what runs on it, and keeping everybody to the same cores."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    *("torch", "jax", "flax", "numpy", "safetensors", "sentencepiece", "tokenizers"),
    *("transformers", "sentence-transformers", "FlagEmbedding", "ctranslate2", "onnxruntime", "onnx", "onnxscript"),
    *("openvino", "nncf", "tensorflow", "keras", "keras-hub"),
)
# What decides which matrix kernels there are.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xlmr-benchmarks"


def limit_threads(threads: int) -> None:
    """Keep this process and those it starts to so many threads, and where the system can, to as many cores."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if "torch" in sys.modules:  # it has read the variables already
        sys.modules["torch"].set_num_threads(threads)


def environment(threads: int) -> dict[str, Any]:
    """What a figure depends on."""
    model, flags = _processor()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": model,
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(_memory() / 2**30, 1),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := version(name))},
        "xlmr": _revision(),
    }


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it; without them a product takes three times as long as in float32."""
    return any(flag.endswith("_bf16") for flag in _processor()[1])


def text(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return (
        f"{found['cpu']} ({' '.join(found['flags'])}), {found['threads']} threads of {found['cores']} cores, "
        f"{found['memory_gib']} GiB, {found['system']}; Python {found['python']}, {versions}; "
        f"xlmr {found['xlmr']}; {found['date']}, load at the start {found['load']}"
    )


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> tuple[str, set[str]]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    rows = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return rows.get("model name", platform.machine()), set(rows.get("flags", "").split())


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _revision() -> str:
    """The commit, and whether the library differs from it."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD").strip()
        changed = _git("status", "--porcelain", "--", "xlmr_core", "xlmr_torch", "xlmr_tf", "xlmr_flax").strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown (not a git checkout)"
    return f"{commit} with changes" if changed else commit


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
