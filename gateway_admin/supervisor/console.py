"""Lines on the terminal: who said it, coloured where a terminal reads along."""

import os
import sys

COLOURS = (36, 32, 35, 34, 33, 96, 92, 95)  # ANSI foreground colours, in order of appearance
NAME_WIDTH = 14


class Console:
    def __init__(self) -> None:
        self._coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._names: dict[str, int] = {}

    def line(self, name: str, text: str) -> None:
        """One line with its speaker; written whole, so that speakers do not interleave."""
        prefix = f"{name:<{NAME_WIDTH}}| "
        if self._coloured:
            colour = COLOURS[self._names.setdefault(name, len(self._names)) % len(COLOURS)]
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        sys.stdout.write(f"{prefix}{text}\n")
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """A line of the supervisor itself."""
        self.line("up", text)
