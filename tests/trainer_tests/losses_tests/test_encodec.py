"""The term `encodec`, on small nets of the real classes, both kinds, saved as transformers does."""

import json
import re

import pytest
import torch
import torchaudio.functional as AF
from safetensors.torch import load_file, save_file
from tests_support.signals import noise

from trainer.losses.encodec import PUBLISHED, EncodecDistance

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"num_filters": 4, "hidden_size": 8, "num_lstm_layers": 1, "codebook_size": 4}
KINDS = {"24 kHz, mono, causal": {}, "48 kHz, stereo, normalized": PUBLISHED}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS.keys())
def encodec(request):
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    return EncodecModel(EncodecConfig(**SMALL, **request.param)).eval()


@pytest.fixture(scope="module")
def folder(encodec, tmp_path_factory):
    path = tmp_path_factory.mktemp("encodec")
    encodec.save_pretrained(path)
    return path


def outputs(net, numbers, signals):
    """Return what some of an encoder's layers make of signals [clip, channel, sample]."""
    made = []
    layers = [net.layers[number] for number in numbers]
    hooks = [m.register_forward_hook(lambda _, __, out: made.append(out)) for m in layers]
    net(signals)
    for hook in hooks:
        hook.remove()
    return made


@pytest.mark.parametrize(
    ("blocks", "features", "layers"),
    [(1, "units", [1]), (3, "units", [1, 4, 7]), (2, "blocks", [3, 6])],
)
@torch.no_grad()
def test_the_distance_is_that_of_transformers_encoder(encodec, folder, blocks, features, layers):
    estimate, target = noise(2, 4100), noise(2, 4100, seed=1)
    config = encodec.config
    made, aim = (
        AF.resample(clips, 44_100, config.sampling_rate)[:, None].repeat(
            1, config.audio_channels, 1
        )
        for clips in (estimate, target)
    )
    if config.normalize:
        scale = aim[:, :1].square().mean(2, keepdim=True).sqrt()
        made, aim = made / scale, aim / scale
    ratios = [
        (a - b).abs().mean((1, 2)) / b.abs().mean((1, 2))
        for a, b in zip(
            outputs(encodec.encoder, layers, made),
            outputs(encodec.encoder, layers, aim),
            strict=True,
        )
    ]
    found = EncodecDistance(blocks=blocks, features=features, weights=folder)(estimate, target)
    expected = torch.stack(ratios).mean(0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)  # weight norm folded: float32


def test_a_silent_target_is_not_brought_to_full_volume(encodec, folder):
    net = EncodecDistance(blocks=1, features="units", weights=folder)
    silence, faint = torch.zeros(1, 4096), noise(1, 4096, level=1e-7)  # under 16 bits' least step
    assert net(faint, silence).item() < 0.05


def test_weight_norm_by_its_old_name_is_read(encodec, folder, tmp_path):
    old = {"parametrizations.weight.original0": "weight_g"}
    old["parametrizations.weight.original1"] = "weight_v"
    state = load_file(folder / "model.safetensors")
    for new, name in old.items():
        state = {key.replace(new, name): value for key, value in state.items()}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    pair = noise(1, 4096), noise(1, 4096, seed=1)
    values = [
        EncodecDistance(blocks=2, features="units", weights=path)(*pair).item()
        for path in (folder, tmp_path)
    ]
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", json.dumps({"model_type": "dac"}).encode()),
        ("config.json", json.dumps({"model_type": "encodec", "num_filters": "x"}).encode()),
        ("config.json", json.dumps({"model_type": "encodec", "num_filters": 6}).encode()),
        ("config.json", b"[" * 200_000),
        ("config.json", b"[1]"),
        ("config.json", b"\xff"),
        ("model.safetensors", b"no weights"),
    ],
)
def test_another_folder_is_refused_in_a_line(folder, tmp_path, name, content):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_bytes(content)
    expected = f"^loss.encodec_weights={re.escape(str(tmp_path))}; must be a folder with EnCodec's"
    with pytest.raises(ValueError, match=expected):
        EncodecDistance(blocks=1, features="units", weights=tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_filters": 10**9},
        {"num_filters": 0},
        {"upsampling_ratios": []},
        {"sampling_rate": 0},
        {"pad_mode": "twice"},
        {"norm_type": "none"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_configuration_of_no_such_net_is_refused_in_a_line(folder, tmp_path, changes):
    fields = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | changes))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    expected = f"^loss.encodec_weights={re.escape(str(tmp_path))}; must be a folder with EnCodec's"
    with pytest.raises(ValueError, match=expected):
        EncodecDistance(blocks=1, features="blocks", weights=tmp_path)
