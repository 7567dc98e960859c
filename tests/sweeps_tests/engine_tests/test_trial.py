import pytest
import torch

from sweeps.engine.trial import is_out_of_memory


def allocate_too_much():
    torch.empty(10**15)


def test_a_cpu_without_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as caught:
        allocate_too_much()
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
