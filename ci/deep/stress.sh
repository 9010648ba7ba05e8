#!/usr/bin/env bash
# Many threads on one manager, for a minute.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

VRAM_RESIDENCY_STRESS_SECONDS=60 cargo test --locked --release --test stress
