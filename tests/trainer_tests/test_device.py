import json
import mmap
import os
import platform

import psutil
import pytest
import torch

from trainer.device import PeakMemory, describe_environment, resolve_device

HAS_CUDA = torch.cuda.is_available()
CPU = torch.device("cpu")


def test_auto_is_a_gpu_where_there_is_one():
    assert resolve_device("auto").type == ("cuda" if HAS_CUDA else "cpu")


def test_a_device_by_its_name_is_that_device():
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "", "cpu:7", "cuda:99", "meta"])
def test_a_device_that_is_not_here_is_refused_with_the_choices(name):
    expected = rf"^device={name}; must be one of auto, cpu.* on this machine$"
    with pytest.raises(ValueError, match=expected):
        resolve_device(name)


@pytest.mark.skipif(HAS_CUDA, reason="there is a CUDA device")
def test_cuda_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match=r"^device=cuda; must be one of auto, cpu"):
        resolve_device("cuda")


def test_the_environment_is_plain_json_and_names_what_results_depend_on():
    environment = describe_environment(CPU)
    assert json.loads(json.dumps(environment)) == environment
    assert environment["device_kind"] == "cpu"
    assert environment["python"] == platform.python_version()
    assert environment["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_the_environment_changes_with_the_number_of_threads(one_thread):
    assert describe_environment(CPU)["threads"] == 1
    torch.set_num_threads(2)
    assert describe_environment(CPU)["threads"] == 2


KEPT_BY_LINUX = os.access("/proc/self/clear_refs", os.W_OK)
SIZE = 200_000_000


def hold():
    """Have so many more bytes in use, of new pages: malloc may still keep old ones."""
    pages = mmap.mmap(-1, SIZE)
    for start in range(0, SIZE, mmap.PAGESIZE):
        pages[start] = 1
    return pages


def hold_and_free():
    hold().close()


@pytest.mark.skipif(not KEPT_BY_LINUX, reason="Linux keeps no peak here that can begin again")
@pytest.mark.usefixtures("no_garbage")
def test_on_linux_no_peak_is_missed_between_samples():
    before = PeakMemory(CPU).peak_bytes
    memory = PeakMemory(CPU)
    hold_and_free()
    # Other threads of the test process may free or take some megabytes meanwhile.
    assert memory.peak_bytes - before == pytest.approx(SIZE, rel=0.1)


@pytest.mark.skipif(not KEPT_BY_LINUX, reason="Linux keeps no peak here that can begin again")
@pytest.mark.usefixtures("no_garbage")
def test_a_peak_before_construction_does_not_count():
    hold_and_free()
    resident = psutil.Process().memory_info().rss
    assert PeakMemory(CPU).peak_bytes == pytest.approx(resident, abs=0.1 * SIZE)


def test_linux_tells_kibibytes_and_begins_again_at_5(tmp_path):
    """As proc(5) has it, of a process that is written down here."""
    (tmp_path / "status").write_text("VmPeak:\t 3366712 kB\nVmHWM:\t  568372 kB\nVmRSS:\t 1 kB\n")
    (tmp_path / "clear_refs").write_text("")
    assert PeakMemory(CPU, proc=tmp_path).peak_bytes == 568372 * 1024
    assert (tmp_path / "clear_refs").read_text() == "5"


@pytest.mark.usefixtures("no_garbage")
def test_elsewhere_the_peak_is_the_largest_size_sampled(tmp_path):
    memory = PeakMemory(CPU, proc=tmp_path / "no proc here")
    memory.sample()
    before = memory.peak_bytes
    hold_and_free()
    assert memory.peak_bytes == before
    held = hold()
    memory.sample()
    largest = memory.peak_bytes
    held.close()
    memory.sample()
    assert largest - before == pytest.approx(SIZE, rel=0.1)
    assert memory.peak_bytes == largest


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA device")
def test_on_a_gpu_the_peak_is_the_allocator_s():
    device = resolve_device("cuda")
    memory = PeakMemory(device)
    before = memory.peak_bytes
    held = torch.ones(100_000_000, dtype=torch.uint8, device=device)
    del held
    assert memory.peak_bytes - before >= 100_000_000
