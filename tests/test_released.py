"""Files as their authors release them: what lies beside the weights changes nothing, and other files are refused."""

import argparse
from pathlib import PosixPath

import numpy as np
import pytest
import torch
from golden_cases import original_state
from networks import noise

from foleylib.audio import mel
from foleylib.networks import panns, vggish
from foleylib.networks.published import evaluators, reader, weights

SMALL = panns.PannsConfig(evaluators.MEL_16K, widths=(4, 8), embedding_dim=6, classes=3)


class SmallVggish(vggish.Vggish):
    """VGGish with narrow layers under the names of its checkpoint."""

    def __init__(self, convention):
        torch.nn.Module.__init__(self)
        self.convention, self.examples = convention, vggish.Examples()
        self.features = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.MaxPool2d(16))
        self.embeddings = torch.nn.Sequential(torch.nn.Linear(2 * 6 * 4, 128), torch.nn.ReLU())


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(evaluators.PUBLISHED, "cnn14_16k", (panns.PannsCnn, SMALL))
    monkeypatch.setitem(evaluators.PUBLISHED, "fad_16k", (SmallVggish, vggish.FAD_16K))


def embedded(name, content, folder):
    """Embeddings of noise by an evaluator whose file holds `content`."""
    torch.save(content, folder / "weights.pth")
    loaded = evaluators.load_published(name, folder / "weights.pth", sha256=None, pinned=False)
    return loaded.embed(0.1 * noise(2, 32000).numpy())["embedding"]


SAMPLERS = {
    "of all clips": {"indexes": np.random.RandomState(0).permutation(9), "pointer": 4},
    "balanced": {
        "indexes_per_class": [np.arange(3), np.arange(3, 5)],
        "queue": [np.int64(1), 0],
        "pointers_of_classes": [0, 1],
    },
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_panns(tmp_path, small, sampler):
    """Beside the weights: iteration, the sampler's arrays, and the matrices of the front end."""
    torch.manual_seed(0)
    plain = panns.PannsCnn(SMALL).state_dict()
    front_end = {
        f"spectrogram_extractor.stft.conv_{part}.weight": torch.zeros(257, 1, 512) for part in ("real", "imag")
    }
    front_end["logmel_extractor.melW"] = mel.mel_basis(evaluators.MEL_16K).T.contiguous()
    file = {"iteration": 600000, "model": plain | front_end, "sampler": SAMPLERS[sampler]}
    found = embedded("cnn14_16k", file, tmp_path)
    assert np.array_equal(found, embedded("cnn14_16k", plain, tmp_path)) and found.std() > 0


def test_vggish(tmp_path, small):
    """The PCA that a whole torchvggish has follows the network, and is left out; its file alone is none of the weights."""
    torch.manual_seed(0)
    plain = SmallVggish(vggish.FAD_16K).state_dict()
    pca = {"pca_eigen_vectors": torch.ones(128, 128), "pca_means": torch.ones(128, 1)}
    found = embedded("fad_16k", plain | {f"pproc.{key}": value for key, value in pca.items()}, tmp_path)
    assert np.array_equal(found, embedded("fad_16k", plain, tmp_path)) and found.std() > 0
    with pytest.raises(ValueError, match="weights.pth: not the weights of fad_16k .*pca_means") as error:
        embedded("fad_16k", pca, tmp_path)
    assert "\n" not in str(error.value)


def test_audiomae(golden, draw_weights, tmp_path):
    """Beside the encoder: the decoder, whose blocks have other names too, the optimiser, the scaler and the arguments."""
    case = golden("09_audiomae_small")
    settings = case.manifest["config"]
    sizes = {"dim": settings["embed_dim"], "depth": settings["depth"], "heads": settings["num_heads"]}
    plain = original_state(case, draw_weights) | {"pos_embed": noise(1, 513, sizes["dim"])}
    decoder = ("decoder_embed.weight", "decoder_blocks.0.attn.tau", "decoder_blocks.0.attn.meta_mlp.fc1.weight")
    optimiser = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 2e-4}]}
    arguments = argparse.Namespace(model="mae_vit_base_patch16", mask_ratio=0.8, output_dir=PosixPath("out"))
    file = {"model": plain | {"mask_token": torch.zeros(1, 1, 4)} | {key: torch.zeros(2) for key in decoder}}
    file |= {"optimizer": optimiser, "epoch": 32, "scaler": {"scale": 65536.0, "growth_factor": 2.0}, "args": arguments}
    torch.save(file, tmp_path / "pretrained.pth")
    wave = 0.1 * noise(1, 16000)
    with torch.no_grad():
        found = weights.audiomae_from_original(reader.read(tmp_path / "pretrained.pth"), sizes)(wave)
        assert torch.equal(found, weights.audiomae_from_original(plain, sizes)(wave)) and found.std() > 0


def test_what_is_missing_says_where_its_authors_have_it(tmp_path):
    for name, publisher in {
        "cnn10": "qiuqiangkong/audioset_tagging_cnn",
        "cnn14_16k": "Zenodo",
        "fad_dcase": "harritaylor/torchvggish",
        "laion_clap": "lukewys/laion_clap",
    }.items():
        with pytest.raises(
            ValueError, match=f"weights .*absent: no such file.*{name} from .*{publisher}.*correct the path"
        ):
            evaluators.load_published(name, tmp_path / "absent", sha256=None)
