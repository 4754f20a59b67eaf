"""Who may connect to a Unix socket: the mode of its file, and of the folders above it.

Knows the rights of files. Does not know who listens, nor what a peer may do.

https://man7.org/linux/man-pages/man7/unix.7.html
"""

from __future__ import annotations

import stat
from pathlib import Path


def is_open_to_all(path: Path, mode: int) -> bool:
    """Return whether every user of the machine may connect to a socket of this mode.

    To connect takes the right to write to the socket, and to enter each folder above it. Who may
    delete files in its folder can put a socket of their own there, whatever the mode.
    """
    folder = path.parent.resolve()
    if not folder.is_dir():
        return False
    modes = [each.stat().st_mode for each in (folder, *folder.parents)]
    may_enter = all(each & stat.S_IXOTH for each in modes)
    may_replace = bool(modes[0] & stat.S_IWOTH) and not modes[0] & stat.S_ISVTX
    return may_enter and (may_replace or bool(mode & stat.S_IWOTH))
