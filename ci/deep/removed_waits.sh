#!/usr/bin/env bash
# Each ordering of the device code is needed: taken out, a test fails.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

bash ci/removed-waits.sh
