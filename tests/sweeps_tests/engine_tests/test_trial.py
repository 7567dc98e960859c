import sys
import threading

import psutil
import pytest
import torch

from sweeps.engine.trial import free_memory, is_out_of_memory


def allocate_too_much():
    torch.empty(10**15)


def test_a_cpu_without_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as caught:
        allocate_too_much()
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


@pytest.mark.skipif(sys.platform != "linux", reason="about glibc's malloc")
def test_what_a_trial_freed_on_its_thread_is_given_back():
    kept = []

    def train():
        tensors = [torch.ones(25_000) for _ in range(3_000)]  # of 100 kB, from the thread's arena
        kept.append(torch.ones(10))  # on top of them, so that malloc cannot let go by itself
        assert len(tensors) == 3_000

    before = psutil.Process().memory_info().rss
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    held = psutil.Process().memory_info().rss - before
    free_memory()
    after = psutil.Process().memory_info().rss - before
    assert held > 200e6, "else this would show nothing"
    assert after < 50e6
