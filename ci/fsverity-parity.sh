#!/bin/sh
# Puts random questions to the stock fsverity tool and to the host digest, and compares the answers.
# usage: ci/fsverity-parity.sh [COUNT]      COUNT: at least 1, 500 by default
# VRAM_RESIDENCY_PARITY_SEED repeats a run.
set -eu
cd "$(dirname "$0")/.."
command -v fsverity >/dev/null || { echo "fsverity is not installed: apt-get install fsverity" >&2; exit 1; }
VRAM_RESIDENCY_PARITY=${1:-500} exec cargo test -p vram-residency --test fsverity_parity \
    random_questions_to_the_stock_tool -- --exact --ignored --nocapture
