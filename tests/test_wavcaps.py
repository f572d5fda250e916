"""WavCaps: tables of four sources, sounds wherever its zips unpack them, blacklists of what others test with."""

import json

import pytest
from made_corpora import corpus, json_file, wavcaps

from foleylib.corpora.listing import list_clips
from foleylib.corpora.prepare import prepare
from foleylib.datasets.manifest import CorpusError

TRAIN = {"train": 1.0}


def by_id(clips, key):
    return {clip["id"]: clip[key] for clip in clips}


@pytest.mark.parametrize(
    "folder", ["mnt/fast/waveforms/{source}_flac", "{source}", "audio/{source}/a", "Zip_files/{source}/b"]
)
def test_wavcaps_sources_and_blacklists(tmp_path, folder):
    settings = corpus("wavcaps", wavcaps(tmp_path / "in", folder), split_fractions=TRAIN)
    manifest = prepare("wavcaps", settings, tmp_path / "out")
    assert dict(zip(manifest.id, manifest.caption)) == {
        "AudioSet_SL-Y-0OkG0fLLkc": "caption of Y-0OkG0fLLkc.wav",
        "BBC_Sound_Effects-NHU05000001": "caption of NHU05000001",
        "FreeSound-180913": "caption of 180913",
        "FreeSound-77": "caption of 77",
        "SoundBible-2218": "caption of 2218",
        "SoundBible-2219": "caption of 2219",
    }
    assert manifest.source_group[0] == "-0OkG0fLLkc"  # as of AudioSet and AudioCaps
    licences = dict(zip(manifest.id, manifest.licence))
    assert "freesound.org" in licences["FreeSound-77"] and "bbc" in licences["BBC_Sound_Effects-NHU05000001"]
    listed = (tmp_path / "out/left_out.csv").read_text().splitlines()
    assert [line.rsplit("/", 1)[-1] for line in listed] == [
        "source_path,split,reason",
        "Yb0RFKhbpFJA.flac,,blacklist test_ac",
        "2091.flac,,blacklist ub8k_esc50_vggsound",
    ]


def test_sources_are_chosen_and_blacklists_can_be_put_aside(tmp_path):
    settings = corpus("wavcaps", wavcaps(tmp_path), split_fractions=TRAIN, sources=["FreeSound"], blacklists=[])
    assert {clip["id"] for clip in list_clips(settings)} == {"FreeSound-180913", "FreeSound-2091", "FreeSound-77"}
    with pytest.raises(CorpusError, match="expected json_files/blacklist/blacklist_exclude_all_ac.json"):
        list_clips(settings.changed(blacklists=["all_ac"]))


@pytest.mark.parametrize(
    "value, message",
    [
        ([{"id": "2219"}], "no JSON with the key 'data'"),
        ({"data": {}}, "'data' holds no list"),
        ({"data": [{"caption": "x"}]}, "sb_final.json: entries of data 0 have no id; take the published file"),
        ({"data": [3] * 30}, "entries of data 0, 1, .*, 19 and 10 more have no id"),
    ],
)
def test_tables_of_wavcaps_are_checked(tmp_path, value, message):
    json_file(wavcaps(tmp_path) / "json_files/SoundBible/sb_final.json", value)
    with pytest.raises(CorpusError, match=message):
        list_clips(corpus("wavcaps", tmp_path, split_fractions=TRAIN))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"data": [', id="cut"),
        pytest.param(b"[" * 200_000, id="nested without end"),
        pytest.param('{"data": []}'.encode("utf-16"), id="utf-16"),
        pytest.param(b'{"data": ["\xe9"]}', id="latin-1"),
        pytest.param(b"3", id="a number"),
    ],
)
def test_what_is_no_table_of_wavcaps(tmp_path, content):
    path = wavcaps(tmp_path) / "json_files/SoundBible/sb_final.json"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match="sb_final.json: no JSON with the key 'data' .*; take the published file"):
        list_clips(corpus("wavcaps", tmp_path, split_fractions=TRAIN))


def test_a_pointer_in_place_of_a_table_is_refused(tmp_path):
    """What a checkout without Git LFS has."""
    (wavcaps(tmp_path) / "json_files/FreeSound/fsd_final.json").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(CorpusError, match="fsd_final.json: no JSON with the key 'data'"):
        list_clips(corpus("wavcaps", tmp_path, split_fractions=TRAIN))


def test_captions_that_wavcaps_lacks(tmp_path):
    root = wavcaps(tmp_path)
    path = root / "json_files/SoundBible/sb_final.json"
    table = json.loads(path.read_text())
    table["data"][0]["caption"] = None
    table["data"].append({"id": "2218", "caption": "another of 2218"})
    path.write_text(json.dumps(table))
    settings = corpus("wavcaps", root, split_fractions=TRAIN, sources=["SoundBible"])
    with pytest.raises(CorpusError, match=r"2219.flac \(no caption\)"):
        list_clips(settings)
    assert by_id(list_clips(settings.changed(absent="skip")), "captions") == {
        "SoundBible-2218": ["caption of 2218", "another of 2218"]
    }
