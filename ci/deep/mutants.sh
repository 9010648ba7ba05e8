#!/usr/bin/env bash
# No small change to the library's deciding modules goes unnoticed by the tests; slices by mutant, and goes on where it was stopped.
# covers: ASR-3
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

cargo_tool cargo-mutants || exit 1
python3 ci/mutants.py --slice "${1:-1}/${2:-1}" --minutes "${VRAM_RESIDENCY_MUTANTS_MINUTES:-55}"
