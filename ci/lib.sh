# shellcheck shell=bash
# What the check scripts share. Source it; it changes into the repository's root.

set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
target=${CARGO_TARGET_DIR:-$root/target}
# Exit status of a check that could not run here. It never counts as passed.
# shellcheck disable=SC2034
SKIP=77

# skip WHAT REASON: says by name what did not run and leaves.
skip() {
    echo "SKIPPED $1: $2"
    exit "$SKIP"
}

# need COMMAND PACKAGE: a missing tool is an error that says what to install.
need() {
    command -v "$1" >/dev/null 2>&1 && return
    echo "error: $1 is missing; install it (Debian package: $2)" >&2
    exit 1
}

# worker: builds the release worker and sets $worker to its path.
worker() {
    cargo build --release --locked --bin vram-worker || exit 1
    # shellcheck disable=SC2034
    worker=$target/release/vram-worker
}
