"""Checks an exported audit log with the standard library alone: python verify_audit.py audit.jsonl [head.json]"""

import hashlib
import json
import sys
from pathlib import Path

previous, hashes = "0" * 64, {}
for number, line in enumerate(Path(sys.argv[1]).read_bytes().splitlines(), 1):
    event = json.loads(line)
    stated = event.pop("hash")
    text = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    computed = hashlib.sha256(text.encode()).hexdigest()
    if (event["sequence"], event["previous"], stated) != (number, previous, computed):
        sys.exit(f"The chain breaks at line {number}.")
    previous = hashes[number] = stated
head = json.loads(Path(sys.argv[2]).read_bytes()) if len(sys.argv) > 2 else None
if head is not None and hashes.get(head["sequence"]) != head["hash"]:
    sys.exit(f"Event {head['sequence']} is not the one that the kept head names.")
print(f"Sound: {len(hashes)} events, head {previous}.")
