"""What has not gone by itself."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Whatever goes meanwhile goes by itself."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive(*kinds: type) -> list[str]:
    """The names of the classes of all objects of these classes, in this process."""
    return [type(each).__name__ for each in gc.get_objects() if type(each) in kinds]
