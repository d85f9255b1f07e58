"""What this program asks of glibc's allocator; on another libc nothing happens."""

import ctypes

M_MMAP_THRESHOLD = -3
LARGE_BLOCK = 128 * 2**10  # bytes; glibc's own start value, which it would raise up to 32 MB by itself


def keep_large_blocks_apart() -> None:
    """Have large blocks mapped one by one, so that each goes back to the machine when it is freed.

    Loading an int8 ViT-base without its optimised graph stays at 202 MB instead of 273 MB.
    """
    _call("mallopt", M_MMAP_THRESHOLD, LARGE_BLOCK)


def give_back() -> None:
    """Return what is free, as after loading a model."""
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*arguments)
