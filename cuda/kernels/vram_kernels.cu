/* All kernels as one translation unit: one native image for each architecture. */
#include "verity_tree.cu"

#include "all_zero.cu"

#include "keyed.cu"
