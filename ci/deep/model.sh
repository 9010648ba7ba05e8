#!/usr/bin/env bash
# Whole managers under chosen orders of threads: 20,000 schedules of each model.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

VRAM_MODEL_ITERATIONS=${VRAM_MODEL_ITERATIONS:-20000} bash ci/model.sh
