"""All tests, file by file, resumable: ``make test-all``.

What passed at this commit is not run again; the outcome stands in ``results/test-all.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results" / "test-all.json"
PYTEST = (sys.executable, "-m", "pytest", "--hypothesis-profile=explore")


def git(*arguments: str) -> str:
    """What git says."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> int:
    """Run what has not passed yet at this commit."""
    commit = git("rev-parse", "HEAD")
    dirty = bool(git("status", "--porcelain", "--", ":!results"))
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    fresh = found.get("commit") != commit or dirty or found.get("dirty")
    files: dict[str, object] = {} if fresh else found["files"]
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        name = str(file.relative_to(ROOT))
        if isinstance(done := files.get(name), dict) and done["passed"]:
            continue
        start = time.monotonic()
        status = subprocess.run([*PYTEST, name], cwd=ROOT, check=False)
        seconds = round(time.monotonic() - start)
        files[name] = {"passed": status.returncode == 0, "seconds": seconds}
        passed = all(isinstance(f, dict) and f["passed"] for f in files.values())
        result = {"command": "make test-all", "commit": commit, "dirty": dirty}
        text = json.dumps({**result, "passed": passed, "files": files}, indent=2)
        OUT.write_text(text + "\n", encoding="utf-8")
    failed = [n for n, f in files.items() if isinstance(f, dict) and not f["passed"]]
    sys.stdout.write(f"failed: {', '.join(failed)}\n" if failed else "all passed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
