# shellcheck shell=bash
# What the check scripts share. Source it; it changes into the repository's root.
# shellcheck disable=SC2034

set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
target=${CARGO_TARGET_DIR:-$root/target}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/vram-residency
# Where .ci/run puts the programs of ci/tools.txt.
PATH=$cache/tools/bin:$PATH
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
host=x86_64-unknown-linux-gnu

# skip NAME REASON: ends a step that cannot run here. It never counts as passed.
SKIP=77
skip() {
    echo "SKIPPED $1: $2"
    exit "$SKIP"
}

# readme NAME: the command that README.md gives after `<!-- NAME-command -->`, so that what is documented is what runs.
readme() { sed -n "/^<!-- $1-command -->\$/,/^\`\`\`\$/p" README.md | sed '1,2d;$d' | grep .; }

# run_steps PREFIX NAME…: runs the functions PREFIX_NAME, each on its own, with `set -e`, and prints a table.
run_steps() {
    local prefix=$1 name status began passed=0 failed=() table=() logs=$target/$1-logs
    mkdir -p "$logs"
    for name in "${@:2}"; do
        declare -F "${prefix}_$name" >/dev/null || { echo "error: no $prefix $name; --list names them" >&2; exit 2; }
    done
    for name in "${@:2}"; do
        echo "=== $name"
        began=$SECONDS
        (set -e; "${prefix}_$name") 2>&1 | tee "$logs/$name.log"
        status=${PIPESTATUS[0]}
        case $status in
            0) table+=("passed   $name, $((SECONDS - began)) s") passed=$((passed + 1)) ;;
            "$SKIP") table+=("$(tail -n 1 "$logs/$name.log")") ;;
            *) table+=("FAILED   $name, $((SECONDS - began)) s") failed+=("$name") ;;
        esac
    done
    for name in "${failed[@]}"; do
        printf '\n=== the end of %s, which failed (all of it: %s)\n' "$name" "$logs/$name.log"
        tail -n 40 "$logs/$name.log"
    done
    printf '%s\n' "" "${table[@]}"
    echo "$prefix result: $passed passed, ${#failed[@]} failed, $(($# - 1 - passed - ${#failed[@]})) skipped, $SECONDS s"
    # What skips itself has shown nothing.
    [ "${#failed[@]}" -eq 0 ] && [ "$passed" -gt 0 ]
}
