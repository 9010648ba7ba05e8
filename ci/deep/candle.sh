#!/usr/bin/env bash
# A real engine on adopted weights.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

bash ci/candle-example.sh
