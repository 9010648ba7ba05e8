#!/usr/bin/env bash
# A hundred threads and every operation on one manager, for a minute on the mock and then on the stand-in for the CUDA driver.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

export VRAM_RESIDENCY_STRESS_SECONDS=60
some_tests cargo test --locked --release -p vram-residency --test suite threads:: || exit 1
VRAM_TEST_DEVICE=stand-in some_tests cargo test --locked --release -p vram-residency --test device -- soak::
