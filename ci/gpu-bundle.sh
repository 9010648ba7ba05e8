#!/usr/bin/env bash
# Makes a folder with all that a GPU machine needs to run the suites, the attacks and the benches without a Rust toolchain:
#
#   ci/gpu-bundle.sh [--plain] [--sanitizer] [--quick] [FOLDER]        (target/gpu-bundle when not given)
#
# There, FOLDER/gpu-run.sh runs them. `--plain` adds the bench with the kernels' plain variant (VRAM_SHA256_MAD=0), `--sanitizer`
# NVIDIA's compute-sanitizer (28 MB, from a Python wheel) for machines that have none. `--quick` takes
# the debug build of the attacks and the bench, without kernels, and the stand-in for the driver: enough to try gpu-run.sh on a
# machine without a GPU. Fails when the bundle is too large, needs a library besides the C library, or when the worker in it
# knows the mock. Needs what ci/nvcc.sh needs, python3 and binutils.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

most_bytes=$((60 << 20))
# What every Linux with glibc has.
allowed='^(libc\.so\.6|libm\.so\.6|libgcc_s\.so\.1|ld-linux-x86-64\.so\.2)$'
plain=no quick=no sanitizer=no folder=""
for argument in "$@"; do
    case $argument in
        --plain) plain=yes ;;
        --quick) quick=yes ;;
        --sanitizer) sanitizer=yes ;;
        -*) sed -n '2,/^# shell/{/^# shell/d;s/^# \{0,1\}//p}' "$0" >&2 && exit 2 ;;
        *) folder=$argument ;;
    esac
done
folder=${folder:-$target/gpu-bundle}

need strip binutils
need readelf binutils
messages=$(mktemp)
trap 'rm -f "$messages"' EXIT

build() { # CARGO ARGUMENT…: builds, and notes what was made
    cargo build --locked --message-format=json-render-diagnostics "$@" >"$messages" || exit 1
}
# made KIND NAME: the file of a target. made out FILE: the newest build script's folder that holds FILE. made env NAME: what one set.
made() {
    python3 - "$messages" "$@" <<'PY'
import json, pathlib, sys
file, kind, name = sys.argv[1:]
found = None
for line in open(file, encoding="utf-8"):
    message = json.loads(line)
    if kind == "out" and message.get("out_dir") and (pathlib.Path(message["out_dir"]) / name).is_file():
        found = message["out_dir"]
    elif kind == "env" and message.get("env"):
        found = dict(message["env"]).get(name, found)
    elif message.get("executable") and kind in message["target"]["kind"] and message["target"]["name"] == name:
        found = message["executable"]
if found is None:
    sys.exit(f"error: cargo made no {kind} {name}")
print(found)
PY
}
take() { # KIND NAME [AS]
    local file
    file=$(made "$1" "$2") || exit 1
    strip -o "$folder/bin/${3:-$2}" "$file" || exit 1
}

# What is built: the tree as it is now, not when the build is done.
commit=$(git rev-parse HEAD)
[ -z "$(git status --porcelain --untracked-files=no)" ] || commit=$commit+changes
rm -rf "$folder"
mkdir -p "$folder/bin" || exit 1
folder=$(cd "$folder" && pwd)
cp ci/gpu-run.sh "$folder/"

nvcc_version=none
if [ "$quick" = yes ]; then
    build --test attacks --bench device
    take test attacks
    take bench device bench-device
    mkdir "$folder/stand-in"
    cp "$(made env VRAM_RESIDENCY_STAND_IN)" "$folder/stand-in/" || exit 1
