import json
import subprocess
import sys

import pytest
import torch

from trainer.compilation import compile_net

pytestmark = pytest.mark.timeout(900)  # a compiler on a loaded machine takes minutes

TRIAL = """
import hashlib, json, pathlib, sys
import torch
from torch._dynamo.utils import counters
from trainer.compilation import compile_net
from trainer.model_config import ModelConfig
from trainer.models import build_model

compiles = sys.argv[2] == "compiled"
torch.set_num_threads(1)
torch.manual_seed(0)
net = build_model(ModelConfig(channels=(1, 4), blocks=(1,), factors=(4,), kernel_size=3))
forward = compile_net(net, cache=pathlib.Path(sys.argv[1])) if compiles else net
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
clips, losses = 0.1 * torch.randn(2, 4096), []
for step in range(1, 5):
    loss = (forward(clips) - clips).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
    if step % 2 == 0:
        net.eval()
        with torch.no_grad():
            losses.append(forward(clips[:, :2048].repeat(4, 1)).square().mean().item())
        net.train()
weights = b"".join(p.detach().numpy().tobytes() for p in net.parameters())
print(json.dumps({
    "losses": losses,
    "weights": hashlib.sha256(weights).hexdigest(),
    "graphs": counters["stats"]["unique_graphs"],
    "misses": counters["inductor"]["fxgraph_cache_miss"],
    "hits": counters["inductor"]["fxgraph_cache_hit"],
}))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trials(cache):
    """Two trials of one configuration, one after the other, each in a process of its own, and one
    without torch.compile: what each printed."""

    def run(how):
        command = [sys.executable, "-c", TRIAL, str(cache), how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return [run("compiled"), run("compiled"), run("eager")]


@pytest.mark.slow
def test_the_second_trial_of_a_shape_pays_no_compile(trials):
    first, second, _ = trials
    # Training's way there, its way back, and validation.
    assert (first["misses"], first["hits"]) == (3, 0)
    assert (second["misses"], second["hits"]) == (0, 3)


@pytest.mark.slow
def test_training_and_validation_are_each_compiled_once(trials):
    assert [trial["graphs"] for trial in trials] == [2, 2, 0]


@pytest.mark.slow
def test_a_compiled_trial_repeats_to_the_last_bit(trials):
    first, second, _ = trials
    assert second["losses"] == first["losses"]
    assert second["weights"] == first["weights"]


@pytest.mark.slow
def test_compiled_and_not_the_losses_are_the_same_to_float32_rounding(trials):
    compiled, _, eager = trials
    assert len(compiled["losses"]) == 6
    # Sums of thousands of float32 in another order.
    assert compiled["losses"] == pytest.approx(eager["losses"], rel=1e-5)


@pytest.mark.slow
def test_all_that_is_compiled_lies_in_the_cache_folder(trials, cache):
    assert [path.name for path in cache.iterdir()] == ["compiled"]
    kept = {path.suffix for path in (cache / "compiled").rglob("*") if path.is_file()}
    assert {".so", ".py"} <= kept  # what was built, and what calls it


SPECTROGRAM = """
import copy, json, pathlib, sys
import torch
from torch._dynamo.utils import counters
from trainer.compilation import compile_net
from trainer.model_config import ModelConfig
from trainer.models import build_model

torch.set_num_threads(1)
torch.manual_seed(0)
shape = {"channels": (1, 4), "blocks": (1,), "factors": (8,), "kernel_size": 3}
net = build_model(ModelConfig(family="spectrogram", **shape))
clips = 0.1 * torch.randn(2, 4096)

def train(net, forward):
    optimizer, losses = torch.optim.AdamW(net.parameters(), lr=1e-2), []
    for _ in range(3):
        loss = (forward(clips) - clips).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses

other = copy.deepcopy(net)
compiled = train(net, compile_net(net, cache=pathlib.Path(sys.argv[1])))
print(json.dumps({
    "compiled": compiled,
    "eager": train(other, other),
    "graphs": counters["stats"]["unique_graphs"],
    "breaks": len(counters["graph_break"]),
}))
"""


@pytest.mark.slow
def test_a_net_over_an_stft_is_compiled_whole_and_trains_as_it_does_uncompiled(tmp_path):
    command = [sys.executable, "-c", SPECTROGRAM, str(tmp_path)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (found["graphs"], found["breaks"]) == (1, 0)
    assert found["eager"][-1] < 0.99 * found["eager"][0]
    assert found["compiled"] == pytest.approx(found["eager"], rel=1e-5)  # float32, another order


def test_without_a_compiler_one_line_says_so(tmp_path):
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(
            ValueError, match="^compile=True; must be false .*: No working C\\+\\+ com"
        ) as found,
    ):
        compile_net(torch.nn.Linear(2, 2), cache=tmp_path)
    assert "\n" not in str(found.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own
def test_a_compiler_that_fails_is_told_in_one_line(tmp_path):
    """It is there, says its version, and can build nothing: as without Python's headers."""
    broken = tmp_path / "c++"
    broken.write_text('#!/bin/sh\ncase "$*" in *--version*) echo "g++ 12";; *) exit 1;; esac\n')
    broken.chmod(0o755)
    with torch._inductor.config.patch({"cpp.cxx": (None, str(broken))}):
        forward = compile_net(torch.nn.Linear(2, 2), cache=tmp_path / "cache")
        with pytest.raises(
            ValueError, match="^compile=True; must be false on this machine"
        ) as found:
            forward(torch.zeros(3, 2).sin())
    assert "\n" not in str(found.value)
