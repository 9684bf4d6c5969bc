"""Set the line numbers of this folder's links that quote code: [`code`](../mt/file.py#L1).

python docs/lines.py   (after code has moved; the suite tells when it has)
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

QUOTE = re.compile(r"\[`([^`]+)`\]\(([^()#]+)#L\d+\)")


def main() -> None:
    """Rewrite every page; a quotation that stands nowhere any more is told."""
    missing = []
    for page in sorted(Path(__file__).parent.glob("*.md")):

        def place(match: re.Match[str], page: Path = page) -> str:
            code, file = match[1], match[2]
            wanted = f"def {code}(" if code.startswith("test_") else code
            lines = (page.parent / file).read_text(encoding="utf-8").split("\n")
            found = [number for number, line in enumerate(lines, start=1) if wanted in line]
            if not found:
                missing.append(f"{page.name}: {file} has no line with `{code}`")
                return match[0]
            return f"[`{code}`]({file}#L{found[0]})"

        page.write_text(QUOTE.sub(place, page.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit("\n".join(missing) or 0)


if __name__ == "__main__":
    main()
