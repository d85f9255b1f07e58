"""What this program asks of glibc's allocator; on another libc nothing happens."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
ARENAS = 2  # heaps that all threads share; 8 for each core otherwise
LARGE_BLOCK = 128 * 2**10  # bytes; glibc's own start value, which it would raise up to 32 MB by itself
PICTURE_BLOCK = 12 * 2**20  # a decoded photo of 1920×1080 takes 8.3 MB
PICTURE_MEMORY = 16 * 2**20  # what one takes in all


def keep_large_blocks_apart() -> None:
    """While a model is loaded, have large blocks mapped one by one: each goes back to the machine when it is freed.

    Loading an int8 ViT-base without its optimised graph stays at 202 MB instead of 273 MB. Each reload is a thread of
    its own, and would leave what it freed in another heap: after 24 of the starter 133 MB instead of 91.
    """
    _call("mallopt", M_ARENA_MAX, ARENAS)
    _call("mallopt", M_MMAP_THRESHOLD, LARGE_BLOCK)


def keep_pictures_together() -> None:
    """Return what is free, and from now on reuse the memory of one picture for the next.

    Blocks that are mapped one by one come as pages that fault: 4,300 for a photo of 1920×1080 and 180 for one of
    224×224, instead of 100 and 3. That is a third of the large one's time (30 ms instead of 20 with the starter); it
    costs 18 MB once such photos come, and 2 MB before.
    """
    give_back()
    _call("mallopt", M_MMAP_THRESHOLD, PICTURE_BLOCK)
    _call("mallopt", M_TRIM_THRESHOLD, PICTURE_MEMORY)


def give_back() -> None:
    """Return what is free."""
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*arguments)
