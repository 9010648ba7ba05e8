#!/usr/bin/env bash
# Puts random questions to the stock fsverity tool and to the host digest, and compares the answers.
# usage: ci/fsverity-parity.sh [COUNT]      COUNT: at least 1, 500 by default
# VRAM_RESIDENCY_PARITY_SEED repeats a run.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

need fsverity fsverity
count=${1:-500}
[[ $count =~ ^[1-9][0-9]*$ ]] || { echo "error: $count is no number of questions, which is at least 1" >&2; exit 2; }
VRAM_RESIDENCY_PARITY=$count some_tests cargo test --locked -p vram-residency --test fsverity_parity \
    random_questions_to_the_stock_tool -- --exact --ignored --nocapture
