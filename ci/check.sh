#!/usr/bin/env bash
# Every check besides README's tests: ci/check.sh [STEP…]   (no STEP: all of them; `ci/check.sh --list` names them)
# A step is a function: its comment says what it shows. One that cannot run here is SKIPPED, by name, and has not passed.
# covers: ASR-7
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

# none COMMAND…: a search that finds nothing (status 1); one that fails has not found nothing.
none() {
    local status=0
    "$@" || status=$?
    [ "$status" -eq 1 ] || { echo "error: found, or not searched: $*"; return 1; }
}
tests() { cargo nextest run --locked "$@"; } # fails, too, when there is no such test
sanitized() { # cargo's arguments: the library and the mock's C, under the address, leak and undefined-behaviour sanitizers
    CARGO_TARGET_DIR=$target/sanitize RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CC=clang \
        CFLAGS="-fsanitize=address,undefined -fsanitize-trap=undefined -fno-omit-frame-pointer" \
        ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 tests --target "$host" -p vram-residency "$@"
}

step_scripts() { # the scripts' lint; the planted faults still fit the code
    git ls-files .ci/run 'ci/*.sh' ci/hooks | xargs shellcheck -x
    ci/faults.sh --fit
}
step_traces() { # no path of anybody's machine in the project
    none git grep -nIE '/(home|Users)/[A-Za-z0-9._-]+/|/ro''ot/' -- . ':!Cargo.lock'
    [[ $root != /*/* ]] || none git grep -nIF "$(dirname "$root")/" -- . ':!Cargo.lock'
}
step_spelling() { typos; }
# shellcheck disable=SC2016
step_links() { # every relative link of the documents leads somewhere
    local file link wrong=0
    while IFS=$'\t' read -r file link; do
        [ -e "$(dirname "$file")/$link" ] || { echo "error: $file: $link leads nowhere"; wrong=1; }
    done < <(git ls-files '*.md' | xargs perl -ne '/^```/ and $code = !$code; next if $code;
        /^(https?|mailto):/ or print "$ARGV\t$_\n" for /\]\(([^)#\s]+)/g')
    return "$wrong"
}
step_requirements() { python3 ci/requirements.py; } # each requirement has a test, or is listed as not built
step_floors() { bash ci/floors.sh; } # no circle among the modules of src, and no use that is not listed
step_fmt() {
    cargo fmt --all --check
    cargo fmt --manifest-path fuzz/Cargo.toml --check
}
step_clippy() { # in every combination of features; every package takes the workspace's lints
    cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
    cargo hack clippy -p vram-residency --lib --feature-powerset --exclude-features default --locked -- -D warnings
    cargo hack clippy -p vram-worker --bins --feature-powerset --exclude-features default --locked -- -D warnings
    CARGO_TARGET_DIR=$target/fuzz cargo clippy --locked --manifest-path fuzz/Cargo.toml --all-targets -- -D warnings
    none git grep -LE '^\[lints' -- Cargo.toml '*/Cargo.toml' ':!examples'
}
# covers: DOC-1
step_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --all-features --locked; }
step_api() { bash ci/api.sh; } # what users of the library can name is what .specs/api.txt says
step_msrv() { # the oldest compiler that Cargo.toml promises builds it
    local version
    version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
    rustup run "$version" rustc --version || skip msrv "rustup toolchain install $version"
    CARGO_TARGET_DIR=$target/msrv rustup run "$version" cargo check --workspace --all-features --locked
}
step_deny() { # licences, duplicate versions, sources of the dependencies
    cargo deny --workspace --locked check bans licenses sources
    cargo deny --manifest-path fuzz/Cargo.toml --locked --config fuzz/deny.toml check bans licenses sources
}
step_advisories() { # known vulnerabilities, unsound, abandoned and yanked crates
    # Fetched, or, for a machine without network, unpacked from a bundled copy.
    local bundled=${VRAM_RESIDENCY_ADVISORY_DB:-../shared/data/advisory-db.sh} config=$target/deny.toml offline=()
    sed "s#^\[advisories\]\$#&\ndb-path = \"$cache/advisory-db\"#" deny.toml >"$config"
    [ ! -f "$bundled" ] || { bash "$bundled" "$cache/advisory-db" && offline=(--offline); }
    [ -f "$bundled" ] || cargo deny --config "$config" fetch db || skip advisories "the database can neither be fetched nor is there a copy"
    cargo fetch --locked && cargo fetch --locked --manifest-path fuzz/Cargo.toml
    cargo deny "${offline[@]}" --workspace --config "$config" check advisories
    cargo deny "${offline[@]}" --manifest-path fuzz/Cargo.toml --config "$config" check advisories
}
step_sbom() { # bills of materials of a production build, in the target folder: every package of it, and no other
    local of package folder build=(--no-default-features --features cuda --target "$host")
    mkdir -p "$target/sbom"
    for of in vram-residency:. vram-worker:worker; do
        package=${of%:*} folder=${of#*:}
        cargo cyclonedx -q --manifest-path "$folder/Cargo.toml" -f json --spec-version 1.5 "${build[@]}" --override-filename bill
        cargo tree --locked -p "$package" "${build[@]}" -e normal,build --prefix none --format '{p}' |
            python3 ci/sbom.py "$folder/bill.json" "$target/sbom/$package.cdx.json"
        git ls-files '*Cargo.toml' | sed 's/Cargo.toml$/bill.json/' | xargs rm -f
    done
}
step_kernels() { bash ci/kernels.sh; } # nvcc compiles every kernel for every architecture, within its limits
# covers: ASR-8
step_machine_code() { # what nvcc makes of the kernels (PTX, sm_90) gives OpenSSL's answers, each access and shuffle checked; no GPU
    python3 -B ci/machine-code/run.py "${NVCC:-$(bash ci/nvcc.sh)}" "$target/machine-code"
}
step_model() { # locks and atomics under chosen orders of threads; VRAM_MODEL_ITERATIONS schedules of each model
    CARGO_TARGET_DIR=$target/model RUSTFLAGS="--cfg vram_model" VRAM_MODEL_ITERATIONS=${VRAM_MODEL_ITERATIONS:-400} \
        tests -p vram-residency --test model
}
# covers: DEV-2
step_features() { # tests without the other feature; a production build without a trace of the mock, with its kernels
    local trace='vram_mock_|vram_host_|ffi/mock|manager/mock|cuda/mock' worker=$target/release/vram-worker nvcc status=0
    tests -p vram-residency --no-default-features --features mock --lib --test contract
    tests -p vram-worker --no-default-features --features cuda --bins
    cargo build --release --locked --bin vram-worker
    grep -aqE "$trace" "$worker" # where the mock is, it is found
    nvcc=$(bash ci/nvcc.sh)
    NVCC=$nvcc cargo build --release --locked -p vram-worker --no-default-features --features cuda
    none grep -aqE "$trace" "$worker"
    NVCC=$nvcc cargo build --release --locked -p vram-residency --no-default-features --features cuda # with the library as its users have it
    none grep -aqE "$trace" "$target/release/libvram_residency.rlib"
    none grep -aq '^.visible .entry' "$worker" # PTX, which a driver would compile
    "$worker" run --device mock 2>&1 | tee "$target/said" || status=$?
    [ "$status" -eq 2 ]
    grep -q "this build has no mock device" "$target/said"
    status=0
    "$worker" run --device cuda:99 >"$target/said" 2>&1 || status=$?
    [ "$status" -eq 4 ]
    none grep -qi mock "$target/said"
    NVCC=$nvcc tests -p vram-residency --lib -E 'test(the_embedded_images_are_native_and_for_every_architecture)'
}
step_package() { # the library as a package: nothing but tracked files, not large, and it builds on its own
    cargo package -p vram-residency --allow-dirty --locked --features mock
    cargo package -p vram-residency --allow-dirty --list | LC_ALL=C sort | LC_ALL=C comm -23 - <(git ls-files -co --exclude-standard | LC_ALL=C sort) |
        diff - <(printf '%s\n' .cargo_vcs_info.json Cargo.toml.orig)
    none grep . <(find "$target/package" -name '*.crate' -size +1000k)
}
# covers: DEV-1 DEV-2
step_mock() { # the mock's and the kernels' own tests in C, under sanitizers; the mock exports only its interface
    local flags=(-std=c11 -Wall -Wextra -Werror -Wconversion -Wshadow -pthread -g) compiler kind add
    for compiler in gcc clang; do
        for kind in address,leak,undefined thread; do
            "$compiler" "${flags[@]}" -O1 "-fsanitize=$kind" -fno-sanitize-recover=all cuda/mock/machine.c cuda/kernels/tests/host_kernels.c cuda/mock/tests/mock_test.c -o "$target/c_test"
            "$target/c_test"
        done
        for add in 0 1; do
            "$compiler" "${flags[@]}" -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -DVRAM_SHA256_MAD=$add \
                cuda/kernels/tests/host_kernels.c cuda/kernels/tests/kernels_test.c -o "$target/c_test"
            "$target/c_test"
        done
    done
    gcc "${flags[@]}" -fvisibility=hidden -c cuda/mock/machine.c -o "$target/mock.o"
    diff <(nm -g --defined-only "$target/mock.o" | awk '{print $3}' | sort) <(grep -oE 'vram_mock_[a-z_]+\(' cuda/include/vram_mock.h | tr -d '(' | sort -u)
}
step_sanitize() { # see `sanitized`; without what takes long, and what leaks a guard, a stream or a panic on purpose
    local leaks='leaked|shutdown_and_the_end|a_pinned_shard|the_end_of_the_manager|a_reader_that_panics|whoever_throws'
    sanitized --lib --test suite --test device -E "not test(/^(flips|limits|properties|digests|history)::|$leaks/)"
}
fuzz_one() { # TARGET: from its corpus; what it finds is tried first the next time
    mkdir -p "$FUZZ_FOUND/$1" "$CARGO_TARGET_DIR/crashes"
    cargo fuzz run --fuzz-dir fuzz "$1" "$FUZZ_FOUND/$1" "fuzz/corpus/$1" -- -max_total_time="${FUZZ_SECONDS:-30}" \
        -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 -max_len=8192 -use_value_profile=1 -seed="${PROPTEST_RNG_SEED:-0}" \
        -artifact_prefix="$CARGO_TARGET_DIR/crashes/$1-" >"$CARGO_TARGET_DIR/$1.log" 2>&1 && tail -n 1 "$CARGO_TARGET_DIR/$1.log" && return
    grep -vE 'NEW|REDUCE|pulse' "$CARGO_TARGET_DIR/$1.log" | tail -n 60
    return 1
}
step_fuzz() { # what parses foreign input: FUZZ_SECONDS of each target, two at a time
    export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$target/fuzz FUZZ_FOUND=${FUZZ_FOUND:-$target/fuzz/found}
    export -f fuzz_one
    cargo fuzz build --fuzz-dir fuzz
    cargo fuzz list --fuzz-dir fuzz | xargs -P 2 -I NAME bash -c 'fuzz_one NAME'
}
# covers: DIG-1 DIG-3
step_fsverity() { # library and worker agree with the stock tool: on random questions, on a real model
    local model=.models/minilm/model.safetensors right
    tests -p vram-residency --test fsverity_parity --run-ignored only -E 'test(random_questions_to_the_stock_tool)'
    bash ci/fetch-minilm.sh || skip fsverity "the model could not be fetched; random questions agree"
    right=$(fsverity digest "$model")
    [ "$(cargo run --release --locked -q --bin vram-worker -- digest "$model")" = "$right" ]
    cargo run --release --locked -q --bin vram-worker -- run "$model" --device mock --layout file --expect "${right%% *}"
}
# covers: DOC-1
step_readme() { # README's main job does what README says, and names its device
    bash -euc "$(readme run)" 2>&1 | tee "$target/said"
    grep -qiE 'mock|cuda' "$target/said"
}
step_outside() { # one bit changed in the running worker's memory by another process stops it
    [ "$(id -u)" -eq 0 ] || skip outside "needs root"
    tests -p vram-worker --test worker --run-ignored only -E 'test(/^outside::/)'
}
step_gpu() { # what is taken to a GPU machine runs on the mock
    bash ci/gpu-bundle.sh --quick
    VRAM_TEST_DEVICE=mock "$target/gpu-bundle/gpu-run.sh" "$target/gpu-bundle/out" probe device weights attacks
}
# covers: ASR-1
step_bdd() { # a step that nobody defines fails the behaviour suite
    local features=$target/planted-feature
    mkdir -p "$features"
    printf 'Feature: Planted\n  Scenario: Planted\n    Given a step that nobody defines\n' >"$features/planted.feature"
    if VRAM_TEST_FEATURES=$features cargo test --locked -p vram-residency-bdd >"$target/said" 2>&1; then return 1; fi
    grep -q 'a step that nobody defines' "$target/said"
}
step_unit() { # what a commit hook can afford
    cargo test --locked -p vram-residency --lib
    cargo test --locked -p vram-residency --test suite properties::
}

mapfile -t steps < <(sed -n 's/^step_\([a-z_]*\)() .*/\1/p' "$0" | grep -v unit)
[ "${1:-}" != --list ] || { printf '%s\n' "${steps[@]}" unit && exit 0; }
[ $# -gt 0 ] || set -- "${steps[@]}"
run_steps step "$@"
