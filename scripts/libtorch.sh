#!/usr/bin/env bash
# Puts libtorch into .libtorch/ of the checkout: lib/, include/ and build-version, which is all that tch asks for.
# The parts come from the pinned wheels of PyPI. A finished folder carries a stamp and is left alone; an interrupted run
# keeps the wheels that arrived whole in .libtorch/.part and the next run goes on from there.
set -euo pipefail

usage="usage: scripts/libtorch.sh [--cpu | --cuda]
  --cpu   the CPU parts only (0.5 GB on disk)
  --cuda  the full CUDA set (4 GB on disk)
Without a flag: CUDA where an NVIDIA driver is present, otherwise what is there already, otherwise CPU."

version=2.13.0
# package==version, approximate size in MB, platform tag of its wheel (without the machine's name) on x86_64, on aarch64.
# The versions are those that torch 2.13.0 itself and its cuda-toolkit==13.0.3 require.
cpu_wheels="
torch==$version 527 manylinux_2_28 manylinux_2_28
nvidia-cuda-runtime==13.0.96 2 manylinux2014 manylinux2014
nvidia-cuda-cupti==13.0.85 11 manylinux_2_25 manylinux_2_25"
cuda_wheels="
nvidia-cublas==13.1.1.3 423 manylinux_2_27 manylinux_2_27
nvidia-cuda-nvrtc==13.0.88 90 manylinux2010 manylinux2014
nvidia-cudnn-cu13==9.20.0.48 366 manylinux_2_27 manylinux_2_27
nvidia-cufft==12.0.0.61 214 manylinux2014 manylinux2014
nvidia-cufile==1.15.1.6 1 manylinux2014 manylinux_2_27
nvidia-curand==10.4.0.35 60 manylinux_2_27 manylinux_2_27
nvidia-cusolver==12.0.4.66 201 manylinux_2_27 manylinux_2_27
nvidia-cusparse==12.6.3.3 146 manylinux2014 manylinux2014
nvidia-cusparselt-cu13==0.8.1 170 manylinux2014 manylinux2014
nvidia-nccl-cu13==2.29.7 206 manylinux_2_18 manylinux_2_18
nvidia-nvjitlink==13.0.88 41 manylinux2010 manylinux2014
nvidia-nvshmem-cu13==3.4.5 60 manylinux2014 manylinux2014
nvidia-nvtx==13.0.85 1 manylinux1 manylinux2014"

fail() {
    echo "libtorch: $*" >&2
    exit 1
}

say() {
    echo "libtorch: $*" >&2
}

has_nvidia_driver() {
    [[ -e /proc/driver/nvidia/version ]] || { command -v nvidia-smi && nvidia-smi -L; } >/dev/null 2>&1
}

flavour=auto
for argument in "$@"; do
    case $argument in
    --cpu) flavour=cpu ;;
    --cuda) flavour=cuda ;;
    -h | --help) echo "$usage" && exit 0 ;;
    *) echo "$usage" >&2 && exit 2 ;;
    esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
home=$PWD/.libtorch
part=$home/.part
stamp=$home/.stamp
machine=$(uname -m)
have=$(cat "$stamp" 2>/dev/null || true)

if [[ $flavour == auto ]]; then
    if has_nvidia_driver || [[ $have == "$version cuda $machine" ]]; then flavour=cuda; else flavour=cpu; fi
fi
want="$version $flavour $machine"
if [[ $have == "$want" ]]; then
    say "$version ($flavour) is in place"
    exit 0
fi

[[ $(uname -s) == Linux ]] || fail "the wheels are fetched for Linux only; put libtorch $version into .libtorch/ by hand"
case $machine in
x86_64 | aarch64) ;;
*) fail "there is no libtorch wheel for $machine; put libtorch $version into .libtorch/ by hand" ;;
esac
command -v python3 >/dev/null || fail "python3 is missing; apt-get install python3 python3-pip"
python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing; apt-get install python3-pip"

mkdir -p "$part/wheels"
exec 9>"$home/.lock"
if command -v flock >/dev/null && ! flock -n 9; then
    say "another run is at work; waiting for it"
    flock 9
    if [[ $(cat "$stamp" 2>/dev/null) == "$want" ]]; then exit 0; fi
fi

wheels=$cpu_wheels
needed_mb=1700
if [[ $flavour == cuda ]]; then
    wheels+=$cuda_wheels
    needed_mb=8000
