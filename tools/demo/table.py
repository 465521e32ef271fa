"""Print two lists of "name: value" lines beside each other."""

from __future__ import annotations

import pathlib
import sys


def read(path: str) -> dict[str, str]:
    """Return the values of a list by their names."""
    lines = pathlib.Path(path).read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def main() -> None:
    """Print the table of the two lists named on the command line."""
    stock, hardened = (read(path) for path in sys.argv[1:3])
    rows = [("A container of this host", "stock", "hardened")]
    rows += [(name, value, hardened.get(name, "?")) for name, value in stock.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


main()
