"""The reader of published weights: what released files hold is read, what could run code is not."""

import argparse
import os
from pathlib import PosixPath

import numpy as np
import pytest
import torch

from foleylib.networks.published import reader


class Hostile:
    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def test_numpy_beside_the_weights_is_let_through(tmp_path):
    """The released PANNs files hold the state of their sampler."""
    sampler = {
        "indexes": np.arange(4),
        "pointer": np.float32(3),
        "names": np.array(["a", "bc"]),
        "done": np.array(True),
    }
    torch.save({"model": {"a": torch.ones(2)}, "iteration": 3, "sampler": sampler}, tmp_path / "Cnn14.pth")
    content = reader.read(tmp_path / "Cnn14.pth")
    assert torch.equal(content["model"]["a"], torch.ones(2)) and content["sampler"]["indexes"].tolist() == [0, 1, 2, 3]


def test_the_arguments_of_a_training_script_are_let_through(tmp_path):
    """AudioMAE's code saves them beside weights, optimiser and scaler."""
    layer = torch.nn.Linear(2, 2)
    optimiser = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2)).sum().backward()
    optimiser.step()
    args = argparse.Namespace(lr=2e-4, betas=(0.9, 0.95), output_dir=PosixPath("runs/1"), resume=None, distributed=True)
    more = {"optimizer": optimiser.state_dict(), "epoch": 32, "scaler": {"scale": 65536.0}, "args": args}
    torch.save({"model": layer.state_dict(), **more}, tmp_path / "pretrained.pth")
    content = reader.read(tmp_path / "pretrained.pth")
    assert torch.equal(content["model"]["weight"], layer.weight) and content["args"] == args
    assert content["optimizer"]["state"][0]["step"] == 1


def test_safetensors_are_read(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert torch.equal(reader.read(tmp_path / "a.safetensors")["a"], torch.ones(2))


@pytest.mark.parametrize("where", ["beside the weights", "in an array", "in the arguments"])
def test_a_file_with_code_is_refused_and_runs_none(tmp_path, where):
    hostile, trace = Hostile(tmp_path / "ran"), tmp_path / "ran"
    extra = {
        "beside the weights": hostile,
        "in an array": np.array([hostile], dtype=object),
        "in the arguments": argparse.Namespace(lr=hostile),
    }[where]
    torch.save({"state_dict": {"a": torch.ones(1)}, "callbacks": extra}, tmp_path / "code.ckpt")
    with pytest.raises(ValueError, match="code.ckpt: .*could run code.*save the weights alone") as error:
        reader.read(tmp_path / "code.ckpt")
    assert not trace.exists() and "\n" not in str(error.value)


def test_what_is_no_state_dict_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    torch.save({"a": torch.ones(1000)}, tmp_path / "whole.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:2000])
    (tmp_path / "text.pt").write_text("<html>404</html>")
    (tmp_path / "half.safetensors").write_bytes(b"half")
    for name, said in {
        "module.pt": "holds torch.nn.modules.linear.Linear",
        "list.pt": "holds a list",
        "half.pt": "fetch it again",
        "text.pt": "text.pt: ",
        "half.safetensors": "fetch it again",
        "none.pt": "no such file",
    }.items():
        with pytest.raises(ValueError, match=said):
            reader.read(tmp_path / name)
