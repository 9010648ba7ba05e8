#!/usr/bin/env bash
# Runs the suites, the attacks and the benches on a GPU, on a machine with NVIDIA's driver and no Rust toolchain:
#
#   ./gpu-run.sh OUT [--stage NAME]… [--budget SECONDS] [--device N] [--resume] [--weights FILE [--digest sha256:HEX]] [--list]
#
# Run it inside the folder that ci/gpu-bundle.sh made (from a repository it uses target/gpu-bundle). Needs bash, coreutils, awk,
# sed, tar. OUT gets summary.md, results.json (.specs/50-testing.md has its format) and logs.tar.gz, written anew after each
# stage. A later call with the same OUT keeps the stages that it does not run; `--resume` runs those only that have not passed.
# All stages share the budget (540 s when not given); a stage that finds none left is skipped, by name. No setting of the GPU is
# changed. `--device stand-in` runs the stages against a fake driver, to test this script; the bundle must hold it.
#
# Exit status: 0 when no stage failed or timed out, 1 when one did, 2 for a wrong call, 3 without a GPU.
set -uo pipefail

# What is worth most comes first.
stages=(probe device attacks bench weights bdd residue overlap properties engine sanitizer)
# The most seconds that each may take.
declare -A most=([probe]=30 [device]=180 [attacks]=120 [bench]=200 [weights]=60 [bdd]=150 [residue]=120 [overlap]=60 [properties]=60
    [engine]=60 [sanitizer]=300)
SKIP=77

usage() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bundle=$here
[ -d "$here/bin" ] || bundle=$here/../target/gpu-bundle
command_line="gpu-run.sh $*"
out="" budget=540 device=0 resume=no weights="" digest="" chosen=()
while [ $# -gt 0 ]; do
    case $1 in
        --list) printf '%s\n' "${stages[@]}" && exit 0 ;;
        --resume) resume=yes ;;
        --stage | --budget | --device | --weights | --digest)
            [ $# -ge 2 ] || usage
            case $1 in
                --stage) chosen+=("$2") ;;
                --budget) budget=$2 ;;
                --device) device=$2 ;;
                --weights) weights=$2 ;;
                --digest) digest=$2 ;;
            esac
            shift
            ;;
        -*) usage ;;
        *) [ -z "$out" ] || usage && out=$1 ;;
    esac
    shift
done
[ -n "$out" ] || usage
[[ $budget =~ ^[0-9]+$ ]] || usage
[ "${#chosen[@]}" -gt 0 ] || chosen=("${stages[@]}")
for name in "${chosen[@]}"; do
    [ -n "${most[$name]:-}" ] || { echo "error: no stage $name; there are: ${stages[*]}" >&2; exit 2; }
done
[ -x "$bundle/bin/attacks" ] || { echo "error: no bundle in $bundle; ci/gpu-bundle.sh makes one" >&2; exit 2; }
bundle=$(cd "$bundle" && pwd)

if [ "$device" = stand-in ]; then
    export VRAM_TEST_DEVICE=stand-in VRAM_TEST_STAND_IN=$bundle/stand-in/libcuda-stand-in.so
    selector=mock
elif [[ $device =~ ^[0-9]+$ ]]; then
    export VRAM_TEST_DEVICE=cuda:$device
    selector=cuda:$device
else
    usage
fi
export VRAM_TEST_FEATURES=$bundle/features
# Where containers get the driver from the machine around them, and the loader was not told.
for folder in /usr/local/nvidia /usr/lib/wsl; do
    [ ! -e "$folder/lib64/libcuda.so.1" ] || export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder/lib64
    [ ! -e "$folder/lib/libcuda.so.1" ] || export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder/lib
    [ ! -x "$folder/bin/nvidia-smi" ] || PATH=$PATH:$folder/bin
done
unset VRAM_RESIDENCY_STRESS_SECONDS

# One line, on stderr, and nothing written, where there is no such device.
probed=$("$bundle/bin/attacks" --probe 2>&1) || {
    echo "error: $(printf '%s' "$probed" | tail -n 1); this needs an NVIDIA GPU and its driver" >&2
    exit 3
}

mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
work=$(mktemp -d)
# A child that is killed before it has forgotten this must not clear up.
opener=""
trap '[ "$BASHPID" != "$$" ] || { [ -z "$opener" ] || kill "$opener" 2>/dev/null; rm -rf "$work"; }' EXIT
logs=$work/logs
mkdir -p "$logs"
[ ! -f "$out/logs.tar.gz" ] || tar -xzf "$out/logs.tar.gz" -C "$work" || exit 2
export CARGO_TARGET_DIR=$work # where the behaviour suite leaves its report

