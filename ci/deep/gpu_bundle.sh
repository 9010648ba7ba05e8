#!/usr/bin/env bash
# What is taken to a GPU machine builds, is small enough, and needs nothing but the C library.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

bash ci/gpu-bundle.sh --plain --sanitizer
