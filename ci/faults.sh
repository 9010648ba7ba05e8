#!/usr/bin/env bash
# Plants the faults that no tool makes: ci/faults.sh [NAME…]. Each ci/faults/NAME.patch is applied to a copy of the last commit, and a
# test on each of its `Fails:` lines must fail; without it all pass. `--fit` builds nothing: do patches and tests still fit the code?
# covers: VER-10
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
tree=$target/deep/faults/tree
wrong=0

fails() { sed -n 's/^Fails: //p' "$@"; } # the head of a patch: test target, names of tests
# run TARGET TEST…: nextest's exit status; 100 is a test that failed.
run() (
    cd "$tree" || exit 1
    # Dependencies are those that other checks have built.
    export CARGO_TARGET_DIR=$target CFLAGS=-O2 PROPTEST_RNG_SEED=1 VRAM_MODEL_ITERATIONS=4000 only=(--test "$1")
    [ "$1" != lib ] || only=(--lib)
    [ "$1" != model ] || export RUSTFLAGS="--cfg vram_model" CARGO_TARGET_DIR=$target/model
    cargo nextest run --profile default --locked -p vram-residency "${only[@]}" "${@:2}" </dev/null
)
patches=(ci/faults/*.patch)
[ $# -eq 0 ] || [ "$1" = --fit ] || patches=("${@/%/.patch}")
if [ "${1:-}" = --fit ]; then
    for patch in "${patches[@]}"; do
        git apply --check "$patch" || wrong=1
        [ -n "$(fails "$patch")" ] || { echo "error: $patch names no test that fails"; wrong=1; }
        for name in $(fails "$patch" | sed 's/^[a-z_]* //'); do
            git grep -qw "fn $name" || { echo "error: $patch: there is no test $name"; wrong=1; }
        done
    done
    exit "$wrong"
fi
patches=("${patches[@]#ci/faults/}")
patches=("${patches[@]/#/$root/ci/faults/}")

git worktree prune
[ -d "$tree" ] || git worktree add -q --force --detach "$tree"
git -C "$tree" checkout -q --force --detach "$(git rev-parse HEAD)" || exit 1
while read -ra test; do
    run "${test[@]}" >"$target/deep/faults/log" 2>&1 || { tail -n 40 "$target/deep/faults/log"; echo "error: fails without a fault: ${test[*]}"; exit 1; }
done < <(fails "${patches[@]}" | sort -u)
for patch in "${patches[@]}"; do
    git -C "$tree" apply "$patch" || { wrong=1; continue; }
    while read -ra test; do
        run "${test[@]}" >"$target/deep/faults/log" 2>&1
        case $? in
            100) echo "caught   $(basename "$patch" .patch) by ${test[*]}" ;;
            0) echo "SURVIVED $(basename "$patch" .patch): ${test[*]}" && wrong=1 ;;
            *) tail -n 20 "$target/deep/faults/log" && echo "FAILED   $(basename "$patch" .patch) does not build" && wrong=1 ;;
        esac
    done < <(fails "$patch")
    git -C "$tree" checkout -q .
done
exit "$wrong"
