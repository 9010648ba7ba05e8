#!/usr/bin/env bash
# Every check besides `cargo test`: ci/check.sh [STEP…]   (no STEP: all of them; `ci/check.sh --list` names them)
# Each step runs on its own and is timed. A step that cannot run here is listed as skipped, by name, and never as passed.
# covers: ASR-5 ASR-7
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

steps=(
    scripts
    traces
    links
    requirements
    fmt
    clippy
    docs
    msrv
    deny
    advisories
    kernels
    mock_sanitize
    sanitize
    fsverity_parity
    cli_parity
    readme
    real_weights
    flip_from_outside
    gpu_scripts
)
# What a commit hook runs besides: the unit and property tests.
extra=(unit)

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
    python3 ci/gpu-results.py --self-test || status=1
    if command -v shellcheck >/dev/null; then
        git ls-files .ci/run 'ci/*.sh' 'ci/deep/*.sh' 'ci/hooks/*' | xargs shellcheck -x || status=1
    else
        echo "SKIPPED scripts/shellcheck: shellcheck is not installed"
    fi
    return "$status"
}

step_traces() { # no path of anybody's machine in the project
    local home='/(home|Users)/[A-Za-z0-9._-]+/|/ro''ot/'
    if git grep -nIE -e "$home" -- . ':!Cargo.lock'; then
        echo "error: the lines above name a home folder" >&2
        return 1
    fi
    # The folders of this very machine; one component alone (`/src/`) is no trace.
    local folder
    for folder in "$HOME/" "$(dirname "$root")/"; do
        [[ $folder == /*/*/ ]] || continue
        if git grep -nIF -e "$folder" -- . ':!Cargo.lock'; then
            echo "error: the lines above name a folder of this machine" >&2
            return 1
        fi
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

step_fmt() { cargo fmt --all --check; }

step_clippy() {
    cargo clippy --workspace --all-targets --all-features --locked -- -D warnings || return 1
    # The library as its users can build it. Only the library: its tests turn `mock` on for themselves.
    local features
    for features in "" cuda mock; do
        echo "library with --no-default-features --features \"$features\""
        cargo clippy -p vram-residency --lib --locked --no-default-features --features "$features" -- -D warnings || return 1
    done
}

# covers: DOC-1
step_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --all-features --locked; }

step_msrv() { # the oldest compiler that Cargo.toml promises
    local version
    version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
    rustup run "$version" rustc --version 2>/dev/null || skip msrv "Rust $version is not installed (rustup toolchain install $version)"
    CARGO_TARGET_DIR=$target/msrv rustup run "$version" cargo check --workspace --all-features --locked
}

# Every crate of the lock file, those of other platforms included: cargo-deny reads them all.
deny_needs() {
    command -v cargo-deny >/dev/null || { echo "error: cargo-deny is missing: cargo install --locked cargo-deny" >&2; return 1; }
    cargo fetch --locked
}

step_deny() { # licences, duplicate versions, sources
    deny_needs && cargo deny --offline --workspace check bans licenses sources
}

step_advisories() { # known vulnerabilities, unsound, abandoned and yanked crates
    deny_needs || return 1
    # The database is fetched, or, for a machine without network, unpacked from a bundled copy.
    local bundled=${VRAM_RESIDENCY_ADVISORY_DB:-../shared/data/advisory-db.sh}
    local cache=${XDG_CACHE_HOME:-$HOME/.cache}/vram-residency/advisory-db
    local config=$target/deny-bundled.toml
    if [ -f "$bundled" ]; then
        bash "$bundled" "$cache" || return 1
        mkdir -p "$target"
        sed "s#^\[advisories\]\$#&\ndb-path = \"$cache\"#" deny.toml >"$config" || return 1
        cargo deny --offline --workspace --config "$config" check advisories
    elif cargo deny fetch db; then
        cargo deny --workspace check --disable-fetch advisories
    else
        skip advisories "the advisory database can neither be fetched nor is there a bundled copy"
    fi
}

step_kernels() { bash ci/kernels.sh; } # nvcc compiles every kernel for every architecture, within its limits

step_mock_sanitize() { bash ci/mock-sanitize.sh; }

step_sanitize() { # the crate under the address and leak sanitizers, on the stable compiler
    # A folder of its own: every crate is built anew with the sanitizer. The mock's C code has its own step.
    CARGO_TARGET_DIR=$target/sanitize RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" \
        ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 \
        cargo test --locked --target x86_64-unknown-linux-gnu -p vram-residency --lib --test cycles -- \
        --skip one_that_is_leaked # that test leaks a guard on purpose
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
    [ ! -f tests/properties.rs ] || cargo test --locked -p vram-residency --test properties
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
[ "${#skipped[@]}" -eq 0 ] || printf '%s\n' "${skipped[@]}"
echo "check result: $passed passed, ${#failed[@]} failed, ${#skipped[@]} skipped"
[ "${#failed[@]}" -eq 0 ]
