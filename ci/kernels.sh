#!/usr/bin/env bash
# Compiles the kernels for every architecture, without a warning, and looks at what came out: no spills, no stack frame, at most 64
# registers, the entry points that vram_kernels.h names, 16-byte loads, no local memory, and the same bytes from another folder.
# Both ways of adding (VRAM_SHA256_MAD) compile; the default one is held to the limits. Needs no GPU: nothing is run.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
set -e

nvcc=${NVCC:-$(bash ci/nvcc.sh)}
PATH=$(dirname "$nvcc"):$PATH
unset NVCC_PREPEND_FLAGS NVCC_APPEND_FLAGS
out=$target/kernels
rm -rf "$out"
mkdir -p "$out/elsewhere/tmp"
cp -r cuda "$out/elsewhere"
source=cuda/kernels/vram_kernels.cu
architectures=$(sed -n 's/^const ARCHITECTURES: &\[u32\] = &\[\(.*\)\];$/\1/p' build.rs | tr -d ,)
entries=$(sed -n 's/^#define VRAM_[A-Z_]* "\(vram_[a-z_]*\)"$/\1/p' cuda/include/vram_kernels.h | sort)

compile() { # ARCHITECTURE VRAM_SHA256_MAD IMAGE
    nvcc -std=c++17 -O3 -Werror all-warnings "-DVRAM_SHA256_MAD=$2" -Xptxas -v -cubin -gencode "arch=compute_$1,code=sm_$1" $source -o "$3"
}
for arch in $architectures; do
    image=$out/sm_$arch.cubin
    compile "$arch" 1 "$image" 2>&1 | tee "$image.txt" | awk -v arch="$arch" '
        /Compiling entry function/ { split($0, part, "\047"); name = part[2] }
        /bytes stack frame/ { lost = $1 + $5 + $9 }
        /Used [0-9]+ registers/ { match($0, /Used [0-9]+/); used = substr($0, RSTART + 5, RLENGTH - 5)
            printf "sm_%s %-20s %3d registers, %d bytes of stack and spills\n", arch, name, used, lost
            bad += used > 64 || lost > 0; seen++ }
        END { exit bad || !seen }'
    diff <(echo "$entries") <(cuobjdump -res-usage "$image" 2>&1 | sed -n 's/^ *Function \(.*\):$/\1/p' | sort)
    # Two sets of four in each level (the first 64 bytes, and the prefetch), five in the count; of a keyed
    # level two of data, two of key with each.
    cuobjdump -sass "$image" | awk '
        /Function : / { name = $3 }
        / LDG\.[A-Z0-9.]*128/ { wide[name]++ }
        / (LDL|STL)[. ]/ { bad = 1 }
        END { exit bad || wide["vram_verity_leaves"] < 8 || wide["vram_verity_nodes"] < 8 || wide["vram_count_nonzero"] < 5 || wide["vram_keyed_level"] < 8 }'
    (cd "$out/elsewhere" && TMPDIR=$out/elsewhere/tmp compile "$arch" 1 again.cubin >/dev/null 2>&1)
    cmp "$image" "$out/elsewhere/again.cubin"
    compile "$arch" 0 "$out/plain.cubin" >"$out/plain.txt" 2>&1 || { cat "$out/plain.txt"; exit 1; }
done
[ "$(wc -w <<<"$architectures")" -ge 6 ]
