#!/usr/bin/env bash
# Compiles the mock device and its C test with every C compiler that is here, runs it under the address, leak and
# undefined-behaviour sanitizers, then under the thread sanitizer, and checks which symbols the mock exports and that its
# hash is C++ too. The kernels' bodies, compiled for the host, run under the same sanitizers.
# Fails on any warning, any sanitizer report, any failed test. Last line: "N passed, N failed".
# covers: DEV-1 DEV-2
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
flags=(-std=c11 -Wall -Wextra -Werror -Wconversion -Wshadow -pthread -g -fno-omit-frame-pointer)
passed=0
failed=0

check() { # name, command...
    local name=$1
    shift
    if "$@" >"$build/log" 2>&1; then
        passed=$((passed + 1))
        echo "ok      $name"
    else
        failed=$((failed + 1))
        echo "FAILED  $name"
        cat "$build/log"
    fi
}

compile_and_run() { # compiler, sanitizers
    "$1" "${flags[@]}" -O1 -fsanitize="$2" -fno-sanitize-recover=all cuda/mock/machine.c cuda/kernels/tests/host_kernels.c \
        cuda/mock/tests/mock_test.c -o "$build/mock_test" || return 1
    ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:detect_stack_use_after_return=1 TSAN_OPTIONS=halt_on_error=1 \
        UBSAN_OPTIONS=print_stacktrace=1 timeout 300 "$build/mock_test"
}

kernels_on_the_cpu() { # compiler, VRAM_SHA256_MAD
    "$1" "${flags[@]}" -O1 -fsanitize=address,leak,undefined -fno-sanitize-recover=all "-DVRAM_SHA256_MAD=$2" -c \
        cuda/kernels/tests/host_kernels.c -o "$build/host_kernels.o" || return 1
    "$1" "${flags[@]}" -O1 -fsanitize=address,leak,undefined -fno-sanitize-recover=all cuda/kernels/tests/kernels_test.c \
        "$build/host_kernels.o" -o "$build/kernels_test" || return 1
    UBSAN_OPTIONS=print_stacktrace=1 timeout 300 "$build/kernels_test"
}

exports_only_its_interface() { # compiler
    "$1" "${flags[@]}" -O3 -fvisibility=hidden -c cuda/mock/machine.c -o "$build/vram_mock.o" || return 1
    nm -g --defined-only "$build/vram_mock.o" | awk '{print $3}' | LC_ALL=C sort >"$build/exported"
    grep -oE 'vram_mock_[a-z_]+\(' cuda/include/vram_mock.h | tr -d '(' | LC_ALL=C sort -u >"$build/declared"
    diff "$build/declared" "$build/exported"
}

# nvcc reads the hash as CUDA C++; a C++ compiler with its keywords emptied is the nearest that is always here.
hash_is_cuda_too() { # C++ compiler
    "$1" -x c++ -std=c++17 -Wall -Wextra -Werror -Wno-unused-function -Wno-pragma-once-outside-header -D__CUDACC__ \
        -D__host__= -D__device__= -D__forceinline__=inline -fsyntax-only cuda/kernels/sha256.cuh
}

compilers=()
for compiler in gcc clang; do
    if command -v "$compiler" >/dev/null; then
        compilers+=("$compiler")
    else
        echo "SKIPPED mock_sanitize/$compiler: $compiler is not installed"
    fi
done
if [ ${#compilers[@]} -eq 0 ]; then
    echo "no C compiler found; install gcc or clang" >&2
    echo "0 passed, 1 failed"
    exit 1
fi
for compiler in "${compilers[@]}"; do
    check "$compiler: address, leak, undefined" compile_and_run "$compiler" address,leak,undefined
    check "$compiler: thread" compile_and_run "$compiler" thread
    check "$compiler: kernels on the CPU" kernels_on_the_cpu "$compiler" 1
    check "$compiler: kernels on the CPU, plain additions" kernels_on_the_cpu "$compiler" 0
    check "$compiler: exported symbols" exports_only_its_interface "$compiler"
done
for compiler in g++ clang++; do
    if command -v "$compiler" >/dev/null; then
        check "$compiler: sha256.cuh is C++ too" hash_is_cuda_too "$compiler"
    else
        echo "SKIPPED mock_sanitize/$compiler: $compiler is not installed"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
