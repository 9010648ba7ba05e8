#!/usr/bin/env bash
# Obtains nvcc 13.0 and the tools that show machine code from Python wheels, into .tools/ (or $VRAM_RESIDENCY_TOOLS), and
# prints nvcc's path. Does nothing but print when they are there already.
#
#   NVCC=$(ci/nvcc.sh) cargo build --features cuda
#
# Needs python3 with venv, a network, and a host compiler (g++) to use it. Images made by nvcc 13.0 need a driver of version 580 or
# later. For drivers from 525 build with a CUDA 12.x toolkit instead (set NVCC or CUDA_HOME): 12.8 and later know all six
# architectures, older ones are built without those that they do not know.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(nvidia-cuda-nvcc==13.0.* nvidia-nvvm==13.0.* nvidia-cuda-crt==13.0.* nvidia-cuda-runtime==13.0.*
    nvidia-cuda-cccl==13.0.* nvidia-cuda-cuobjdump==13.2.* nvidia-cuda-nvdisasm==13.2.*)
tools=${VRAM_RESIDENCY_TOOLS:-$PWD/.tools}
home=$tools/cuda-13.0

find_nvcc() { find "$1" -path '*/nvidia/cu13/bin/nvcc' -type f 2>/dev/null | head -n 1; }

if [ ! -e "$home/complete" ]; then
    command -v python3 >/dev/null || { echo "error: python3 is missing; install it (Debian package: python3-venv)" >&2; exit 1; }
    mkdir -p "$tools"
    # Beside its final place, then moved: a half-made folder is never mistaken for a whole one, and two runs do not mix.
    fresh=$(mktemp -d "$tools/cuda-13.0.XXXXXX")
    trap 'rm -rf "$fresh"' EXIT
    {
        python3 -m venv "$fresh/venv"
        "$fresh/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$fresh/site-packages" "${packages[@]}"
        rm -rf "$fresh/venv"
        [ -x "$(find_nvcc "$fresh")" ] || { echo "error: the wheels hold no nvcc" >&2; exit 1; }
        touch "$fresh/complete"
    } >&2
    rm -rf "$home"
    mv -T "$fresh" "$home" 2>/dev/null || [ -e "$home/complete" ]
    trap - EXIT
fi
nvcc=$(find_nvcc "$home")
"$nvcc" --version >/dev/null || { echo "error: $nvcc does not run; remove $home and try again" >&2; exit 1; }
echo "$nvcc"