json_string() { # a JSON string of all of stdin
    LC_ALL=C tr -d '\000-\010\013-\037' | LC_ALL=C sed 's/\\/\\\\/g; s/"/\\"/g; s/\t/\\t/g' |
        LC_ALL=C awk 'BEGIN { printf "\"" } NR > 1 { printf "\\n" } { printf "%s", $0 } END { printf "\"" }'
}
smi() { command -v nvidia-smi >/dev/null && nvidia-smi -i "$device" --query-gpu="$1" --format=csv,noheader,nounits 2>/dev/null | head -n 1; }

# The stages. Each prints what it does; exit status 77 after a line `SKIPPED …` means that it could not run here.
skip() {
    echo "SKIPPED $1"
    exit "$SKIP"
}
has() { [ -x "$bundle/bin/$1" ] || skip "the bundle holds no $1"; }

stage_probe() {
    echo "$probed"
    uname -srm
    if command -v nvidia-smi >/dev/null; then
        nvidia-smi || true
        nvidia-smi -i "$device" -q -d ECC,CLOCK,POWER,TEMPERATURE,PERFORMANCE || true
    else
        echo "nvidia-smi is not installed"
    fi
    cp "$bundle/MANIFEST" "$logs/MANIFEST" 2>/dev/null || true
}
stage_device() { has device && VRAM_TEST_CASES=20 "$bundle/bin/device" --test-threads=1; }
stage_engine() { # what an engine computes on owned and on adopted weights
    has device
    local count
    count=$("$bundle/bin/device" engine --list 2>/dev/null | grep -c ': test$')
    [ "$count" -gt 0 ] || skip "the device suite has no test of an engine"
    "$bundle/bin/device" engine --test-threads=1
}
stage_bdd() { # with the shipped worker, as a process, where the device is one that it knows
    has bdd
    [ ! -x "$bundle/bin/vram-worker" ] || export VRAM_WORKER=$bundle/bin/vram-worker
    "$bundle/bin/bdd"
}
stage_properties() { # random histories, besides those of the device suite
    has device
    VRAM_TEST_CASES=50 "$bundle/bin/device" history --test-threads=1
}
attack() { "$bundle/bin/attacks" --json "$logs/$1.jsonl" --limit 60 "${@:2}"; }
stage_attacks() {
    local status=0
    attack attacks --group attack || status=1
    attack questions --group question || status=1
    return "$status"
}
stage_residue() { attack residue --group residue; }
stage_weights() {
    has vram-worker
    local args=(run --device "$selector" --json)
    if [ -n "$weights" ]; then
        [ -f "$weights" ] || { echo "error: there is no file $weights"; return 1; }
        args+=("$weights")
        [ -z "$digest" ] || args+=(--expect "$digest")
    else
        echo "no --weights FILE: the generated sample"
    fi
    [ "$selector" != mock ] || skip "the shipped worker knows no stand-in"
    "$bundle/bin/vram-worker" "${args[@]}" | tee "$logs/worker.json"
}
bench() { # OUTPUT ARGUMENT…: the speeds, by each variant of the kernels that the bundle holds
    has bench-device
    local size=()
    [ "$device" != stand-in ] || size=(--tiny)
    "$bundle/bin/bench-device" --json "$logs/$1.json" "${size[@]}" "${@:2}" || return 1
    [ ! -x "$bundle/bin/bench-device-plain" ] && return
    "$bundle/bin/bench-device-plain" --variant plain --json "$logs/$1-plain.json" "${size[@]}" "${@:2}"
}
stage_bench() { bench bench --budget "$((limit * 2 / 5))"; }
stage_overlap() { bench overlap --overlap; }
find_sanitizer() {
    local file
    for file in "$bundle/sanitizer/bin/compute-sanitizer" "$(command -v compute-sanitizer)" /usr/local/cuda*/bin/compute-sanitizer; do
        [ -x "$file" ] && echo "$file" && return
    done
    return 1
}
stage_sanitizer() { # every kernel, on little memory
    local tool sanitizer options status=0
    [ "$device" != stand-in ] || skip "compute-sanitizer looks at a GPU only"
    sanitizer=$(find_sanitizer) || skip "compute-sanitizer is neither installed nor in the bundle"
    has bench-device
    for tool in memcheck racecheck initcheck synccheck; do
        echo "=== $tool"
        options=(--tool "$tool" --error-exitcode 9)
        # Residency is asked for as two kinds of memory, of which one answers: calls that fail are not this tool's news.
        [ "$tool" != memcheck ] || options+=(--report-api-errors no)
        if timeout -k 5 "$((limit / 4))" "$sanitizer" "${options[@]}" "$bundle/bin/bench-device" --tiny --sanitized; then
            echo "test result: ok. 1 passed; 0 failed; 0 ignored; $tool"
        else
            echo "test result: FAILED. 0 passed; 1 failed; 0 ignored; $tool"
            status=1
        fi
    done
    return "$status"
}