else
    nvcc=$(bash ci/nvcc.sh) || exit 1
    nvcc_version=$("$nvcc" --version | sed -n 's/^Cuda compilation tools, //p')
    export NVCC=$nvcc VRAM_RESIDENCY_BACKEND=cuda CARGO_PROFILE_RELEASE_STRIP=symbols CARGO_TARGET_DIR=$target/bundle
    # Nothing of this machine's folders in the programs.
    export RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$root=/vram-residency"
    build --release -p vram-worker --no-default-features --features cuda
    take bin vram-worker
    build --release -p vram-residency -p vram-residency-bdd --test device --test attacks --test bdd --bench device
    for name in device attacks bdd; do
        take test "$name"
    done
    take bench device bench-device
    cp -r bdd/features "$folder/features"
    mkdir "$folder/kernels"
    cp "$(made out vram_kernels_90.cubin)"/vram_kernels_*.cubin "$(made out engine_90.cubin)"/engine_90.cubin "$folder/kernels/" || exit 1
    if [ "$plain" = yes ]; then
        # The kernels' own switch, between nvcc and the build script.
        printf '#!/bin/sh\ncase " $* " in\n*" -gencode "*) exec "%s" -DVRAM_SHA256_MAD=0 "$@" ;;\n*) exec "%s" "$@" ;;\nesac\n' \
            "$nvcc" "$nvcc" >"$CARGO_TARGET_DIR/nvcc-plain"
        chmod +x "$CARGO_TARGET_DIR/nvcc-plain"
        NVCC=$CARGO_TARGET_DIR/nvcc-plain build --release -p vram-residency --bench device
        take bench device bench-device-plain
    fi
fi

if [ "$sanitizer" = yes ]; then
    need python3 python3-venv
    tools=${VRAM_RESIDENCY_TOOLS:-$root/.tools}/compute-sanitizer-13.0
    if [ ! -e "$tools/complete" ]; then
        rm -rf "$tools" && mkdir -p "$tools" || exit 1
        python3 -m venv "$tools/venv" && "$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
            --target "$tools" 'nvidia-cuda-sanitizer-api==13.0.*' || exit 1
        rm -rf "$tools/venv"
        touch "$tools/complete"
    fi
    mkdir -p "$folder/sanitizer/lib"
    cp -r "$tools/nvidia/cu13/bin" "$folder/sanitizer/" && cp "$tools"/nvidia/cu13/lib/*.so* "$folder/sanitizer/lib/" || exit 1
    # The largest is there twice.
    ln -sf ../bin/libsanitizer-collection.so "$folder/sanitizer/lib/" || exit 1
    chmod +x "$folder/sanitizer/bin/compute-sanitizer"
    "$folder/sanitizer/bin/compute-sanitizer" --version >/dev/null || exit 1
fi

# What it must be.
failed=0
wrong() {
    echo "error: $1" >&2
    failed=1
}
glibc=$(readelf -V "$folder"/bin/* | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
for file in "$folder"/bin/*; do
    while read -r library; do
        [[ $library =~ $allowed ]] || wrong "$(basename "$file") needs $library"
    done < <(readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p')
    for trace in "$HOME/" "$root/"; do
        found=$(grep -acF -- "$trace" "$file")
        [ "$found" -eq 0 ] || echo "note: $(basename "$file") holds $found lines with a folder of this machine"
        [ "$found" -eq 0 ] || [ "$(basename "$file")" != vram-worker ] || wrong "the worker names a folder of this machine"
    done
done
if [ "$quick" = no ]; then
    grep -aqE 'vram_mock|src/(driver|ffi|manager)/mock|stand-in' "$folder/bin/vram-worker" && wrong "the worker holds something of the mock"
    said=$("$folder/bin/vram-worker" run --device mock 2>&1) && wrong "the worker runs on the mock"
    [[ $said == *"no mock device"* ]] || wrong "the worker does not say that it has no mock: $said"
fi

{
    printf 'commit: %s\nrustc: %s\nnvcc: %s\nglibc: %s or later\nquick: %s\n\n' "$commit" "$(rustc --version)" "$nvcc_version" "${glibc#GLIBC_}" "$quick"
    (cd "$folder" && find . -type f ! -name MANIFEST -printf '%P\n' | LC_ALL=C sort | xargs sha256sum)
} >"$folder/MANIFEST"
(cd "$folder" && find . -type f -printf '%s %P\n' | sort -rn | awk '{ printf "%10d  %s\n", $1, $2; all += $1 } END { printf "%10d  in all\n", all }')
sed -n '1,/^$/p' "$folder/MANIFEST"
bytes=$(find "$folder" -type f -printf '%s\n' | awk '{ all += $1 } END { print all }')
[ "$bytes" -le "$most_bytes" ] || wrong "$bytes bytes are more than $most_bytes"
[ "$failed" -eq 0 ] && echo "$folder"
exit "$failed"
