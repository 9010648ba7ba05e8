#!/usr/bin/env bash
# The library as a package: what is in it, and that it builds and passes its tests on its own. Nothing but tracked files of the rooms
# named below is in it, no file is large, all together is small. Then the package is unpacked, and built with each feature and with
# both; a file is taken away, and the build must fail. Last line: "N passed, N failed".
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

out=$target/package-check # always the same place: cargo keeps what it built for it
rm -rf "$out" "$target"/package/vram-residency-*.crate
mkdir -p "$out"
passed=0 failed=0
most_bytes=1000000 most_file_bytes=100000

refuses() { ! "$@"; }

# Rooms and files that users need to build, to test and to read; the last three cargo makes.
rooms='^(src|cuda|tests|benches)/|^examples/[a-z_]+\.rs$|^\.specs/[0-9][0-9]-[a-z-]+\.md$'
files='^(build\.rs|README\.md|CHANGELOG\.md|LICENSE-(APACHE|MIT)|Cargo\.(toml|lock|toml\.orig)|\.cargo_vcs_info\.json)$'
made=$'Cargo.toml.orig\n.cargo_vcs_info.json'
contents_are_sound() { # FILE: names, one a line
    local strange untracked
    strange=$(grep -vE "$rooms|$files" "$1")
    [ -z "$strange" ] || { printf 'error: not of the package:\n%s\n' "$strange"; return 1; }
    untracked=$(grep -vxF "$made" "$1" | LC_ALL=C sort | LC_ALL=C comm -23 - <(git ls-files --cached --others --exclude-standard | LC_ALL=C sort))
    [ -z "$untracked" ] || { printf 'error: ignored files in the package:\n%s\n' "$untracked"; return 1; }
    for needed in build.rs cuda/mock/vram_mock.c cuda/kernels/vram_kernels.cu src/lib.rs tests/data/seal_vectors.txt LICENSE-MIT; do
        grep -qxF "$needed" "$1" || { echo "error: $needed is missing"; return 1; }
    done
}
small() {
    local size large
    size=$(stat -c %s "$archive")
    large=$(find "$crate" -type f -size +"$most_file_bytes"c ! -name Cargo.lock)
    echo "$size bytes; large files: $large"
    [ "$size" -le "$most_bytes" ] && [ -z "$large" ]
}
build() { # FEATURES, more arguments...
    (cd "$crate" && CARGO_TARGET_DIR=$target cargo check --locked --lib --no-default-features --features "$1" "${@:2}")
}

cargo package -q -p vram-residency --list --allow-dirty --locked >"$out/list" || exit 1
check "what is in it" contents_are_sound "$out/list"
{ cat "$out/list"; echo "worker/src/main.rs"; } >"$out/planted"
check "a file of another room is found" refuses contents_are_sound "$out/planted"
{ cat "$out/list"; echo "tests/not-tracked.bin"; } >"$out/planted"
check "a file that nobody tracks is found" refuses contents_are_sound "$out/planted"
grep -vxF cuda/mock/vram_mock.c "$out/list" >"$out/planted"
check "a missing file is found" refuses contents_are_sound "$out/planted"

check "it can be packed" cargo package -q -p vram-residency --no-verify --allow-dirty --locked
archive=$(echo "$target"/package/vram-residency-*.crate)
tar -xzf "$archive" -C "$out" || exit 1
crate=$(echo "$out"/vram-residency-*)
# Packed files all have one old time, by which cargo would take what it built of an earlier package for fresh.
find "$crate" -type f -exec touch {} +
check "it is small" small
for features in "" cuda mock; do
    check "unpacked, it builds with \"$features\"" build "$features"
done
check "unpacked, it passes its own tests with both" \
    env -C "$crate" CARGO_TARGET_DIR="$target" cargo test --locked --features mock --lib
rm "$crate/cuda/mock/stream.c"
misses_it() { refuses build mock 2>"$out/said" && grep -F 'stream.c' "$out/said"; }
check "without one of its files it does not build" misses_it
rm -rf "$out"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
