#!/usr/bin/env bash
# Prints the command that README.md gives for a purpose, so that what is documented is what runs: readme-command.sh run|tests
# It is the fenced block that follows the marker `<!-- NAME-command -->`.
set -euo pipefail
name=${1:?usage: readme-command.sh NAME}
readme="$(cd "$(dirname "$0")/.." && pwd)/README.md"
command=$(awk -v mark="<!-- $name-command -->" '
    $0 == mark       { found = 1; next }
    found && /^```/  { if (inside) exit; inside = 1; next }
    inside           { print }
' "$readme")
[ -n "$command" ] || { echo "error: README.md has no command after <!-- $name-command -->" >&2; exit 1; }
printf '%s\n' "$command"
