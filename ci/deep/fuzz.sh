#!/usr/bin/env bash
# What parses foreign input, ten minutes for each target; slices by target, and begins with what was found before.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

slice=${1:-1} slices=${2:-1}
mapfile -t targets < <(bash ci/fuzz.sh --list | awk -v k="$slice" -v n="$slices" 'NR % n == k % n')
[ "${#targets[@]}" -gt 0 ] || skip fuzz "slice $slice of $slices has no target"
# A seed of its own, so that a run does not ask what the last one asked.
env PROPTEST_RNG_SEED="$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')" \
    VRAM_RESIDENCY_FUZZ_FOUND="${VRAM_RESIDENCY_FUZZ_FOUND:-$target/deep/fuzz}" \
    bash ci/fuzz.sh "${VRAM_RESIDENCY_FUZZ_SECONDS:-600}" "${targets[@]}"
