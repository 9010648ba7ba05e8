#!/usr/bin/env bash
# Checks that take too long for every run, each of at most an hour:
#   ci/deep.sh                  lists the parts
#   ci/deep.sh PART…            runs them, one after the other
#   ci/deep.sh PART K/N         runs the Kth of N slices of a part that can be cut (its file says so)
#   ci/deep.sh --table          prints what has been run: commit, part, slice, result, duration, last line, and whether the code that
#                               is examined (CODE below) is still as it was in that commit
# A part is a file ci/deep/PART.sh: its first comment says what it shows. It resumes where it was stopped if its file says so. A
# part that cannot run here ends as SKIPPED, by name, and never as passed.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

CODE=(src cuda worker/src build.rs Cargo.toml Cargo.lock ':!src/**tests.rs' ':!src/**tests/**')
results=${VRAM_RESIDENCY_DEEP_RESULTS:-$target/deep/results.tsv}
logs=$target/deep/logs
mkdir -p "$logs" "$(dirname "$results")"

list() {
    local file
    for file in ci/deep/*.sh; do
        printf '%-18s %s\n' "$(basename "$file" .sh)" "$(sed -n 's/^# //p' "$file" | head -n 1)"
    done
}

table() {
    local row commit
    [ -f "$results" ] || { echo "nothing has been run: $results does not exist" >&2; return 1; }
    while IFS= read -r row; do
        commit=$(cut -f 2 <<<"$row")
        case $commit in
            commit) printf '%s\tcode since\n' "$row" ;;
            *+changes) printf '%s\tnot known\n' "$row" ;;
            *)
                if ! git rev-parse -q --verify "$commit^{commit}" >/dev/null; then printf '%s\tnot known\n' "$row"
                elif git diff --quiet "$commit" -- "${CODE[@]}"; then printf '%s\tthe same\n' "$row"
                else printf '%s\tchanged\n' "$row"; fi
                ;;
        esac
    done <"$results" | column -t -s $'\t'
}

case ${1:-} in
    "") list && exit 0 ;;
    --table) table; exit ;;
esac

# What ran: the commit, and whether the tree had changes besides.
commit=$(git rev-parse --short HEAD)
[ -z "$(git status --porcelain --untracked-files=no)" ] || commit=$commit+changes

parts=() slices=()
while [ $# -gt 0 ]; do
    part=${1//-/_}
    [ -f "ci/deep/$part.sh" ] || { echo "error: no part $1; there are:" >&2; list >&2; exit 2; }
    parts+=("$part")
    if [[ ${2:-} =~ ^([0-9]+)/([0-9]+)$ ]]; then
        if [ "${BASH_REMATCH[1]}" -lt 1 ] || [ "${BASH_REMATCH[1]}" -gt "${BASH_REMATCH[2]}" ]; then
            echo "error: $2 is no slice; K/N with K from 1 to N" >&2
            exit 2
        fi
        slices+=("$2")
        shift
    else
        slices+=(1/1)
    fi
    shift
done

passed=0 failed=0 table=()
for at in "${!parts[@]}"; do
    part=${parts[at]} slice=${slices[at]}
    echo "=== $part $slice"
    log=$logs/$part-${slice/\//-of-}.log
    began=$SECONDS
    bash "ci/deep/$part.sh" "${slice%/*}" "${slice#*/}" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    took=$((SECONDS - began))
    case $status in
        0) word=passed passed=$((passed + 1)) ;;
        "$SKIP") word=SKIPPED ;;
        *) word=FAILED failed=$((failed + 1)) ;;
    esac
    last=$(grep -a . "$log" | tail -n 1 | tr '\t' ' ' | cut -c1-100)
    [ -s "$results" ] || printf 'date\tcommit\tpart\tslice\tresult\tseconds\tlast line\n' >"$results"
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$(date -u +%F)" "$commit" "$part" "$slice" "$word" "$took" "$last" >>"$results"
    table+=("$(printf '%-18s %-6s %-8s %5d s' "$part" "$slice" "$word" "$took")")
done
printf '\n%-18s %-6s %-8s %7s\n' part slice result time
printf '%s\n' "${table[@]}"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
