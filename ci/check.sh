#!/usr/bin/env bash
# Every check besides `cargo test`: ci/check.sh [STEP…]   (no STEP: all of them; `ci/check.sh --list` names them)
# Each step runs on its own and is timed. A step that cannot run here is listed as skipped, by name, and never as passed.
# covers: ASR-7
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

steps=(
    scripts
    traces
    links
    requirements
    floors
    fmt
    clippy
    docs
    api
    msrv
    msrv_declared
    deny
    advisories
    planted_dependency
    sbom
    kernels
    model
    features
    package
    bdd_stand_in
    mock_sanitize
    sanitize
    device_stand_in
    fuzz
    fsverity_parity
    cli_parity
    readme
    real_weights
    flip_from_outside
    gpu_scripts
)
# What a commit hook runs besides: the unit and property tests.
extra=(unit)

# What this script and ci/lib.sh make of tests that are none, of steps that all skip themselves, and of a git that fails.
check_self_test() {
    local folder status=0
    folder=$(mktemp -d) || return 1
    expected() { # EXIT-STATUS TEXT COMMAND…: that status, and a line with that text
        local ended
        "${@:3}" >"$folder/said" 2>&1
        ended=$?
        [ "$ended" -eq "$1" ] && grep -qF -- "$2" "$folder/said" && return
        echo "self-test: ${*:3}: exit status $ended, not $1, or it does not say: $2" >&2
        cat "$folder/said" >&2
        status=1
    }
    expected 0 "3 passed" some_tests echo "test result: ok. 3 passed; 0 failed"
    expected 1 "error: no test ran" some_tests echo "test result: ok. 0 passed; 0 failed"
    expected 3 "3 passed" some_tests bash -c 'echo "test result: ok. 3 passed"; exit 3'
    # A toolchain that is not there, a step that runs all the same, and no repository.
    printf '#!/bin/sh\nexit 1\n' >"$folder/rustup" && chmod +x "$folder/rustup"
    expected 1 "every step was skipped" env CARGO_TARGET_DIR="$folder" PATH="$folder:$PATH" bash ci/check.sh msrv
    expected 0 "1 passed, 0 failed, 1 skipped" env CARGO_TARGET_DIR="$folder" PATH="$folder:$PATH" bash ci/check.sh msrv traces
    expected 1 "git cannot look for a home folder" env CARGO_TARGET_DIR="$folder" GIT_DIR="$folder/none" bash ci/check.sh traces
    rm -rf "$folder"
    [ "$status" -eq 0 ] && echo "check self-test: as expected"
}

step_scripts() { # the check scripts themselves: syntax, lint, their own self-tests
    local status=0 file
    while read -r file; do
        bash -n "$file" || status=1
    done < <(git ls-files .ci/run 'ci/*.sh' 'ci/deep/*.sh' 'ci/hooks/*')
    python3 - <<'PY' || status=1
import ast, pathlib, sys
for path in sorted(pathlib.Path("ci").glob("*.py")):
    ast.parse(path.read_text(encoding="utf-8"), str(path))
PY
    python3 ci/requirements.py --self-test || status=1
    python3 ci/summarise.py --self-test || status=1
    python3 ci/materialise.py --self-test || status=1
    python3 ci/mutants.py --self-test || status=1
    python3 ci/patched.py --self-test || status=1
    python3 ci/planted-faults.py --fit || status=1
    python3 ci/removed-waits.py --fit || status=1
    bash ci/fuzz.sh --self-test || status=1
    bash ci/deep.sh --self-test || status=1
    check_self_test || status=1
    python3 ci/gates.py --self-test || status=1
    python3 ci/asides.py --self-test || status=1
    python3 ci/gpu-results.py --self-test || status=1
    if command -v shellcheck >/dev/null; then
        git ls-files .ci/run 'ci/*.sh' 'ci/deep/*.sh' 'ci/hooks/*' | xargs shellcheck -x || status=1
    else
        echo "SKIPPED scripts/shellcheck: shellcheck is not installed"
    fi
    return "$status"
}

# nowhere WHAT PATTERN…: no tracked file has it. Only git's "not found" says so: a git that cannot look fails, too.
nowhere() {
    git grep -nI "${@:2}" -- . ':!Cargo.lock'
    case $? in
        0) echo "error: the lines above name $1" >&2 ;;
        1) return 0 ;;
        *) echo "error: git cannot look for $1" >&2 ;;
    esac
    return 1
}

step_traces() { # no path of anybody's machine in the project
    local home='/(home|Users)/[A-Za-z0-9._-]+/|/ro''ot/'
    nowhere "a home folder" -E -e "$home" || return 1
    # The folders of this very machine; one component alone (`/src/`) is no trace.
    local folder
    for folder in "$HOME/" "$(dirname "$root")/"; do
        [[ $folder == /*/*/ ]] || continue
        nowhere "a folder of this machine" -F -e "$folder" || return 1
    done
}