fi
free_mb=$(($(df -Pk "$home" | awk 'NR == 2 { print $4 }') / 1024))
((free_mb >= needed_mb)) ||
    fail "needs $needed_mb MB of disk while it unpacks, $free_mb MB are free in $PWD; make room or use --cpu"

# pip writes to TMPDIR first, and /tmp may be small. A wheel appears in wheels/ only when it is whole.
fetch() {
    local requirement=$1 megabytes=$2 platform=$3
    local kept=$part/wheels/$requirement
    [[ ! -e $kept ]] || return 0
    say "fetching $requirement (about $megabytes MB)"
    rm -rf "$part/get" "$part/tmp"
    mkdir -p "$part/get" "$part/tmp"
    local bar=on
    [[ -t 2 ]] || bar=off
    TMPDIR=$part/tmp python3 -m pip download --quiet --no-deps --no-cache-dir --disable-pip-version-check \
        --progress-bar "$bar" --only-binary=:all: --python-version 3.12 --platform "${platform}_$machine" \
        --dest "$part/get" "$requirement" >&2 ||
        fail "$requirement could not be fetched; see pip's message above, then run scripts/libtorch.sh again"
    mv "$part/get"/*.whl "$kept"
}

while read -r requirement megabytes on_x86_64 on_aarch64; do
    [[ -n $requirement ]] || continue
    if [[ $machine == x86_64 ]]; then platform=$on_x86_64; else platform=$on_aarch64; fi
    fetch "$requirement" "$megabytes" "$platform" </dev/null
done <<<"$wheels"

say "unpacking"
rm -rf "$part/tmp" "$part/get" "$part/new"
# shellcheck disable=SC2046  # one word for each wheel
python3 - "$flavour" "$part" $(awk 'NF { print $1 }' <<<"$wheels") <<'PYTHON' || fail "run scripts/libtorch.sh again"
import ctypes, os, shutil, sys, zipfile

flavour, part, requirements = sys.argv[1], sys.argv[2], sys.argv[3:]
lib, new = os.path.join(part, "new", "lib"), os.path.join(part, "new")
os.makedirs(lib)


def destination(name):
    """Where a file of a wheel belongs, or None for what is not needed."""
    base = os.path.basename(name)
    if name.startswith("torch/include/") and not name.endswith("/"):
        return os.path.join(new, name[len("torch/"):])
    if not (base.endswith(".so") or ".so." in base):
        return None
    if name.startswith(("torch/lib/", "torch.libs/")):
        unused = ("libtorch_python", "libshm") + (() if flavour == "cuda" else ("libtorch_cuda", "libtorch_nvshmem"))
        return None if base.startswith(unused) else os.path.join(lib, base)
    # All of libtorch searches its own folder ($ORIGIN), so NVIDIA's libraries lie beside it.
    if name.startswith("nvidia/"):
        wanted = flavour == "cuda" or base in ("libcudart.so.13", "libcupti.so.13")
        return os.path.join(lib, base) if wanted else None
    return None


for requirement in requirements:
    path = os.path.join(part, "wheels", requirement)
    try:
        with zipfile.ZipFile(path) as wheel:
            for entry in wheel.infolist():
                target = destination(entry.filename)
                if target is None:
                    continue
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with wheel.open(entry) as source, open(target, "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                if target.startswith(lib):
                    os.chmod(target, 0o755)
    except zipfile.BadZipFile as fault:
        os.remove(path)
        sys.exit("libtorch: %s arrived damaged (%s) and was removed" % (requirement, fault))

try:
    ctypes.CDLL(os.path.join(lib, "libtorch_cpu.so"))
except OSError as fault:
    sys.exit("libtorch: the unpacked library does not load: %s" % fault)
PYTHON
echo "$version" >"$part/new/build-version"
echo "$want" >"$part/new/.stamp"

# The stamp goes first and comes back last, so that a half-exchanged folder is never taken for a finished one.
rm -f "$stamp"
rm -rf "${home:?}/lib" "$home/include" "$home/build-version"
mv "$part/new/lib" "$part/new/include" "$part/new/build-version" "$home/"
mv "$part/new/.stamp" "$stamp"
rm -rf "$part"

# torch-sys asks the linker for libtorch_cuda.so if it saw one when it was built.
if [[ $have == *" cuda "* && $flavour == cpu ]] && command -v cargo >/dev/null; then
    cargo clean --quiet -p torch-sys || true
    cargo clean --quiet --release -p torch-sys || true
fi
say "$version ($flavour) is in place"
