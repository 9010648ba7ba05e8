#!/usr/bin/env bash
# Removes each ordering wait of the library, one at a time, and demands that a test notices: ci/removed-waits.sh [NAME…]
# (no NAME: all of them; --list names them). What it changes is a copy of the tree; see ci/removed-waits.py.
# covers: VER-10
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 ci/removed-waits.py "$@"