counts() { # LOG: passed, failed, ignored
    sed 's/\x1b\[[0-9;]*[A-Za-z]//g' "$1" | awk '
        /^test result: / { for (i = 2; i <= NF; i++) { if ($i ~ /^passed;/) p += $(i-1); if ($i ~ /^failed;/) f += $(i-1); if ($i ~ /^ignored;/) s += $(i-1) } }
        /^[0-9]+ scenarios? \(/ { gsub(/[(),]/, " "); for (i = 2; i <= NF; i++) { if ($i == "passed") p += $(i-1); if ($i == "failed") f += $(i-1); if ($i == "skipped") s += $(i-1) } }
        END { printf "%d %d %d\n", p, f, s }'
}

run_stage() { # NAME: runs it within its limit and writes what came of it
    local name=$1 log=$logs/$1.log began=$SECONDS status word reason="" late="" passed failed skipped
    limit=${most[$name]}
    [ "$((budget - SECONDS))" -ge "$limit" ] || limit=$((budget - SECONDS))
    if [ "$limit" -lt 5 ]; then
        echo "SKIPPED nothing of the budget of $budget s is left" >"$log"
        status=$SKIP
    else
        # A process group of its own, so that the end of the time is the end of all its processes.
        set -m
        (
            trap - EXIT TERM INT HUP
            "stage_$name"
        ) >"$log" 2>&1 </dev/null &
        local child=$!
        set +m
        while kill -0 "$child" 2>/dev/null && [ -z "$stopped" ] && [ "$((SECONDS - began))" -lt "$limit" ]; do
            sleep 0.2
        done
        if kill -0 "$child" 2>/dev/null; then
            [ -n "$stopped" ] || late=yes
            kill -TERM -- "-$child" 2>/dev/null
            sleep 1
            kill -KILL -- "-$child" 2>/dev/null
        fi
        wait "$child" 2>/dev/null
        status=$?
    fi
    read -r passed failed skipped < <(counts "$log")
    if [ -n "$late" ]; then
        word=timeout reason="not done after $limit s"
    elif [ -n "$stopped" ]; then
        word=timeout reason="stopped from outside after $((SECONDS - began)) s"
    elif [ "$status" -eq "$SKIP" ]; then
        word=skipped reason=$(sed -n 's/^SKIPPED //p' "$log" | tail -n 1)
    elif [ "$status" -eq 0 ] && [ "$failed" -eq 0 ]; then
        word=passed reason=$(grep -ac '^not met:' "$log" | sed -n 's/^[1-9].*$/& requirements on speed not met/p')
        if [ "$skipped" -gt 0 ] && [ "$passed" -eq 0 ]; then
            word=skipped reason="every case is for another device"
        elif grep -aq '^device: mock' "$log"; then
            # Nothing that ran on the mock may be taken for a result of this device.
            word=skipped reason="it ran on the mock, not on this device"
        fi
    else
        word=failed reason="exit status $status: $(grep -aE 'error|FAILED|panicked' "$log" | head -n 1 | cut -c1-200)"
    fi
    printf '{"name":"%s","status":"%s","reason":%s,"seconds":%d,"passed":%d,"failed":%d,"skipped":%d,"log":"%s.log"}\n' \
        "$name" "$word" "$(printf '%s' "$reason" | json_string)" "$((SECONDS - began))" "$passed" "$failed" "$skipped" "$name" \
        >"$logs/$name.stage"
    printf '%-11s %-8s %4d s  %s passed, %s failed, %s skipped  %s\n' "$name" "$word" "$((SECONDS - began))" "$passed" "$failed" "$skipped" "$reason"
}

lines() { # NAME: a JSON array of a file of JSON lines
    [ -f "$logs/$1.jsonl" ] && { printf '['; paste -sd, "$logs/$1.jsonl" | tr -d '\n'; printf ']'; return; }
    printf '[]'
}
object() { if [ -s "$logs/$1.json" ]; then tr -d '\n' <"$logs/$1.json"; else printf null; fi; }
field() { sed -n "s/^.*\"$1\":\"\([^\"]*\)\".*\$/\1/p" "$2" | head -n 1; } # of a stage's line

write_results() {
    local name fragments=() manifest=$bundle/MANIFEST
    for name in "${stages[@]}"; do
        [ ! -f "$logs/$name.stage" ] || fragments+=("$(cat "$logs/$name.stage")")
    done
    {
        printf '{"format":"vram-residency-gpu-run-1","date":"%s","commit":%s,"command":%s,\n' "$(date -u +%FT%TZ)" \
            "$(sed -n 's/^commit: //p' "$manifest" 2>/dev/null | json_string)" "$(printf '%s' "$command_line" | json_string)"
        printf '"device":%s,"probe":%s,"driver":%s,"budget_seconds":%d,"seconds":%d,\n' "$(printf '%s' "$name_of_device" | json_string)" \
            "$probed" "$(printf '%s' "$driver" | json_string)" "$budget" "$SECONDS"
        printf '"stages":[%s],\n' "$(IFS=,; printf '%s' "${fragments[*]}")"
        printf '"attacks":%s,\n"questions":%s,\n"residue":%s,\n' "$(lines attacks)" "$(lines questions)" "$(lines residue)"
        printf '"bench":%s,\n"bench_plain":%s,\n"overlap":%s}\n' "$(object bench)" "$(object bench-plain)" "$(object overlap)"
    } >"$work/results.json"
    {
        printf '# GPU run\n\n- device: %s\n- driver: %s\n- commit: %s\n- date: %s\n- command: %s\n\n' "$name_of_device" "$driver" \
            "$(sed -n 's/^commit: //p' "$manifest" 2>/dev/null)" "$(date -u +%FT%TZ)" "$command_line"
        printf '| stage | status | seconds | passed | failed | skipped | reason |\n|---|---|---|---|---|---|---|\n'
        for name in "${stages[@]}"; do
            [ -f "$logs/$name.stage" ] || continue
            local number='s/^.*"seconds":\([0-9]*\),"passed":\([0-9]*\),"failed":\([0-9]*\),"skipped":\([0-9]*\),.*$/\1 | \2 | \3 | \4/p'
            printf '| %s | %s | %s | %s |\n' "$name" "$(field status "$logs/$name.stage")" "$(sed -n "$number" "$logs/$name.stage")" \
                "$(field reason "$logs/$name.stage" | tr '|' '/')"
        done
        for name in attacks residue bench overlap; do
            [ -f "$logs/$name.log" ] || continue
            printf '\n## %s\n\n```text\n' "$name"
            grep -av '^$' "$logs/$name.log" | head -n 120 | cut -c1-300
            printf '```\n'
        done
    } >"$work/summary.md"
    tar -czf "$work/logs.tar.gz" -C "$work" logs
    mv "$work/results.json" "$work/summary.md" "$work/logs.tar.gz" "$out/"
}

# Whoever stops this script gets what there is.
stopped=""
trap 'stopped=yes' TERM INT HUP
# A driver that nobody has open starts anew for every process, which takes seconds. Somebody has it open; no setting is changed.
if [ "$device" != stand-in ] && command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=utilization.gpu --format=csv -l 10 >/dev/null 2>&1 </dev/null &
    opener=$!
fi
driver=$(smi driver_version) driver=${driver:-unknown}
name_of_device=$(smi name) name_of_device=${name_of_device:-$VRAM_TEST_DEVICE}
[ "$device" != stand-in ] || name_of_device="stand-in (a fake driver, no GPU)" driver=none
for name in "${stages[@]}"; do
    [[ " ${chosen[*]} " == *" $name "* ]] || continue
    if [ "$resume" = yes ] && [ "$(field status "$logs/$name.stage" 2>/dev/null)" = passed ]; then
        echo "$name passed before"
        continue
    fi
    rm -f "$logs/$name.stage" "$logs/$name".json* "$logs/$name-plain.json"
    run_stage "$name"
    write_results || exit 1
    [ -z "$stopped" ] || break
done
[ -s "$out/results.json" ] || exit 1
! cat "$logs"/*.stage | grep -qE '"status":"(failed|timeout)"'
