"""Files of the Hub: pinned to a commit, kept, gone on with after a break; what cannot be had is told in one sentence."""

import re
import subprocess
import sys
import time
from pathlib import Path

import loopback_hub
import pytest
from huggingface_hub import constants
from loopback_hub import commit_of
from workspace import environment

from foleylib.networks.published import hub as hubs

NAME = "owner/small"
PIN = commit_of(NAME)
WANTED = ["*.json", "*.txt"]
CONTENT = bytes(range(256)) * 400


@pytest.fixture
def repository(hub):
    """Files of a repository: a part with both kinds of weights, one with PyTorch's alone."""
    root = hub.root / NAME
    for name in (
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "vae/config.json",
        "vae/diffusion_pytorch_model.bin",
        "tokenizer/merges.txt",
        "sample.wav",
        "small.ckpt",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(CONTENT + name.encode())
    (root / "README.md").write_text("---\nlicense: cc-by-nc-sa-4.0\ntags: [audio]\n---\n# Small\n")
    return root


def names_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def refused(sentence, name=NAME, revision=PIN, **options):
    with pytest.raises(hubs.HubError, match=sentence) as error:
        hubs.fetch(name, revision, WANTED, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_wanted_is_fetched_once(hub, repository):
    folder = hubs.fetch(NAME, PIN, WANTED)
    assert folder.name == PIN and folder.is_relative_to(constants.HF_HUB_CACHE)
    taken = {"model_index.json", "tokenizer/merges.txt", "README.md", "unet/config.json", "vae/config.json"}
    taken |= {"unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin"}
    assert names_in(folder) == taken
    assert all((folder / name).read_bytes() == (repository / name).read_bytes() for name in taken)
    asked = len(hub.requests)
    assert hubs.fetch(NAME, PIN, WANTED) == folder and len(hub.requests) == asked


def test_a_file_of_a_repository_is_fetched_alone(repository):
    file = hubs.fetch(f"{NAME}/small.ckpt", PIN, WANTED)
    assert file.read_bytes() == (repository / "small.ckpt").read_bytes()
    assert names_in(file.parent) == {"small.ckpt", "README.md"}


@pytest.mark.parametrize("revision", [None, "main", "v2", PIN[:12]])
def test_what_is_no_commit_is_refused_with_todays(hub, repository, revision):
    said = refused("pin a commit of owner/small by its 40", revision=revision, setting="foundation.revision")
    assert said.startswith(f"foundation.revision is {'empty' if revision is None else repr(revision)}")
    assert said.endswith(f"today's is {PIN}")
    assert not any("resolve" in path for _, path, _ in hub.requests)


def test_a_commit_to_pin_is_looked_up_by_hand_without_network(hub, repository, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    refused("the list is at http://127.0.0.1:9/owner/small/commits/main", revision="main")


def test_a_broken_transfer_goes_on_where_it_was(hub, repository, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.breaks["small.ckpt"] = [30_500, 20_000]
    file = hubs.fetch(f"{NAME}/small.ckpt", PIN, [])
    assert file.read_bytes() == (repository / "small.ckpt").read_bytes()
    ranges = [range for method, path, range in hub.requests if method == "GET" and path.endswith("small.ckpt")]
    assert ranges == [None, "bytes=30000-", "bytes=50000-"]


def test_a_transfer_given_up_keeps_the_files_that_are_whole(hub, repository, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.breaks["unet/diffusion_pytorch_model.safetensors"] = [100] * 20
    refused("transfer failed .*start again, it goes on")
    hub.breaks.clear()
    before = len(hub.requests)
    whole = names_in(Path(constants.HF_HUB_CACHE) / f"models--{NAME.replace('/', '--')}" / "snapshots" / PIN)
    assert hubs.fetch(NAME, PIN, WANTED).is_dir()
    again = {path.partition(f"{PIN}/")[2] for method, path, _ in hub.requests[before:] if method == "GET"}
    assert whole and not whole & again and "unet/diffusion_pytorch_model.safetensors" in again


@pytest.mark.parametrize("offline", [False, True])
def test_without_network_the_cache_serves_or_one_sentence(repository, monkeypatch, tmp_path, offline):
    folder = hubs.fetch(NAME, PIN, WANTED)
    loopback_hub.point_client_at("http://127.0.0.1:9", tmp_path / "cache", monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    assert hubs.fetch(NAME, PIN, WANTED) == folder
    said = refused(f"{NAME} at {PIN} .small.ckpt, ", f"{NAME}/small.ckpt", instead="foundation.checkpoint to it")
    assert f"hf download {NAME} --revision {PIN} --local-dir" in said and said.endswith("foundation.checkpoint to it")
    assert str(tmp_path / "cache") in said
    refused("owner/other at 0{40}.*cannot be reached", "owner/other", "0" * 40)
    (folder / "unet" / "config.json").unlink()
    refused("not whole, in the cache")


@pytest.mark.parametrize(
    ("name", "revision", "sentence"),
    [
        ("owner/none", PIN, "no repository owner/none, or it is private"),
        (NAME, "0" * 40, f"owner/small has no revision 0{{40}}; today's is {PIN}"),
        (f"{NAME}/none.ckpt", PIN, "owner/small has no file none.ckpt at revision"),
        ("a folder/of/mine", PIN, "'a folder/of/mine' is no id of the Hugging Face Hub; give owner/name"),
    ],
)
def test_what_is_missing_is_named(repository, name, revision, sentence):
    refused(sentence, name, revision)


def test_a_repository_without_what_is_wanted_is_named(hub):
    (hub.root / NAME).mkdir(parents=True)
    (hub.root / NAME / "sample.wav").write_bytes(b"RIFF")
    refused("owner/small has no file .*json.* at revision")


def test_a_setting_names_a_path_or_with_a_commit_what_the_hub_has(hub, repository, tmp_path):
    (tmp_path / "weights.pth").touch()
    assert hubs.placed(tmp_path, "weights.pth", PIN, "weights") == tmp_path / "weights.pth"
    assert hubs.placed(tmp_path, "owner/small/small.ckpt", None, "weights") == tmp_path / "owner/small/small.ckpt"
    assert hub.requests == []
    found = hubs.placed(tmp_path, "owner/small/small.ckpt", PIN, "weights")
    assert found.read_bytes() == (repository / "small.ckpt").read_bytes()
    assert (hubs.placed(tmp_path, NAME, PIN, "weights") / "vae/diffusion_pytorch_model.bin").is_file()
    with pytest.raises(hubs.HubError, match="the revision of weights is 'main', which can change: pin a commit"):
        hubs.placed(tmp_path, NAME, "main", "weights")


def test_a_hub_that_fails_is_told(hub, repository, monkeypatch):
    def timeout(*args, **options):
        raise TimeoutError("took too long")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", timeout)
    refused("owner/small at .*: the transfer failed .took too long.; start again")


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: other\nlicense_name: research-only\n---\n", "research-only"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\ntags: [a]\n---\n", None),
        ("# No front matter\nlicense: mit\n", None),
        ("---\nlicense: [\n---\n", None),
        (None, None),
    ],
)
def test_licence_of_a_card(tmp_path, card, licence):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert hubs.licence_of(tmp_path) == licence


def test_the_server_as_a_command(repository):
    """The client of another process finds it by HF_ENDPOINT."""
    serve = [sys.executable, str(Path(__file__).parent / "loopback_hub.py"), str(repository.parents[1])]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip()
            assert re.fullmatch(r"http://127.0.0.1:\d+", url)
            fetch = f"from foleylib.networks.published.hub import fetch; print(fetch({NAME!r}, {PIN!r}, ['*.json']))"
            variables = {"HF_ENDPOINT": url, "HF_HUB_CACHE": constants.HF_HUB_CACHE, "NO_PROXY": "127.0.0.1"}
            done = subprocess.run(
                [sys.executable, "-c", fetch],
                env=environment(Path(__file__).parents[1]) | variables,
                cwd=Path(__file__).parents[1],
                capture_output=True,
                text=True,
                check=True,
            )
        finally:
            server.kill()
    assert (Path(done.stdout.strip()) / "unet/diffusion_pytorch_model.safetensors").is_file()
