"""What keeps a worker's memory where it is, besides bounds on everything that is kept.

In the launcher, before LiteLLM is imported: `steady_allocator`. After the import, before the fork:
`without_source_lines`. In each worker, for as long as it lives: `collect_loop`.
"""

import asyncio
import contextlib
import ctypes
import gc
import linecache
from collections.abc import Callable
from typing import Any

COLLECT_INTERVAL_S = 60.0
MIB = 1024 * 1024
# Of glibc's mallopt (malloc.h), and what we set.
_ALLOCATOR = {
    "M_ARENA_MAX": (-8, 2),
    "M_MMAP_THRESHOLD": (-3, MIB),
    "M_TRIM_THRESHOLD": (-1, 2 * MIB),
}


def steady_allocator() -> None:
    """glibc: large blocks go back to the system at once, threads share a pool.

    Left alone, it puts large blocks on the heap as soon as one was freed. Python moves a table
    of 8 MB (its interned strings) every few minutes; on the heap each move leaves a hole. And
    every thread would get a pool of its own, of which it returns little; a worker has a dozen
    that hardly ever run at once.
    """
    with contextlib.suppress(OSError, AttributeError):  # another libc
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in _ALLOCATOR.values():
            mallopt(parameter, value)


def without_source_lines() -> None:
    """Tracebacks name file, line and function, and no longer show the line.

    LiteLLM makes a text of the traceback of every call that fails. For that, Python would read
    each source file on the way and keep it: 9 MB in each worker, more with each kind of error,
    and look after each such file whether it changed, with every failure.
    """
    linecache.getlines = _no_lines
    linecache.clearcache()


def _no_lines(filename: str, module_globals: Any = None) -> list[str]:
    return []


async def collect_loop() -> None:
    """The collector's thresholds are high, for speed (launcher.py): what became old before it died
    would wait for hours. What LiteLLM's import made is frozen, so a round is short. Then the
    allocator returns what a peak left behind: a fifth of a millisecond.
    """
    trim = _malloc_trim()
    while True:
        await asyncio.sleep(COLLECT_INTERVAL_S)
        gc.collect()
        trim(0)


def _malloc_trim() -> Callable[[int], int]:
    """glibc's; of another libc, nothing."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return int
    return found
