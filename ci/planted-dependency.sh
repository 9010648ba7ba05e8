#!/usr/bin/env bash
# Does cargo-deny, as deny.toml sets it, refuse what it must? In a copy of the workspace one bad dependency at a time is added to the
# library: the gate that it is for must fail, with the right message, and the other gates must pass. The unchanged copy passes all.
# Needs cargo-deny, the advisory database and a package index. What no index has is skipped by name; but each gate must have refused
# something, and what is planted from a folder is never skipped. Last line: "N passed, N failed".
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

cargo_tool cargo-deny || exit 1
advisory_database
case $? in
    0) ;;
    "$SKIP") skip planted_dependency "the advisory database can neither be fetched nor is there a bundled copy" ;;
    *) exit 1 ;;
esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
git ls-files -z | tar --null --ignore-failed-read -cf - -T - 2>/dev/null | tar -xf - -C "$(mkdir "$folder/sound" && echo "$folder/sound")"

# A repository and two crates of our own, so that nothing needs the network that need not.
crate() { # FOLDER LICENCE
    mkdir -p "$1/src"
    printf '[package]\nname = "planted"\nversion = "1.0.0"\nedition = "2024"\nlicense = "%s"\n' "$2" >"$1/Cargo.toml"
    : >"$1/src/lib.rs"
}
crate "$folder/gpl" GPL-3.0-only
crate "$folder/git" MIT
git -C "$folder/git" init -q &&
    git -C "$folder/git" add . &&
    git -C "$folder/git" -c user.name=planted -c user.email=planted@localhost commit -qm planted || exit 1

passed=0 failed=0
gates=(advisories bans licenses sources)
declare -A refused=()

# planted NAME GATE MESSAGE DEPENDENCY: GATE alone fails, with MESSAGE, once DEPENDENCY is a line of [dependencies].
planted() {
    local name=$1 gate=$2 message=$3 dependency=$4 copy=$folder/copy log=$folder/log each expected verdict
    rm -rf "$copy"
    cp -r "$folder/sound" "$copy"
    [ -z "$dependency" ] || sed -i "s#^\[dependencies\]\$#&\n$dependency#" "$copy/Cargo.toml"
    # The lock file keeps all that it has; only what was planted comes in.
    if ! (cd "$copy" && cargo fetch -q); then
        case $dependency in
            "" | *"$folder"*)
                failed=$((failed + 1))
                echo "FAILED  $name: cannot be fetched, though no index need have it"
                ;;
            *) echo "SKIPPED planted_dependency/$name: the planted crate cannot be fetched" ;;
        esac
        return
    fi
    verdict=$(cd "$copy" && cargo deny --offline --workspace --config "$deny_config" check "${gates[@]}" 2>"$log")
    local status=$? sound=1
    for each in "${gates[@]}"; do
        expected="$each ok"
        [ "$each" != "$gate" ] || expected="$each FAILED"
        [[ "$verdict$(tail -n 1 "$log")" == *"$expected"* ]] || sound=0
    done
    if [ -z "$gate" ]; then
        [ "$status" -eq 0 ] || sound=0
    else
        [ "$status" -ne 0 ] && grep -qF -- "$message" "$log" || sound=0
    fi
    if [ "$sound" -eq 1 ]; then
        passed=$((passed + 1))
        [ -z "$gate" ] || refused[$gate]=yes
        echo "ok      $name${gate:+: $gate says \"$message\"}"
    else
        failed=$((failed + 1))
        echo "FAILED  $name: expected \"$message\" from ${gate:-no gate}; exit status $status"
        cat "$log"
    fi
}

planted "the unchanged tree" "" "" ""
planted "a vulnerable crate" advisories RUSTSEC-2019-0011 'memoffset = "=0.2.1"'
planted "an abandoned crate" advisories RUSTSEC-2024-0436 'paste = "=1.0.15"'
planted "a crate under the MPL" licenses 'MPL-2.0' 'option-ext = "=0.2.0"'
planted "a crate under the GPL" licenses 'GPL-3.0-only' "planted = { path = \"$folder/gpl\", version = \"1\" }"
planted "a crate from git" sources "detected 'git' source not explicitly allowed" "planted = { git = \"file://$folder/git\", version = \"1\" }"
planted "a second version" bans "found 2 duplicate entries for crate 'hex'" 'older = { package = "hex", version = "=0.3.2" }'
planted "any version" bans "found 1 wildcard dependency" 'memchr = "*"'
for gate in "${gates[@]}"; do
    [ "${refused[$gate]:-}" ] && continue
    failed=$((failed + 1))
    echo "FAILED  $gate: nothing planted was refused, so that it is not shown to find anything"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
