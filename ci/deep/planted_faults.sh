#!/usr/bin/env bash
# Each of the deliberate faults of ci/planted-faults.py is caught by a fast test; slices by row.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

python3 ci/planted-faults.py --slice "${1:-1}/${2:-1}"
