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

# cargo_tool cargo-NAME: is it there, and of the version that ci/tools.txt says?
cargo_tool() {
    local version
    version=$(sed -nE "s/^(deep )?$1 //p" ci/tools.txt)
    [ "$(cargo "${1#cargo-}" --version 2>/dev/null | tr ' ' '\n' | tail -n 1)" = "$version" ] && return
    echo "error: $1 $version is missing: cargo install --locked --version $version $1" >&2
    return 1
}

# advisory_database: makes cargo-deny's database of advisories ready, and sets $deny_config to a configuration that names it. It is
# fetched, or, for a machine without network, unpacked from a bundled copy.
advisory_database() {
    local bundled=${VRAM_RESIDENCY_ADVISORY_DB:-../shared/data/advisory-db.sh}
    local cache=${XDG_CACHE_HOME:-$HOME/.cache}/vram-residency/advisory-db
    deny_config=$target/deny-with-database.toml
    mkdir -p "$target"
    sed "s#^\[advisories\]\$#&\ndb-path = \"$cache\"#" deny.toml >"$deny_config" || return 1
    if [ -f "$bundled" ]; then
        bash "$bundled" "$cache"
    else
        cargo deny --config "$deny_config" fetch db || return "$SKIP"
    fi
}

# worker: builds the release worker and sets $worker to its path.
worker() {
    cargo build --release --locked --bin vram-worker || exit 1
    # shellcheck disable=SC2034
    worker=$target/release/vram-worker
}

# some_tests COMMAND...: runs tests and shows what they say. Fails also when none ran: for cargo's test programs that is a success,
# so that a test which has another name since would never be missed.
some_tests() {
    local said status
    said=$(mktemp) || return 1
    "$@" 2>&1 | tee "$said"
    status=${PIPESTATUS[0]}
    if [ "$status" -eq 0 ] && ! grep -qE '^test result: ok\. [1-9]' "$said"; then
        echo "error: no test ran: $*" >&2
        status=1
    fi
    rm -f "$said"
    return "$status"
}

# check NAME COMMAND...: runs it, counts it in $passed or $failed, and shows the end of what a failed one said. Its output stays in
# $out/log.
check() {
    local name=$1
    shift
    # shellcheck disable=SC2154
    if "$@" >"$out/log" 2>&1; then
        passed=$((passed + 1))
        echo "ok      $name"
    else
        failed=$((failed + 1))
        echo "FAILED  $name"
        tail -n 60 "$out/log"
    fi
}
