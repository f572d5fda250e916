"""The judge: storage and seeds."""

import numpy as np
import pytest
import torch

from foleylib.networks import judge

LABELS = ("low", "high", "noise")
SIZES = {"rate": 16000, "widths": [4, 8, 8], "embedding_dim": 8}


def waves(batch, samples):
    """Clips of noise of rising level, float32 in [-1, 1]."""
    noise = np.random.default_rng(0).normal(size=(batch, samples)) * np.linspace(0.1, 0.3, batch)[:, None]
    return noise.clip(-1, 1).astype(np.float32)


def test_round_trip(tmp_path, capsys):
    model = judge.build(LABELS, seed=1, **SIZES)
    model.features(torch.from_numpy(waves(4, 16000)))  # moves the statistics of bn0
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)  # over what is there
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded = judge.load(tmp_path)
    assert capsys.readouterr().out == ""
    assert loaded.model.labels == LABELS and (loaded.name, loaded.dim, loaded.rate) == ("judge", 8, 16000)
    state = model.state_dict()
    assert list(loaded.model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in loaded.model.state_dict().items())
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(waves(3, 16000)))
    outputs = loaded.embed(waves(3, 16000), batch_size=3)
    assert np.array_equal(outputs["logits"], expected["logits"].numpy())
    single = loaded.embed(waves(3, 16000), batch_size=1)
    assert np.allclose(single["embedding"], outputs["embedding"], atol=1e-5)


def test_faults_are_named(tmp_path):
    with pytest.raises(ValueError, match="run the judge stage first"):
        judge.load(tmp_path / "absent")
    with pytest.raises(ValueError, match="each once"):
        judge.build(("a", "a"), seed=0, **SIZES)
    judge.build(LABELS, seed=0, **SIZES).save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"embedding_dim": 8', '"embedding_dim": 9'))
    with pytest.raises(ValueError, match="(?s)fc1.weight.*run the judge stage again"):
        judge.load(tmp_path)


def test_filters_end_at_half_the_rate():
    assert judge.Judge(LABELS, rate=8000, widths=(4,), embedding_dim=2).config.mel.fmax == 4000
    assert judge.Judge(LABELS, rate=32000, widths=(4,), embedding_dim=2).config.mel.fmax == 8000


def test_drawn_from_its_seed():
    before = torch.random.get_rng_state()
    one, same, other = (judge.build(LABELS, seed=s, **SIZES).fc1.weight for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)
