#!/usr/bin/env bash
# Builds and tests examples/candle-minilm: candle computes embeddings on weights that are sealed in its own memory, and what is
# sealed has the digest that the worker prints for the file. A fresh build takes about 7 minutes of one core, a later run seconds.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
set -e

bash ci/fetch-minilm.sh || skip candle "the model could not be fetched"
worker
model=.models/minilm
manifest=examples/candle-minilm/Cargo.toml
export CARGO_TARGET_DIR=$target/candle
jobs=${VRAM_RESIDENCY_JOBS:-2}

began=$SECONDS
cargo build -j "$jobs" --locked --manifest-path "$manifest" --all-targets
echo "built in $((SECONDS - began)) s"
cargo fmt --manifest-path "$manifest" --check
cargo clippy -j "$jobs" --locked --manifest-path "$manifest" --all-targets -- -D warnings
cargo test -j "$jobs" --locked --manifest-path "$manifest"

"$CARGO_TARGET_DIR/debug/candle-minilm" "$model" | tee "$CARGO_TARGET_DIR/candle-minilm.log"
printed=$("$worker" digest --layout tensors "$model/model.safetensors")
sealed=$(sed -n 's/^digest *//p' "$CARGO_TARGET_DIR/candle-minilm.log")
if [ "${printed%% *}" != "$sealed" ]; then
    echo "error: candle's memory was sealed as $sealed, but the worker prints ${printed%% *}" >&2
    exit 1
fi
echo "ok: the worker prints the same digest for the file: $sealed"
