"""What processes are called: of Ray's, what each has made of its command line."""

import psutil
from tests_support.waiting import wait_until


def title_of(process):
    """Return a process's command line; raise psutil.Error once it is gone.

    Ray's workers write theirs anew at each task, and it is empty for a moment while they do.
    """
    return " ".join(wait_until(process.cmdline)).strip()


def trial_workers_below(process):
    """Return the processes below another one that trials are trained in."""
    return [each for each in process.children(recursive=True) if is_trial_worker(each)]


def is_trial_worker(process):
    """Whether a process is a trial's worker: called so in a task, and by its class between two.

    One that has ended is none, whoever has yet to hear of it.
    """
    try:
        return title_of(process).startswith(("ray::ResourceTrainable", "ray::TrialWorker"))
    except psutil.Error:
        return False
