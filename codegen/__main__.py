"""Writes the generated files, or checks that they are up to date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from codegen import configs, errors, messages

ROOT = Path(__file__).parent.parent / "src" / "ottla"


def generated() -> dict[Path, str]:
    """Return every generated file with what it must hold."""
    folder = ROOT / "protocol" / "messages"
    files = {folder / name: source for name, source in messages.render_all().items()}
    files[ROOT / "errors" / "codes.py"] = errors.render_codes()
    files[ROOT / "errors" / "broker.py"] = errors.render_classes()
    files[ROOT / "broker" / "config_facts.py"] = configs.render()
    return files


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m codegen", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if they are not")
    check = parser.parse_args().check
    wanted = generated()
    found = set((ROOT / "protocol" / "messages").glob("*.py"))
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    extra = sorted(found - set(wanted))
    for path in stale + extra:
        print(("differs: " if path in wanted else "left over: ") + str(path.relative_to(ROOT)))
    if check:
        return 1 if stale or extra else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    for path in extra:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
