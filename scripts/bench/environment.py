"""The peers' Python environment: made once, kept under target/."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Libraries of the GPU, several gigabytes, that PyPI's torch is linked with and does not call on the CPU.
GPU = "cublas|cudnn|cufft|cufile|cuFile|curand|cusolver|cusparse|nccl|nvrtc|nvshmem"
GPU_LIBRARY = re.compile(rf"lib(?:{GPU})\w*\.so")
GPU_FUNCTION = re.compile(rf"\b[Uw] ((?:{GPU})\w*)@*(\S*)")


class Fault(Exception):
    """What went wrong and what to do about it, in one line."""


def prepare(folder: Path) -> Path:
    """The interpreter of the environment in `folder`, which is made where there is none or one of another list."""
    requirements = HERE / "requirements.txt"
    interpreter, stamp = folder / "bin/python", folder / "requirements.txt"
    wanted = requirements.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return interpreter
    print("compare: installing the peers (about 700 MB to fetch, once)", file=sys.stderr)
    stamp.unlink(missing_ok=True)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], "python3-venv is missing?")
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    _run([*pip, "--disable-pip-version-check", "-r", str(requirements)], "see pip's message above")
    stand_in_for_the_gpu(next(folder.glob("lib/python*/site-packages/torch/lib")))
    _run([str(interpreter), "-c", "import torch, torchio, nibabel, skimage"], "remove the folder and try again")
    stamp.write_text(wanted)
    return interpreter


def stand_in_for_the_gpu(lib: Path) -> None:
    """Puts one library into torch's folder under the names of all those of the GPU, with every function that torch
    refers to; each ends the process, so that a stray call shows."""
    binaries = sorted(lib.glob("libtorch_*.so"))
    missing = sorted({name for binary in binaries for name in _needed(binary) if GPU_LIBRARY.match(name)})
    if not missing:
        return
    versions: dict[str, set[str]] = defaultdict(set)
    for function, version in GPU_FUNCTION.findall(_output(["nm", "-D", "--undefined-only", *map(str, binaries)])):
        versions[version].add(function)
    functions = sorted(set().union(*versions.values()))
    source, script = lib / "no_gpu.c", lib / "no_gpu.map"
    source.write_text("".join(f"void {function}(void) {{ __builtin_trap(); }}\n" for function in functions))
    named = (item for item in sorted(versions.items()) if item[0])
    script.write_text("".join(f"{version} {{ {'; '.join(sorted(names))}; }};\n" for version, names in named))
    library = lib / "libno_gpu.so"
    gcc = ["gcc", "-w", "-fno-builtin", "-shared", "-fPIC", f"-Wl,--version-script={script}"]
    _run([*gcc, "-Wl,-soname,libno_gpu.so", "-o", str(library), str(source)], "apt-get install gcc")
    for name in missing:
        (lib / name).unlink(missing_ok=True)
        (lib / name).symlink_to(library.name)


def _needed(binary: Path) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.*)\]", _output(["readelf", "-d", str(binary)]))


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as fault:
        raise Fault(f"{command[0]} failed ({fault}); apt-get install binutils") from fault


def _run(command: list[str], remedy: str) -> None:
    try:
        subprocess.run(command, check=True, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError) as fault:
        raise Fault(f"{' '.join(command[:4])} ... failed; {remedy}") from fault
