#!/usr/bin/env bash
# Checks that take too long for every run, each of at most an hour:
#   ci/deep.sh                  lists the parts
#   ci/deep.sh PART…            runs them, one after the other
#   ci/deep.sh PART K/N         runs the Kth of N slices of a part that can be cut (its file says so)
#   ci/deep.sh --table          prints the newest result of each part and slice: commit, result, duration, last line, and what has
#                               changed since that commit: the code that is examined (CODE below), or only what examines it
#                               (TESTS); parts that never ran are listed
#   ci/deep.sh --keep           writes those results that are of a commit into ci/deep-results.tsv, which is committed: what was
#                               shown on one machine can be read on every other
# A part is a file ci/deep/PART.sh: its first comment says what it shows. It resumes where it was stopped if its file says so. A
# part that cannot run here ends as SKIPPED, by name, and never as passed.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

CODE=(src cuda worker/src build.rs Cargo.toml Cargo.lock ':!src/**tests.rs' ':!src/**tests/**')
# One list for all parts: who reads the table knows which of them a test or a script is for.
TESTS=(':(glob)src/**/tests.rs' ':(glob)src/**/tests/**' tests bdd worker/tests benches examples .cargo ci ':!ci/deep-results.tsv'
    ':!benches/results' ':!*.md')
results=${VRAM_RESIDENCY_DEEP_RESULTS:-$target/deep/results.tsv}
kept=${VRAM_RESIDENCY_DEEP_KEPT:-ci/deep-results.tsv}
heading=$'date\tcommit\tpart\tslice\tresult\tseconds\tlast line'
logs=$target/deep/logs

