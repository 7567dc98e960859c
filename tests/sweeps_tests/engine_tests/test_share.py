import pytest

from sweeps.engine.gpu_memory import CONTEXT_BYTES, GpuMemory
from sweeps.engine.share import Outgrown, Share

SHARE_BYTES = 10 * CONTEXT_BYTES
FAKE = GpuMemory(total_bytes=lambda: 8 * SHARE_BYTES, peak_bytes=lambda row: row["fake"])
ROW = {"peak_memory_bytes": 7, "fake": 8}


def test_a_share_is_full_at_nine_tenths_with_what_cuda_takes_itself():
    share = Share(SHARE_BYTES, FAKE)
    share.check(8 * CONTEXT_BYTES)
    assert share.outgrown_bytes == 0
    with pytest.raises(Outgrown, match=r"^needs 4\.80 GB$"):
        share.check(8 * CONTEXT_BYTES + 1)
    assert share.outgrown_bytes == 8 * CONTEXT_BYTES + 1


def test_memory_that_ran_out_on_a_share_means_that_more_than_it_is_needed():
    share = Share(SHARE_BYTES, FAKE)
    share.note_out_of_memory()
    assert share.outgrown_bytes == SHARE_BYTES


@pytest.mark.parametrize("share_bytes", [0, None])
def test_where_there_is_no_larger_share_none_is_outgrown(share_bytes):
    share = Share(share_bytes, FAKE)
    share.check(10**15)
    share.note_out_of_memory()
    assert share.outgrown_bytes == 0


def test_on_a_cpu_the_process_is_what_is_read():
    assert [Share(of, FAKE).read(ROW) for of in (SHARE_BYTES, 0, None)] == [8, 8, 7]