step_links() { # every relative link of the documents leads somewhere
    python3 - <<'PY'
import pathlib, re, subprocess, sys
bad = 0
for name in subprocess.run(["git", "ls-files", "*.md"], capture_output=True, text=True, check=True).stdout.split():
    text = re.sub(r"```.*?```", "", pathlib.Path(name).read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in link and not link.startswith("mailto:") and not (pathlib.Path(name).parent / link).exists():
            print(f"{name}: {link} leads nowhere", file=sys.stderr)
            bad += 1
sys.exit(1 if bad else 0)
PY
}

step_requirements() { python3 ci/requirements.py; }

step_floors() { bash ci/floors.sh; } # no circle among the modules of src, and no use that is not listed

step_fmt() { cargo fmt --all --check; }

step_clippy() {
    cargo clippy --workspace --all-targets --all-features --locked -- -D warnings || return 1
    # The library as its users can build it. Only the library: its tests turn `mock` on for themselves.
    local features
    for features in "" cuda mock; do
        echo "library with --no-default-features --features \"$features\""
        cargo clippy -p vram-residency --lib --locked --no-default-features --features "$features" -- -D warnings || return 1
    done
    python3 ci/asides.py || return 1 # log lines and metrics hinder nothing
    python3 ci/lints.py --target-dir "$target" # each lint of Cargo.toml is in force
}

# covers: DOC-1
step_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --all-features --locked; }

step_api() { # what users of the library can name is what .specs/api.txt says
    bash ci/api.sh --self-test && bash ci/api.sh
}

step_msrv() { # the oldest compiler that Cargo.toml promises
    local version
    version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
    rustup run "$version" rustc --version 2>/dev/null || skip msrv "Rust $version is not installed (rustup toolchain install $version)"
    CARGO_TARGET_DIR=$target/msrv rustup run "$version" cargo check --workspace --all-features --locked
}

step_msrv_declared() { # what a newer compiler can tell about that promise
    python3 ci/msrv.py --target-dir "$target"
}

# Every crate of the lock files, those of other platforms included: cargo-deny reads them all.
deny_needs() {
    cargo_tool cargo-deny && cargo fetch --locked && cargo fetch --locked --manifest-path tests/fuzz/Cargo.toml
}

step_deny() { # licences, duplicate versions, sources
    deny_needs && cargo deny --offline --workspace check bans licenses sources &&
        cargo deny --offline --manifest-path tests/fuzz/Cargo.toml --config tests/fuzz/deny.toml check bans licenses sources
}

step_advisories() { # known vulnerabilities, unsound, abandoned and yanked crates
    deny_needs || return 1
    advisory_database
    case $? in
        0)
            cargo deny --offline --workspace --config "$deny_config" check advisories &&
                cargo deny --offline --manifest-path tests/fuzz/Cargo.toml --config "$deny_config" check advisories
            ;;
        "$SKIP") skip advisories "the advisory database can neither be fetched nor is there a bundled copy" ;;
        *) return 1 ;;
    esac
}

step_planted_dependency() { # the gates above find what they are there for
    deny_needs && bash ci/planted-dependency.sh
}

step_sbom() { # the bills of materials of a production build: complete, without surplus, twice the same
    cargo_tool cargo-cyclonedx && cargo fetch --locked && python3 ci/sbom.py "$target/sbom" --self-test
}

step_kernels() { bash ci/kernels.sh; } # nvcc compiles every kernel for every architecture, within its limits

step_model() { bash ci/model.sh; } # locks and atomics under chosen orders of threads

step_features() { bash ci/features.sh; } # each combination of features; a production build without a trace of the mock

step_package() { bash ci/package.sh; } # the library as a package: contents, and that it builds on its own

step_bdd_stand_in() { # every scenario that a CUDA device can run, over a stand-in for its driver's library
    # First the plant: the suite's report is to be that of the features.
    planted_step && VRAM_TEST_DEVICE=stand-in cargo test --locked -p vram-residency-bdd --test bdd
}

planted_step() { # a scenario with a step that nobody defines fails the suite, which without it passes
    local features suite status=0
    features=$(mktemp -d) || return 1
    suite=(env VRAM_TEST_DEVICE=stand-in "VRAM_TEST_FEATURES=$features" cargo test --locked -p vram-residency-bdd --test bdd)
    cp bdd/features/devices.feature "$features"
    "${suite[@]}" || { echo "error: without a planted step the suite fails" >&2; status=1; }
    printf '\n  Scenario: Planted\n    Given a step that nobody defines\n' >>"$features/devices.feature"
    if "${suite[@]}" >"$features/said" 2>&1; then
        echo "error: a step that nobody defines did not fail the suite" >&2
        status=1
    elif ! grep -q 'a step that nobody defines' "$features/said"; then
        cat "$features/said"
        echo "error: the suite failed for another reason than the planted step" >&2
        status=1
    fi
    rm -rf "$features"
    return "$status"
}

step_mock_sanitize() { bash ci/mock-sanitize.sh; }

