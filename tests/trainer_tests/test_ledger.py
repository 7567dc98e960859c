import pytest
import torch

from trainer.ledger import MAPPED_BYTES, Ledger


@pytest.fixture
def ledger():
    return Ledger()


def test_what_is_made_belongs_to_the_part_of_the_moment(ledger):
    with ledger:
        ledger.part = "one"
        first = torch.zeros(100)
        ledger.part = "two"
        second = first + 1
        view = second[10:]
    assert ledger.now.parts == {"one": 400, "two": 400}
    assert ledger.now.total_bytes == 800
    assert view.shape == (90,)  # and takes nothing: it is a view


def test_what_is_freed_is_gone_and_the_peak_stays(ledger):
    with ledger:
        ledger.begin("kept")
        kept = torch.zeros(100)
        ledger.part = "passing"
        passing = torch.zeros(1000)
        del passing
    assert ledger.now.total_bytes == kept.nbytes
    assert ledger.peak.parts == {"kept": 400, "passing": 4000}


def test_a_new_beginning_forgets_the_peak_but_not_what_is_alive(ledger):
    with ledger:
        kept = torch.zeros(100)
        torch.zeros(1000)
        ledger.begin("later")
        assert ledger.peak.total_bytes == kept.nbytes
        held = torch.zeros(10)
    assert ledger.peak.total_bytes == kept.nbytes + held.nbytes


def test_tensors_can_be_put_down_to_another_part(ledger):
    before = torch.zeros(50)
    with ledger:
        made = torch.zeros(100)
        ledger.put({"nested": [made, 3, before]}, "state")
    assert ledger.now.parts == {"": 0, "state": 600}
    del made
    assert ledger.now.parts["state"] == before.nbytes


def test_a_slice_keeps_the_whole_it_is_of(ledger):
    with ledger:
        slice_of = torch.zeros(100)[:10]
    assert ledger.now.total_bytes == 400
    del slice_of
    assert ledger.now.total_bytes == 0


def test_only_smaller_blocks_lie_among_others(ledger):
    with ledger:
        blocks = [torch.empty(size, dtype=torch.uint8) for size in (MAPPED_BYTES - 1, MAPPED_BYTES)]
    assert ledger.now.unmapped_bytes == MAPPED_BYTES - 1
    del blocks
    assert ledger.now.unmapped_bytes == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_blocks_are_what_its_allocator_gives_out(ledger):
    before = torch.cuda.memory_allocated()
    with ledger:
        tensors = [torch.empty(size, dtype=torch.uint8, device="cuda") for size in (1, 512, 513)]
    assert ledger.now.total_bytes == torch.cuda.memory_allocated() - before
    del tensors
