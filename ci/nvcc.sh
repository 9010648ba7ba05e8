#!/usr/bin/env bash
# Fetches nvcc 13.0 and what shows its machine code (Python wheels) into .tools/ (or $VRAM_RESIDENCY_TOOLS), and prints nvcc's path:
#   NVCC=$(ci/nvcc.sh) cargo build --features cuda
# Needs python3 with venv, and g++ to use it. Its images need a driver of version 580 or later; for drivers from 525 build with a
# CUDA 12.x toolkit (NVCC, CUDA_HOME).
set -euo pipefail
cd "$(dirname "$0")/.."

home=${VRAM_RESIDENCY_TOOLS:-$PWD/.tools}/cuda-13.0
packages=(nvidia-cuda-nvcc==13.0.* nvidia-nvvm==13.0.* nvidia-cuda-crt==13.0.* nvidia-cuda-runtime==13.0.*
    nvidia-cuda-cccl==13.0.* nvidia-cuda-cuobjdump==13.2.* nvidia-cuda-nvdisasm==13.2.*)
if [ ! -e "$home/complete" ]; then
    rm -rf "$home"
    python3 -m venv "$home/venv" >&2
    "$home/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$home/site-packages" "${packages[@]}" >&2
    touch "$home/complete"
fi
nvcc=$(find "$home" -path '*/nvidia/cu13/bin/nvcc' -type f)
"$nvcc" --version >/dev/null
echo "$nvcc"