list() {
    local file
    for file in ci/deep/*.sh; do
        printf '%-18s %s\n' "$(basename "$file" .sh)" "$(sed -n 's/^# //p' "$file" | head -n 1)"
    done
}

# newest FILE…: of each part and slice the last row, without the heading. A part that was cut otherwise since has only its new slices.
newest() {
    local files=() file
    for file in "$@"; do [ ! -s "$file" ] || files+=("$file"); done
    [ "${#files[@]}" -gt 0 ] || return 0
    awk -F '\t' '
        $2 == "commit" { next }
        { split($4, cut, "/"); row[$3 FS $4] = $0; slices[$3] = cut[2] }
        END {
            for (key in row) { split(row[key], field, FS); split(field[4], cut, "/"); if (cut[2] == slices[field[3]]) print row[key] }
        }' "${files[@]}" | sort -t $'\t' -k 3,3 -k 4,4V
}

# What is still what it was in a commit.
since() {
    case $1 in
        *+changes) echo "not known" ;;
        *)
            if ! git rev-parse -q --verify "$1^{commit}" >/dev/null; then echo "not known"
            elif ! git diff --quiet "$1" -- "${CODE[@]}"; then echo "changed"
            elif ! git diff --quiet "$1" -- "${TESTS[@]}"; then echo "tests changed"
            else echo "the same"; fi
            ;;
    esac
}

table() {
    local row rows part
    rows=$(newest "$kept" "$results")
    {
        printf '%s\tcode since\n' "$heading"
        while IFS= read -r row; do
            [ -z "$row" ] || printf '%s\t%s\n' "$row" "$(since "$(cut -f 2 <<<"$row")")"
        done <<<"$rows"
        while read -r part; do
            cut -f 3 <<<"$rows" | grep -qx "$part" || printf -- '-\t-\t%s\t-\tnever ran\t-\t-\t-\n' "$part"
        done < <(list | cut -d ' ' -f 1)
    } | column -t -s $'\t'
}

keep() {
    local mine=$target/deep/to-keep.tsv
    [ -s "$results" ] || { echo "error: nothing has been run here: $results does not exist" >&2; return 1; }
    awk -F '\t' '$2 !~ /\+changes$/' "$results" >"$mine"
    newest "$kept" "$mine" >"$mine.kept" && { echo "$heading" && cat "$mine.kept"; } >"$kept"
    echo "$kept: $(($(wc -l <"$kept") - 1)) results"
}

# last_line LOG: what a part said last, in one field, and without this machine's folders: the table is committed.
last_line() {
    local line
    line=$(grep -a . "$1" | tail -n 1 | tr '\t' ' ')
    line=${line//"$target"/target} line=${line//"$root/"/./} line=${line//"$HOME/"/\~/}
    echo "${line:0:100}"
}

self_test_of_since() { # FOLDER: what it says of each kind of file, in a repository of a few
    local file expected found commit status=0
    local files=(src/a.rs src/a/tests.rs src/a/tests/more.rs tests/a.rs tests/data/a.txt bdd/features/a.feature ci/deep/a.sh ci/a.py
        ci/deep-results.tsv README.md tests/README.md .specs/a.md)
    # shellcheck disable=SC2046
    unset $(git rev-parse --local-env-vars) # a hook's environment names another repository
    git init -q "$1" && cd "$1" || return 1
    for file in "${files[@]}"; do mkdir -p "$(dirname "$file")" && echo old >"$file"; done
    git add . && git -c user.name=deep -c user.email=deep@localhost commit -qm files || return 1
    commit=$(git rev-parse --short HEAD)
    for file in "${files[@]}"; do
        case $file in
            *.md | *.tsv) expected="the same" ;;
            src/a.rs) expected="changed" ;;
            *) expected="tests changed" ;;
        esac
        echo new >"$file"
        found=$(since "$commit")
        [ "$found" = "$expected" ] || { echo "self-test: after a change of $file: $found, not $expected" >&2; status=1; }
        echo old >"$file"
    done
    [ "$(since "$commit+changes") $(since 0123456)" = "not known not known" ] && return "$status"
}

self_test() { # what --table and --keep make of rows
    local folder row out here
    here=$(git rev-parse --short HEAD)
    folder=$(mktemp -d)
    (self_test_of_since "$folder/files") || return 1
    printf 'first\n%s\t%s\n\n' "$target/gpu-bundle and $root/a" "$HOME/b" >"$folder/log"
    [ "$(last_line "$folder/log")" = "target/gpu-bundle and ./a ~/b" ] || return 1
    row() { printf '2026-01-01\t%s\t%s\t%s\t%s\t1\t%s\n' "$@"; }
    { echo "$heading" && row "$here" fuzz 1/1 passed old && row "$here" model 1/1 passed kept; } >"$folder/kept"
    {
        echo "$heading" && row "$here" fuzz 1/2 FAILED cut-anew && row "$here" race 1/1 FAILED first
        row "$here" race 1/1 passed second && row "$here+changes" bench 1/1 passed of-no-commit
    } >"$folder/results"
    out=$(VRAM_RESIDENCY_DEEP_RESULTS=$folder/results VRAM_RESIDENCY_DEEP_KEPT=$folder/kept bash ci/deep.sh --table) || return 1
    grep -qE "fuzz .*FAILED.* cut-anew +(the same|tests changed|changed)" <<<"$out" && ! grep -q ' old ' <<<"$out" &&
        grep -qE 'bench .* not known' <<<"$out" && grep -qE 'timing .*never ran' <<<"$out" || return 1
    VRAM_RESIDENCY_DEEP_RESULTS=$folder/results VRAM_RESIDENCY_DEEP_KEPT=$folder/kept bash ci/deep.sh --keep >/dev/null || return 1
    [ "$(cut -f 3,4,5,7 "$folder/kept" | tail -n +2 | tr '\t\n' ' ;')" = \
        "fuzz 1/2 FAILED cut-anew;model 1/1 passed kept;race 1/1 passed second;" ] || return 1
    rm -rf "$folder"
    echo "deep self-test: kept and shown as expected"
}

case ${1:-} in
    "") list && exit 0 ;;
    --table) table; exit ;;
    --keep) mkdir -p "$target/deep" && keep; exit ;;
    --self-test) mkdir -p "$target/deep"; self_test || { echo "error: results are not kept or shown as they were" >&2; exit 1; }; exit ;;
esac
mkdir -p "$logs" "$(dirname "$results")"

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
    last=$(last_line "$log")
    [ -s "$results" ] || echo "$heading" >"$results"
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$(date -u +%F)" "$commit" "$part" "$slice" "$word" "$took" "$last" >>"$results"
    table+=("$(printf '%-18s %-6s %-8s %5d s' "$part" "$slice" "$word" "$took")")
done
printf '\n%-18s %-6s %-8s %7s\n' part slice result time
printf '%s\n' "${table[@]}"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
