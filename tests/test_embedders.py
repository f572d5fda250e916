"""VGGish and PANNs against golden values, loading by hash, and the embedder contract."""

import dataclasses

import numpy as np
import pytest
import torch
from golden_cases import check

from foleylib.audio import mel
from foleylib.networks import embedders, panns, vggish
from foleylib.networks.published import evaluators
from foleylib.runtime import weights_sha256


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def waves(batch, samples, seed=0):
    """Clips of decaying tones in noise, float32 in [-1, 1]."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 16000
    tones = np.sin(2 * np.pi * rng.uniform(100, 4000, (batch, 1)) * time) * np.exp(-time)
    return (0.5 * tones + 0.02 * rng.normal(size=(batch, samples))).clip(-1, 1).astype(np.float32)


def with_weights(model, weights):
    """The model in evaluation mode with golden weights, whose arrays it takes over."""
    model.load_state_dict({key: torch.from_numpy(np.asarray(w)) for key, w in weights.items()}, assign=True)
    return model.eval()


@pytest.mark.parametrize("name", ["cnn10", "cnn14", "cnn14_16k"])
@torch.inference_mode()
@pytest.mark.slow
def test_golden_panns(golden, draw_weights, name):
    case = golden(f"02_panns_{name}")
    with torch.device("meta"):
        network = panns.PannsCnn(evaluators.PUBLISHED[name][1])
    network.log_mel = mel.DecibelMel(network.config.mel)
    model = with_weights(network, draw_weights(case.rows, case.manifest["seed"]))
    wave = torch.from_numpy(case.inputs["wave"].astype(np.float32) / 32768)
    outputs = model(wave)
    check(case, logmel=model.log_mel(wave)[:, :, ::4], clipwise_output=outputs["logits"].sigmoid(), **outputs)


@torch.inference_mode()
def test_golden_vggish(golden, draw_weights):
    case = golden("03_vggish")
    with torch.device("meta"):
        network = vggish.Vggish(vggish.VggishConvention())
    network.examples = vggish.Examples()
    model = with_weights(network, draw_weights(case.rows, case.manifest["seed"]))
    clips = [torch.from_numpy(case.inputs[k].astype(np.float32) / 32768)[None] for k in ("wave0", "wave1")]
    assert [model.examples(clip).shape[1] for clip in clips] == case.manifest["patches_per_wave"]
    check(case, patches=torch.cat([model.examples(clip)[0] for clip in clips])[:, None])
    check(case, embedding_linear=torch.cat([model(clip)["embedding"][0] for clip in clips]))
    model.convention = vggish.VggishConvention(relu=True)
    check(case, embedding_relu=torch.cat([model(clip)["embedding"][0] for clip in clips]))


class Small(vggish.Vggish):
    """VGGish front end whose embedding is the mean of each example over bands."""

    def __init__(self, convention):
        torch.nn.Module.__init__(self)
        self.convention, self.examples = convention, vggish.Examples()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def embed_examples(self, examples):
        return self.scale * examples.mean(dim=2)


def test_dcase_convention_reads_22050_hz_as_16000_in_ten_windows_and_ignores_level():
    model = Small(vggish.FAD_DCASE)
    clips = torch.from_numpy(waves(2, 88200))
    embedded = model(clips)["embedding"]
    assert embedded.shape == (2, 10, 96)
    assert torch.allclose(model(clips * 0.7)["embedding"], embedded, atol=1e-5)
    assert torch.allclose(model(clips * 0.01)["embedding"], embedded, atol=1e-4), "16-bit files are never too quiet"
    scaled = clips[0] / clips[0].max()
    assert torch.allclose(embedded[0, 3], model.examples(scaled[None, 24000:40000]).mean(dim=3)[0, 0], atol=1e-5)


def test_16k_convention_removes_the_mean_and_pads_to_two_seconds():
    model = Small(vggish.FAD_16K)
    clips = torch.from_numpy(waves(2, 64000))
    embedded = model(clips)["embedding"]
    assert embedded.shape == (2, 4, 96)
    assert torch.allclose(model(clips + 0.1)["embedding"], embedded, atol=1e-3)
    assert model(clips[:, :5000])["embedding"].shape == (2, 2, 96)


SMALL = panns.PannsConfig(evaluators.MEL_16K, widths=(4, 8), embedding_dim=6, classes=3)


def published_file(folder, *, config=evaluators.MEL_16K):
    """A file laid out as the published PANNs checkpoints, with the mel matrix of `config`."""
    torch.manual_seed(0)
    weights = panns.PannsCnn(SMALL).state_dict()
    weights["spectrogram_extractor.stft.conv_real.weight"] = torch.zeros(257, 1, 512)
    weights["logmel_extractor.melW"] = mel.mel_basis(config).T.contiguous()
    torch.save({"model": weights}, folder / "net.pth")
    return folder / "net.pth", weights


@pytest.fixture
def small_published(monkeypatch):
    monkeypatch.setitem(evaluators.PUBLISHED, "small", (panns.PannsCnn, SMALL))


def test_published_weights_load_by_hash(tmp_path, small_published):
    path, weights = published_file(tmp_path)
    before = torch.random.get_rng_state()
    loaded = evaluators.load_published("small", path, sha256=weights_sha256(path))
    assert torch.equal(before, torch.random.get_rng_state())
    assert (loaded.name, loaded.dim, loaded.rate, loaded.sha256) == ("small", 6, 16000, weights_sha256(path))
    assert torch.equal(loaded.model.fc1.weight, weights["fc1.weight"])
    assert evaluators.load_published("small", path, sha256=None, pinned=False).sha256 == loaded.sha256
    outputs = loaded.embed(waves(5, 16000), batch_size=2)
    assert outputs["embedding"].shape == (5, 6) and outputs["logits"].shape == (5, 3)
    assert outputs["embedding"].min() >= 0


@pytest.mark.parametrize(
    ("name", "file", "sha256", "pinned", "message"),
    [
        ("small", "net.pth", None, True, "no sha256 is pinned"),
        ("small", "net.pth", "0" * 64, True, "fetch small again"),
        ("resnet", "net.pth", None, True, "give one of"),
        ("small", "absent.pth", None, True, "no such file"),
        ("small", "empty.pth", None, False, "not the weights of small"),
        ("small", "page.pth", None, False, "no file of plain tensors"),
    ],
)
def test_refused_weights(tmp_path, small_published, name, file, sha256, pinned, message):
    published_file(tmp_path)
    torch.save({"model": {}}, tmp_path / "empty.pth")
    (tmp_path / "page.pth").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=message):
        evaluators.load_published(name, tmp_path / file, sha256=sha256, pinned=pinned)


@pytest.mark.parametrize("config", [dataclasses.replace(evaluators.MEL_16K, fmax=7000), evaluators.MEL_32K])
def test_other_mel_filters_are_refused(tmp_path, small_published, config):
    path, _ = published_file(tmp_path, config=config)
    with pytest.raises(ValueError, match="mel filters are not those"):
        evaluators.load_published("small", path, sha256=None, pinned=False)


def test_hash_of_a_folder_depends_on_names_and_contents(tmp_path):
    for name, text in (("one", "a"), ("two", "b")):
        (tmp_path / "f").mkdir(exist_ok=True)
        (tmp_path / "f" / name).write_text(text)
    first = weights_sha256(tmp_path / "f")
    (tmp_path / "f" / "two").rename(tmp_path / "f" / "three")
    assert weights_sha256(tmp_path / "f") != first
    with pytest.raises(ValueError, match="no weights there"):
        weights_sha256(tmp_path / "absent")


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda e: e.embed(np.zeros(16000)), "give"),
        (lambda e: e.embed(np.zeros((0, 16000))), "N >= 1"),
        (lambda e: e.embed(np.zeros((2, 500))), "T >="),
        (lambda e: e.embed(np.array([[0.0] * 16000, [np.nan] * 16000])), "clip 1 holds"),
        (lambda e: vggish.Vggish.prepare(Small(vggish.FAD_DCASE), torch.zeros(1, 15999)), "T >= 16000 at 22050"),
        (lambda e: vggish.Vggish.prepare(Small(vggish.VggishConvention()), torch.zeros(1, 15599)), "T >= 15600"),
        (lambda e: panns.PannsConfig(dataclasses.replace(evaluators.MEL_16K, padding="dataset")), "center"),
        (lambda e: panns.PannsConfig(evaluators.MEL_16K, widths=(4,) * 8), "pool"),
    ],
)
def test_bad_input_stops_with_a_sentence(call, message):
    embedder = embedders.Embedder("small", 6, 16000, "", panns.PannsCnn(SMALL))
    with pytest.raises(ValueError, match=message):
        call(embedder)
