#!/usr/bin/env bash
# Each top-level module of src uses only those after it in the order of CONTRIBUTING.md, so that no circle can be, and only those that
# .specs/floors.txt lists for it:
#   ci/floors.sh           fails with what goes up, or with the difference
#   ci/floors.sh --write   writes .specs/floors.txt anew
# So that no use hides from a search for text, `crate::` names a module of src each time (no `use crate::{…}`, nothing by the names
# that src/lib.rs gives it), and nothing reaches the root by `super`. Tests may use anything.
# covers: ASR-9
set -euo pipefail
cd "$(dirname "$0")/.."

modules=$(git ls-files -co --exclude-standard 'src/*.rs' | grep -E '^src/\w+\.rs$' | sed -E 's,src/(\w+)\.rs,\1,' | grep -vxE 'lib|macros|tests')
order=$(grep '→' CONTRIBUTING.md | grep -oE '\w+')
pairs=$(git ls-files -co --exclude-standard 'src/*.rs' | grep -vE '^src/(lib|macros)\.rs$|/tests(/|\.rs$)' | while read -r file; do
    module=${file#src/} module=${module%%[./]*} root='\bsuper::'
    [ "$file" = "src/$module.rs" ] || root='\bsuper::super::'
    sed '/^mod tests {$/,$d; /^ *\/\//d' "$file" | grep -oE "\bcrate::[^:;, ()<>]+|$root" | sed "s/^crate:://; s/^/$module /" || true
done | sort -u | awk '$1 != $2')

refuse() { [ -z "$2" ] || { printf 'error: %s:\n%s\n' "$1" "$2" >&2; exit 1; }; }
refuse "CONTRIBUTING.md orders (<) other modules than there are (>)" "$(diff <(sort <<<"$order") <(sort <<<"$modules"))"
refuse "no module of src is what is named after \`crate::\`, or reached by \`super::\`, in these modules" \
    "$(awk 'NR == FNR { known[$1]; next } !($2 in known)' <(echo "$modules") <(echo "$pairs"))"
refuse "a module uses one above it in the order of CONTRIBUTING.md" \
    "$(awk 'NR == FNR { at[$1] = NR; next } at[$1] > at[$2] { print $1, "uses", $2 }' <(echo "$order") <(echo "$pairs"))"
[ "${1:-}" != --write ] || echo "$pairs" >.specs/floors.txt
refuse "modules use each other otherwise (>) than .specs/floors.txt says (<); if that is meant: ci/floors.sh --write" \
    "$(diff .specs/floors.txt <(echo "$pairs"))"
echo "floors: $(wc -l <<<"$pairs") pairs of $(wc -l <<<"$modules") modules, all downward"
