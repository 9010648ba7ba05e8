#!/usr/bin/env bash
# Shards on either side of 4 GiB with every byte hashed, a shard of 130 GiB, and a kernel over more than 4 GiB. Takes 6 GiB of memory.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

available=$(awk '/^MemAvailable:/ { print int($2 / 1048576) }' /proc/meminfo)
[ "${available:-0}" -ge 8 ] || skip limits "8 GiB of memory are not available"
log=$target/deep/limits.log
mkdir -p "$(dirname "$log")"
{
    cargo test --locked --release -p vram-residency --test suite limits:: -- --include-ignored --test-threads 1 &&
        cargo test --locked --release -p vram-residency --lib -- --include-ignored beyond_4_gib --test-threads 1
} 2>&1 | tee "$log"
[ "${PIPESTATUS[0]}" -eq 0 ] || exit 1
# None of what takes long was left out.
for name in every_byte_hashed of_130_gib_is_sealed counts_beyond_4_gib; do
    grep -q "^test .*$name.* ok$" "$log" || { echo "error: $name did not run" >&2; exit 1; }
done
