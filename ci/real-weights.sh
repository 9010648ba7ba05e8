#!/usr/bin/env bash
# Seals a real model and holds every digest that the worker prints against the `fsverity` tool: real-weights.sh WORKER
# covers: DIG-1 DIG-3
set -euo pipefail
cd "$(dirname "$0")/.."
worker=${1:?usage: real-weights.sh WORKER}
export RUST_LOG=${RUST_LOG:-warn}
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT

if ! bash ci/fetch-minilm.sh >"$temp/fetch" 2>&1; then
    tail -n 3 "$temp/fetch"
    echo "SKIPPED real_weights: the model could not be fetched"
    exit 77
fi
model=.models/minilm/model.safetensors

# field PATH FILE: one field of the JSON object in FILE.
field() {
    python3 -c 'import functools, json, sys
print(functools.reduce(lambda value, key: value[key], sys.argv[1].split("."), json.load(open(sys.argv[2]))))' "$1" "$2"
}

# equal WHAT LEFT RIGHT
equal() {
    if [ "$2" = "$3" ]; then
        echo "ok: $1: $2"
    else
        echo "FAILED: $1: $2 is not $3" >&2
        exit 1
    fi
}

for size in 4096 65536; do
    python3 ci/materialise.py "$model" "$temp/image" --block-size "$size" >/dev/null
    for layout in file tensors; do
        source=$model
        [ "$layout" = file ] || source=$temp/image
        expected=$(fsverity digest --block-size="$size" --compact "$source")
        "$worker" run "$model" --layout "$layout" --block-size "$size" --executes 2 --json >"$temp/run.json"
        equal "run, $layout, blocks of $size" "$(field shard.digest "$temp/run.json")" "sha256:${expected#sha256:}"
        equal "  layout" "$(field shard.layout "$temp/run.json")" "$layout"
        equal "  length" "$(field shard.bytes "$temp/run.json")" "$(stat -c %s "$source")"
        equal "  origin" "$(field shard.origin "$temp/run.json")" measured
        equal "  executed" "$(field executed "$temp/run.json")" 2
        equal "  given back" "$(field vram.used_after "$temp/run.json")" "$(field vram.used_before "$temp/run.json")"
        behind=" $model"
        [ "$layout" = file ] || behind=" layout:$(field shard.layout_digest "$temp/run.json")$behind"
        equal "digest, $layout, blocks of $size" \
            "$("$worker" digest "$model" --layout "$layout" --block-size "$size")" "sha256:${expected#sha256:}$behind"
    done
done
equal "the default block size and layout" "$("$worker" digest "$model")" "$(fsverity digest "$model")"

# Vouched for: the right digest is sealed as `expected`; one that differs in its last digit is refused with status 3.
right=$(fsverity digest --compact "$model")
right=sha256:${right#sha256:}
"$worker" run "$model" --layout file --expect "$right" --json >"$temp/run.json"
equal "origin under --expect" "$(field shard.origin "$temp/run.json")" expected
last=${right: -1}
wrong=${right%?}$([ "$last" = 0 ] && echo 1 || echo 0)
status=0
"$worker" run "$model" --layout file --expect "$wrong" --json >"$temp/run.json" 2>"$temp/err" || status=$?
equal "exit status under a wrong --expect" "$status" 3
equal "  code" "$(field error.code "$temp/run.json")" DIGEST_MISMATCH

# Not a model: status 2.
head -c 1000 "$model" >"$temp/cut.safetensors"
status=0
"$worker" run "$temp/cut.safetensors" --layout tensors --json >"$temp/run.json" 2>"$temp/err" || status=$?
equal "exit status for a cut-off model" "$status" 2
