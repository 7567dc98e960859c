"""On what a process listens."""

import psutil


def addresses_of(process):
    """Return the addresses on which a process listens: none of one that has ended meanwhile, as the
    `uname` of many a library does."""
    try:
        connections = process.net_connections("inet")
    except psutil.NoSuchProcess:
        return []
    return [each.laddr for each in connections if each.status == psutil.CONN_LISTEN]
