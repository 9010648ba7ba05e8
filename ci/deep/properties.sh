#!/usr/bin/env bash
# The random cases anew, with a seed of their own.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

env -u PROPTEST_RNG_SEED cargo test --locked --lib --test suite -- tests:: properties::