step_sanitize() { # the crate under the address and leak sanitizers, on the stable compiler
    # A folder of its own: every crate is built anew with the sanitizer. The mock's C code has its own step. One test asks for
    # memory that no machine has, and wants an error as it gets without the sanitizer.
    CARGO_TARGET_DIR=$target/sanitize RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" \
        ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:allocator_may_return_null=1 \
        cargo test --locked --target x86_64-unknown-linux-gnu -p vram-residency --lib --test suite -- \
        tests:: failing_device:: sources::
}

step_device_stand_in() { # the device suite over the CUDA driver, on the stand-in; `cargo test` runs it on the mock
    # A hundred or so histories, each on what the last one left.
    VRAM_TEST_DEVICE=stand-in cargo test --locked -p vram-residency --test device || return 1
    # Once more with a process for each case, which is how a GPU runs them.
    VRAM_TEST_DEVICE=stand-in VRAM_TEST_APART=1 some_tests cargo test --locked -p vram-residency --test device -- life:: || return 1
    # The library under the address and leak sanitizers, in the folder of `sanitize`, whose crates it shares.
    CARGO_TARGET_DIR=$target/sanitize RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" \
        ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 VRAM_TEST_DEVICE=stand-in \
        cargo test --locked --target x86_64-unknown-linux-gnu -p vram-residency --test device -- \
        --skip digests:: --skip history::
}

step_fuzz() { # what parses foreign input, half a minute for each target
    cargo fmt --manifest-path tests/fuzz/Cargo.toml --check || return 1
    CARGO_TARGET_DIR=$target/fuzz cargo clippy --locked --manifest-path tests/fuzz/Cargo.toml --all-targets -- -D warnings || return 1
    bash ci/fuzz.sh 30
}

step_fsverity_parity() { # the library's digest against the stock tool
    need fsverity fsverity
    bash ci/fsverity-parity.sh
}

step_cli_parity() { # the worker's digest against the stock tool
    need fsverity fsverity
    worker
    python3 ci/cli-parity.py --worker "$worker"
}

# covers: DOC-1
step_readme() { # README's main job does what README says; its tests command is the one that .ci/run runs
    local command
    ci/readme-command.sh tests >/dev/null || return 1
    command=$(ci/readme-command.sh run) || return 1
    echo "\$ $command"
    bash -euc "$command" 2>&1 | tee "$target/readme-run.log" || return 1
    # Where there is no GPU the mock runs instead, and says so.
    grep -qiE 'mock|cuda' "$target/readme-run.log" || { echo "error: the output does not name its device" >&2; return 1; }
}

step_real_weights() {
    need fsverity fsverity
    worker
    bash ci/real-weights.sh "$worker"
}

step_flip_from_outside() {
    worker
    python3 ci/flip-from-outside.py --worker "$worker"
}

step_gpu_scripts() { # what runs on a GPU machine, on a small bundle and the stand-in
    bash ci/gpu-scripts.sh
}

step_unit() { # what a commit hook can afford
    cargo test --locked -p vram-residency --lib || return 1
    cargo test --locked -p vram-residency --test suite properties::
}

if [ "${1:-}" = --list ]; then
    printf '%s\n' "${steps[@]}" "${extra[@]}"
    exit 0
fi
chosen=("$@")
[ $# -gt 0 ] || chosen=("${steps[@]}")
for name in "${chosen[@]}"; do
    declare -F "step_${name//-/_}" >/dev/null || { echo "error: no step $name; there are: ${steps[*]} ${extra[*]}" >&2; exit 2; }
done

logs=$target/check-logs
mkdir -p "$logs"
passed=0 failed=() skipped=() table=()
for name in "${chosen[@]}"; do
    name=${name//-/_}
    echo "=== $name"
    began=$SECONDS
    ("step_$name") 2>&1 | tee "$logs/$name.log"
    status=${PIPESTATUS[0]}
    took=$((SECONDS - began))
    case $status in
        0) word=passed passed=$((passed + 1)) ;;
        "$SKIP") word=SKIPPED ;;
        *) word=FAILED failed+=("$name") ;;
    esac
    table+=("$(printf '%-18s %-8s %5d s' "$name" "$word" "$took")")
    # A step may also leave out a part of itself; that part is named too.
    mapfile -t parts < <(grep -a '^SKIPPED ' "$logs/$name.log")
    skipped+=("${parts[@]}")
    [ "$status" -ne "$SKIP" ] || [ "${#parts[@]}" -gt 0 ] || skipped+=("SKIPPED $name: it gave no reason")
done

for name in "${failed[@]}"; do
    printf '\n=== the end of %s, which failed (all of it: %s)\n' "$name" "$logs/$name.log"
    tail -n 40 "$logs/$name.log"
done
printf '\n%-18s %-8s %7s\n' check result time
printf '%s\n' "${table[@]}"
printf '%-18s %-8s %5d s\n' "all of it" "" "$SECONDS"
[ "${#skipped[@]}" -eq 0 ] || printf '%s\n' "${skipped[@]}"
echo "check result: $passed passed, ${#failed[@]} failed, ${#skipped[@]} skipped"
[ "${#failed[@]}" -eq 0 ] || exit 1
# What skips itself has shown nothing.
[ "$passed" -gt 0 ] || { echo "error: nothing was shown: every step was skipped" >&2; exit 1; }
