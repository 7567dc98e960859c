import sys
from pathlib import Path

import pytest
import torch
from tests_support.trained_folder import random_net, tiny_config, write_trained

from trainer.export import export
from trainer.trained import read_trained, restore_clips

pytestmark = pytest.mark.usefixtures("one_thread")

WITHOUT_ONNX = {"config.json", "best.safetensors", "README.md"}


@pytest.fixture
def no_onnx(monkeypatch):
    """The extra is not installed: translating takes seconds."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)


@pytest.fixture
def trained(tmp_path):
    return write_trained(tmp_path / "trial", tiny_config("waveform"))


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_an_export_is_the_net_with_all_that_is_said_of_it(tmp_path, trained):
    row = '{"step": %d, "stft": %f, "time_ms": 1}\n'
    (trained.folder / "metrics.jsonl").write_text(row % (1, 1.5) + row % (2, 1.25))
    written = export(trained, tmp_path / "new" / "out")
    assert names(tmp_path / "new" / "out") == WITHOUT_ONNX | {"model.onnx"}
    assert {path.name for path in written.files} == WITHOUT_ONNX | {"model.onnx"}
    assert 0 < written.difference < 1e-4
    text = (tmp_path / "new" / "out" / "README.md").read_text()
    for fact in (trained.record.fingerprint, "1.2500", "a multiple of 8 samples", "44.1 kHz"):
        assert fact in text


@pytest.mark.usefixtures("no_onnx")
def test_an_export_opens_as_the_same_net(tmp_path, trained):
    export(trained, tmp_path / "out")
    found = read_trained(tmp_path / "out")
    assert found.record == trained.record
    clips = torch.rand(2, 999) * 2 - 1
    expected = restore_clips(random_net(trained.record.config.model), clips)
    assert torch.equal(restore_clips(found.load(torch.device("cpu")), clips), expected)


@pytest.mark.usefixtures("no_onnx")
def test_without_the_extra_the_rest_is_written_and_the_reason_told(tmp_path, trained):
    written = export(trained, tmp_path / "out")
    assert names(tmp_path / "out") == WITHOUT_ONNX
    assert written.difference is None
    assert "it needs onnxscript" in written.why_no_onnx
    assert "onnx" not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.usefixtures("no_onnx")
def test_an_earlier_export_is_replaced_whole_when_told_to(tmp_path, trained):
    out = tmp_path / "out"
    export(trained, out)
    (out / "model.onnx").write_bytes(b"of the net before")
    other = write_trained(tmp_path / "other", tiny_config("frames"))
    with pytest.raises(ValueError, match=r"out=.*/out; must be new or empty"):
        export(other, out)
    assert read_trained(out).record == trained.record
    export(other, out, force=True)
    assert names(out) == WITHOUT_ONNX
    assert read_trained(out).record == other.record


@pytest.mark.usefixtures("no_onnx")
def test_an_empty_folder_is_filled_and_stays_the_same_folder(tmp_path, trained, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    export(trained, out)
    assert names(Path()) == WITHOUT_ONNX


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_with_anything_else_in_it_is_never_touched(tmp_path, trained, force):
    with pytest.raises(ValueError, match="must be new, empty or an export: metrics.jsonl is in it"):
        (trained.folder / "metrics.jsonl").touch()
        export(trained, trained.folder, force=force)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match="must be a folder"):
        export(trained, file, force=force)


@pytest.mark.usefixtures("no_onnx")
def test_an_export_that_fails_leaves_what_was_there(tmp_path, trained):
    out = tmp_path / "out"
    export(trained, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (trained.folder / "best.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="weights="):
        export(trained, out, force=True)
    with pytest.raises(ValueError, match="weights="):
        export(trained, tmp_path / "never")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert names(tmp_path) == {"trial", "out"}


@pytest.mark.usefixtures("no_onnx")
def test_what_goes_wrong_halfway_leaves_nothing(tmp_path, trained):
    (trained.folder / "metrics.jsonl").write_text("damaged\n")  # read after the weights are copied
    with pytest.raises(ValueError, match="metrics.jsonl"):
        export(trained, tmp_path / "out")
    assert names(tmp_path) == {"trial"}
