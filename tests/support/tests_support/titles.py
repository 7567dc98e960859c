"""What processes are called: of Ray's, what each has made of its command line."""

from tests_support.waiting import wait_until


def title_of(process):
    """Return a process's command line; raise psutil.Error once it is gone.

    Ray's workers write theirs anew at each task, and it is empty for a moment while they do.
    """
    return " ".join(wait_until(process.cmdline)).strip()
