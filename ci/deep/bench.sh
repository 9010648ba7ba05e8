#!/usr/bin/env bash
# The speeds that the requirements name.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

status=0
for bench in host_digest fixed_cost; do
    cargo bench --locked --bench "$bench" -- --check || status=1
done
cargo bench --locked --bench batch --no-run || exit 1
taskset -c 0 cargo bench --locked --bench batch -- --check || status=1
exit "$status"
