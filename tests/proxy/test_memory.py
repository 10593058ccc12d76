"""A worker's memory: callers leave nothing behind, failures and large blocks neither."""

import gc
import subprocess
import sys
import textwrap

from proxy.policies import PolicyTable, SubjectRules
from tests.proxy.documents import ENVIRONMENT, policy


def test_customers_without_rules_are_not_remembered() -> None:
    table, caller = PolicyTable(), policy("alpha")
    gc.collect()
    before = subjects()
    for number in range(1000):
        assert table.path_of(caller, f"customer {number}", ENVIRONMENT) == []
    assert subjects() <= before


def subjects() -> int:
    """How many subjects' rules this process keeps."""
    return sum(type(each) is SubjectRules for each in gc.get_objects())


def in_a_new_process(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True
    ).stdout


def test_tracebacks_read_no_source_files() -> None:
    told = in_a_new_process("""
        import json, linecache, traceback
        from proxy.memory import without_source_lines
        without_source_lines()
        try:
            json.loads("{")
        except ValueError:
            print(traceback.format_exc())
        print("files kept:", sum(len(kept) > 1 for kept in linecache.cache.values()))
    """)
    assert "decoder.py" in told
    assert "in raw_decode" in told
    assert "JSONDecodeError" in told
    assert "files kept: 0" in told


def test_large_blocks_stay_off_the_heap() -> None:
    told = in_a_new_process("""
        import ctypes
        from proxy.memory import steady_allocator
        class Info(ctypes.Structure):
            _fields_ = [(name, ctypes.c_size_t) for name in (
                "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks",
                "uordblks", "fordblks", "keepcost")]
        libc = ctypes.CDLL(None)
        libc.mallinfo2.restype, libc.malloc.restype = Info, ctypes.c_void_p
        libc.free.argtypes = [ctypes.c_void_p]
        steady_allocator()
        for _ in range(3):
            before = libc.mallinfo2()
            block = libc.malloc(ctypes.c_size_t(8 << 20))
            after = libc.mallinfo2()
            libc.free(ctypes.c_void_p(block))
            print(after.hblks - before.hblks, after.arena - before.arena)
    """)
    assert told.split() == ["1", "0"] * 3
