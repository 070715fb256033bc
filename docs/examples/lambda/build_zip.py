"""Build the zip of a function for AWS Lambda: the package, ONNX Runtime and an exported model.

    python docs/examples/lambda/build_zip.py MODEL function.zip --task fill-mask

Run it with the Python version of the function's runtime, on Linux and on the function's kind of processor: wheels of
this machine go into the zip. What a function never imports is left out; what it imports is compiled, as Lambda's folder
cannot be written. Lambda takes 250 MiB unpacked; more belongs into a container (Dockerfile beside this file).
"""

from __future__ import annotations

import argparse
import compileall
import py_compile
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from xlmr_core.onnx import export

ROOT = Path(__file__).resolve().parents[3]
MOST_BYTES = 250 * 1024 * 1024
# Beside a program: tests, headers, command lines, and tools of ONNX Runtime for other work.
LEFT_OUT = (
    *("bin", "**/tests", "**/testing", "**/include", "**/*.pyi", "**/__pycache__", "numpy/f2py", "numpy/random/lib"),
    *("onnxruntime/tools", "onnxruntime/transformers", "onnxruntime/quantization", "onnxruntime/backend"),
)
# Of the built-in model the function needs nothing once it has one of its own.
BUILT_IN = "xlmr_core/data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a folder, a built-in model or a name on the hub")
    parser.add_argument("zip", type=Path, help="where the zip goes")
    parser.add_argument("--task", help="what the model is for (default: what it says)")
    parser.add_argument("--scheme", help="int8 for weights in bytes")
    parser.add_argument("--package", default=str(ROOT), help="what pip installs (default: this checkout)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="xlmr-function-") as name:
        folder = Path(name, "function")
        install(folder, asked.package)
        export(asked.model, folder / "model", task=asked.task, scheme=asked.scheme)
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"unpacked  {total / 2**20:.1f} MiB of {MOST_BYTES / 2**20:.0f}")
        if total > MOST_BYTES:
            sys.exit("too large for a zip: choose a smaller model or --scheme int8, or build the container")
        pack(folder, asked.zip)
    print(f"{asked.zip}  {asked.zip.stat().st_size / 2**20:.1f} MiB")
    print("handler   xlmr_core.serverless.handler, with XLMR_MODEL=model and XLMR_TASK of the model")


def install(folder: Path, package: str) -> None:
    """Put the package and what it needs into a folder, without what is left out, compiled."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(folder)]
    constraints = ROOT / "constraints.txt"
    subprocess.run([*command, "--constraint", str(constraints), f"{package}[onnx-runtime]"], check=True)
    for pattern in (*LEFT_OUT, BUILT_IN):
        for path in sorted(folder.glob(pattern), reverse=True):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    # Times of files do not survive a zip, so that nothing may depend on them.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(folder, quiet=1, invalidation_mode=mode, stripdir=str(folder), prependdir="/var/task")


def pack(folder: Path, target: Path) -> None:
    """Zip a folder: the same content gives the same bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as file:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(str(path.relative_to(folder)), (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            file.writestr(entry, path.read_bytes())


if __name__ == "__main__":
    main()
