#!/usr/bin/env bash
# Compiles the kernels for every architecture and looks at what came out: no spills, no stack frame, at most 64 registers, the entry
# points that vram_kernels.h names, 16-byte loads, and the same bytes from a second build in another folder. Both ways of
# adding (VRAM_SHA256_MAD) are compiled; the default one is held to the limits. Writes target/kernels/report.txt.
# Needs nvcc (NVCC, PATH or ci/nvcc.sh). No GPU: nothing is run. Last line: "N passed, N failed".
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

nvcc=${NVCC:-$(command -v nvcc || bash ci/nvcc.sh)} || exit 1
[ -x "$nvcc" ] || { echo "error: $nvcc is no nvcc" >&2; exit 1; }
tool() { # the tool beside nvcc, or on PATH
    [ -x "$(dirname "$nvcc")/$1" ] && { echo "$(dirname "$nvcc")/$1"; return; }
    command -v "$1" || { echo "error: $1 is missing; it comes with ci/nvcc.sh" >&2; return 1; }
}
cuobjdump=$(tool cuobjdump) || exit 1
PATH=$(dirname "$cuobjdump"):$PATH # cuobjdump looks for nvdisasm there

out=$target/kernels
rm -rf "$out"
mkdir -p "$out"
report=$out/report.txt
source=cuda/kernels/vram_kernels.cu
flags=(-std=c++17 -O3)
mapfile -t architectures < <(sed -n 's/^const ARCHITECTURES: &\[u32\] = &\[\(.*\)\];$/\1/p' build.rs | tr -d ' ' | tr ',' '\n')
mapfile -t entries < <(sed -n 's/^#define VRAM_[A-Z_]* "\(vram_[a-z_]*\)"$/\1/p' cuda/include/vram_kernels.h | sort)
most_registers=64
passed=0 failed=0

compile() { # architecture, VRAM_SHA256_MAD, image; what ptxas says goes into IMAGE.txt
    env -u NVCC_PREPEND_FLAGS -u NVCC_APPEND_FLAGS "$nvcc" "${flags[@]}" -Werror all-warnings "-DVRAM_SHA256_MAD=$2" -Xptxas -v \
        -cubin -gencode "arch=compute_$1,code=sm_$1" "$source" -o "$3" >"$3.txt" 2>&1 || { cat "$3.txt"; return 1; }
}

# One line a kernel: name, registers, bytes of stack frame, spill stores, spill loads.
resources() { # IMAGE
    awk '/Compiling entry function/ { split($0, part, "\047"); name = part[2] }
        /bytes stack frame/ { stack = $1; stores = $5; loads = $9 }
        /Used [0-9]+ registers/ { match($0, /Used [0-9]+/); print name, substr($0, RSTART + 5, RLENGTH - 5), stack, stores, loads }' \
        "$1.txt"
}

no_spills() { # IMAGE
    [ "$(resources "$1" | wc -l)" -eq "${#entries[@]}" ] || { echo "ptxas did not report every kernel"; return 1; }
    resources "$1" | awk -v most="$most_registers" '$2 > most || $3 + $4 + $5 > 0 { print "kernel, registers, stack, stores, loads: " $0; bad = 1 }
        END { exit bad }'
}

has_entries() { # IMAGE
    "$cuobjdump" -res-usage "$1" 2>&1 | sed -n 's/^ *Function \(.*\):$/\1/p' | sort >"$out/found"
    printf '%s\n' "${entries[@]}" | diff - "$out/found"
}

code() { "$cuobjdump" -sass "$1" | python3 ci/kernels.py --rows "$2"; } # IMAGE, label

loads_are_wide() { # IMAGE
    # Two sets of four in each level (the first 64 bytes, and the prefetch), five in the count, no access to local memory.
    code "$1" x | awk '{ wide[$2] = $4; local += $5 }
        END { exit !(wide["vram_verity_leaves"] >= 8 && wide["vram_verity_nodes"] >= 8 && wide["vram_count_nonzero"] >= 5 && !local) }'
}

same_elsewhere() { # architecture, IMAGE: another folder, another time, other temporary files
    local elsewhere
    elsewhere=$(mktemp -d)
    cp -r cuda "$elsewhere/"
    mkdir "$elsewhere/temporary"
    (cd "$elsewhere" && TMPDIR=$elsewhere/temporary compile "$1" 1 "$elsewhere/again.cubin") && cmp "$2" "$elsewhere/again.cubin"
    local status=$?
    rm -rf "$elsewhere"
    return "$status"
}

ptx_is_the_same_twice() {
    local each
    for each in a b; do
        "$nvcc" "${flags[@]}" -ptx -gencode arch=compute_80,code=compute_80 "$source" -o "$out/$each.ptx" || return 1
    done
    cmp "$out/a.ptx" "$out/b.ptx"
}

if [ "${#architectures[@]}" -lt 6 ] || [ "${#entries[@]}" -ne 4 ]; then
    echo "error: build.rs or vram_kernels.h has changed its form" >&2
    exit 1
fi
for arch in "${architectures[@]}"; do
    image=$out/sm_$arch.cubin
    check "sm_$arch compiles without a warning" compile "$arch" 1 "$image"
    [ -e "$image" ] || continue
    check "sm_$arch: no spills, no stack frame, at most $most_registers registers" no_spills "$image"
    check "sm_$arch: entry points" has_entries "$image"
    check "sm_$arch: parameters of the size that both sides say" python3 ci/images.py "$image" --architectures "$arch" --self-test
    check "sm_$arch: 16-byte loads, no local memory" loads_are_wide "$image"
    check "sm_$arch: the same bytes from another folder" same_elsewhere "$arch" "$image"
    check "sm_$arch compiles with plain additions" compile "$arch" 0 "$out/sm_$arch.plain.cubin"
done
check "PTX: the same bytes twice" ptx_is_the_same_twice

{
    "$nvcc" --version | sed -n 's/^Cuda compilation tools, //p'
    echo
    echo "Registers and spills (ptxas)"
    printf '%-14s%-22s%11s%8s%8s%8s\n' image kernel registers stack stores loads
    for image in "$out"/*.cubin; do
        name=$(basename "$image" .cubin)
        while read -r kernel registers stack stores loads; do
            printf '%-14s%-22s%11s%8s%8s%8s\n' "$name" "$kernel" "$registers" "$stack" "$stores" "$loads"
        done < <(resources "$image")
    done
    echo
    echo "Machine code; the last three columns: one compression (64 bytes), to which come 16 byte swaps (integer) and the loads"
    printf '%-14s%-22s%14s%14s%14s%14s%14s%14s\n' image kernel instructions ldg.128 local compression integer multiply-add
    for image in "$out"/*.cubin; do
        code "$image" "$(basename "$image" .cubin)"
    done
    echo
    echo "Limits for the tree on 132 multiprocessors of 64 integer lanes at 1.98 GHz, 4096-byte blocks (65 compressions), swaps included:"
    for image in sm_90 sm_90.plain; do
        code "$out/$image.cubin" "$image" | awk '$2 == "vram_verity_leaves" { printf "%-14s%.0f GB/s\n", $1, 132 * 64 * 1.98 * 64 / ($7 + 16) * 64 / 65 }'
    done
} >"$report" || failed=$((failed + 1))
cat "$report"
rm -f "$out/log" "$out/found"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
