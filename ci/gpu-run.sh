#!/usr/bin/env bash
# Runs the suites, benches and attacks on a GPU, on a machine without Rust, inside the folder that ci/gpu-bundle.sh made:
#   ./gpu-run.sh OUT [STAGE…]      (no STAGE: all of them, what is worth most first, what kills contexts last)
# OUT gets summary.md and logs.tar.gz, written anew after each stage; a later call keeps the other stages. From the environment:
# VRAM_TEST_DEVICE (cuda:0; `mock` tries this script), BUDGET (540 seconds for all stages), WEIGHTS (a model for the worker) and
# MODEL_DIGEST (its fs-verity digest). No setting of the GPU is changed.
# Exit status: 0; 1: a stage failed or ran out of time; 2: wrong call; 3: no such device.
# shellcheck disable=SC2016 # Markdown's quotes
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# The most seconds that each may take.
declare -A most=([probe]=30 [device]=180 [weights]=60 [bench]=200 [bdd]=150 [overlap]=60 [residue]=120 [attacks]=120 [sanitizer]=300)
order=(probe device weights bench bdd overlap residue attacks sanitizer)
command_line="$0 $*"
[ $# -ge 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1" && out=$(cd "$1" && pwd) || exit 2
shift
chosen=("${@:-${order[@]}}")
for name in "${chosen[@]}"; do [ -n "${most[$name]:-}" ] || { echo "error: no stage $name; there are: ${order[*]}" >&2; exit 2; }; done

export VRAM_TEST_DEVICE=${VRAM_TEST_DEVICE:-cuda:0} VRAM_TEST_FEATURES=$here/features VRAM_WORKER=$here/bin/vram-worker CARGO_TARGET_DIR=$out/logs NEXTEST_HIDE_PROGRESS_BAR=1
# Where containers get the driver from the machine around them.
for folder in /usr/local/nvidia /usr/lib/wsl; do
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder/lib64:$folder/lib PATH=$PATH:$folder/bin
done
work=$(mktemp -d) opener=
trap 'kill $opener 2>/dev/null; rm -rf "$work"' EXIT
mkdir -p "$out/logs"
[ ! -f "$out/logs.tar.gz" ] || tar -xzf "$out/logs.tar.gz" -C "$out"

skip() { echo "SKIPPED: $1"; exit 77; }
nextest() { cd "$here" && bin/cargo-nextest nextest "$@" --archive-file suites.tar.zst --workspace-remap .; }
topic() { nextest run --profile gpu --success-output immediate --status-level pass -E "kind(test) & binary(device) & test(/^$1::/)"; }
program() { # BINARY-ID
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["rust-binaries"][sys.argv[2]]["binary-path"])' "$work/binaries.json" "$1"
}

stage_probe() {
    "$device" "$question" --exact
    uname -srm
    nvidia-smi && nvidia-smi -q -d ECC,CLOCK,POWER,TEMPERATURE,PERFORMANCE
    true
}
stage_device() { VRAM_TEST_CASES=50 nextest run --profile gpu -E 'kind(test) & binary(device) - test(/^(residue|attacks|questions)::/)'; }
stage_weights() { # the worker, as it is shipped
    "$VRAM_WORKER" run ${WEIGHTS:+"$WEIGHTS"} ${MODEL_DIGEST:+--expect "$MODEL_DIGEST"} --device "$VRAM_TEST_DEVICE" --json
}
stage_bench() { "$bench" --json "$out/logs/bench.json" --budget "$((limit * 2 / 5))" $tiny; }
stage_overlap() { "$bench" --json "$out/logs/overlap.json" --overlap $tiny; }
stage_bdd() { "$bdd"; }
stage_residue() { topic residue; }
stage_attacks() { # a question without an answer fails nothing
    topic attacks || return
    topic questions || true
}
stage_sanitizer() { # every kernel, on little memory
    local tool status=0 sanitizer
    [ "$VRAM_TEST_DEVICE" != mock ] || skip "compute-sanitizer looks at a GPU only"
    PATH=$PATH:/usr/local/cuda/bin
    sanitizer=$(command -v compute-sanitizer) || skip "compute-sanitizer is not installed"
    for tool in memcheck racecheck initcheck synccheck; do
        echo "=== $tool"
        # Residency is asked for as two kinds of memory, of which one answers: calls that fail are not this tool's news.
        timeout "$((limit / 4))" "$sanitizer" --tool $tool --error-exitcode 9 --report-api-errors no "$bench" --tiny --sanitized || status=1
    done
    return "$status"
}

(nextest list --list-type binaries-only --message-format json --extract-to "$work") >"$work/binaries.json" || exit 2
device=$(program vram-residency::device) question=questions::what_is_the_device bench=$(program vram-residency::bench/device) bdd=$(program vram-residency-bdd::bdd) tiny=
[ "$VRAM_TEST_DEVICE" != mock ] || tiny=--tiny
"$device" "$question" --exact >"$out/logs/device.log" 2>&1 || { grep -m 1 'no device' "$out/logs/device.log" >&2; echo "error: there is no device $VRAM_TEST_DEVICE" >&2; exit 3; }
# A driver that nobody has open starts anew for every process, which takes seconds: somebody has it open.
if command -v nvidia-smi >/dev/null; then nvidia-smi --query-gpu=utilization.gpu --format=csv -l 10 >/dev/null 2>&1 & opener=$!; fi
about=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1)

export here out device question bench bdd tiny limit
mapfile -t functions < <(compgen -A function stage_)
export -f nextest topic skip "${functions[@]}"
for name in "${chosen[@]}"; do
    began=$SECONDS limit=$((${BUDGET:-540} - SECONDS))
    [ "$limit" -lt "${most[$name]}" ] || limit=${most[$name]}
    log=$out/logs/$name.log status=77
    echo "SKIPPED: nothing of the budget is left" >"$log"
    if [ "$limit" -ge 5 ]; then
        timeout -k 5 "$limit" bash -c "stage_$name" >"$log" 2>&1 </dev/null
        status=$?
    fi
    case $status in
        # What only skipped has shown nothing.
        0) word=passed; ! grep -aqE '^SKIPPED|: ok\. 0 passed' "$log" || grep -aqE '[1-9][0-9]* passed' "$log" || word=skipped ;;
        77) word=skipped ;;
        124 | 137) word=timeout ;;
        *) word=failed ;;
    esac
    printf '| %s | %s | %d s | %s |\n' "$name" "$word" $((SECONDS - began)) "$(grep -aE '^(SKIPPED|error|test result|[0-9]+ scenarios)|^ +Summary' "$log" | tail -n 1 | tr '|' '/')" | tee "$out/logs/$name.row"
    {
        printf '# GPU run on %s\n\n- device, driver: %s\n- commit: %s\n- date: %s\n- command: `%s`\n\n| stage | result | time | its last word |\n|---|---|---|---|\n' \
            "$VRAM_TEST_DEVICE" "${about:-none}" "$(cat "$here/commit")" "$(date -u +%FT%TZ)" "$command_line"
        for each in "${order[@]}"; do cat "$out/logs/$each.row" 2>/dev/null; done
        for each in bench overlap attacks residue; do
            [ ! -f "$out/logs/$each.row" ] || printf '\n## %s\n\n```text\n%s\n```\n' "$each" "$(head -n 120 "$out/logs/$each.log" | cut -c1-200)"
        done
    } >"$out/summary.md"
    tar -czf "$out/logs.tar.gz" -C "$out" logs
done
! grep -qE '\| (failed|timeout) \|' "$out/summary.md"
