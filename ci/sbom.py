#!/usr/bin/env python3
"""Holds a bill of materials of cargo-cyclonedx against what a build uses: cargo tree … --format '{p}' | ci/sbom.py BILL OUT

cargo-cyclonedx takes the features of a workspace together: packages that only tests bring are taken out. Fails where a package, or a
licence, is missing.
"""

import json
import sys
from pathlib import Path

source, out = sys.argv[1:]
bill = json.loads(Path(source).read_text(encoding="utf-8").replace(f"path+file://{Path.cwd()}", "workspace:"))
wanted = {tuple(line.replace(" v", " ").split()[:2]) for line in sys.stdin if line.strip()}
bill["components"] = [part for part in bill["components"] if (part["name"], part["version"]) in wanted]
parts = [bill["metadata"]["component"], *bill["components"]]
missing = wanted - {(part["name"], part["version"]) for part in parts if part.get("licenses")}
refs = {part["bom-ref"] for part in parts}
bill["dependencies"] = [{**edge, "dependsOn": [ref for ref in edge.get("dependsOn", []) if ref in refs]}
                        for edge in bill["dependencies"] if edge["ref"] in refs]
Path(out).write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
print(f"{out}: {len(parts)} packages; missing, or without a licence: {sorted(missing) or 'none'}")
sys.exit(1 if missing or not wanted else 0)
