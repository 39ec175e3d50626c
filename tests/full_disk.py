"""A disk without room, as the process that writes meets it."""

import contextlib
import resource


@contextlib.contextmanager
def full_disk(room=0):
    """Within it, no file of this process can grow beyond ``room`` bytes: a write ends like one to a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
