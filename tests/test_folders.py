"""Any folder of clips against another, or against stored statistics: values, cards, and what is refused."""

import pickle
import sys
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from networks import Levels

from foleylib.audio.io import AudioError
from foleylib.evaluation import stored
from foleylib.evaluation.compared import OF_REFERENCE
from foleylib.evaluation.distribution import kad
from foleylib.evaluation.folders import COLUMNS, NEEDS_CLIPS, NO_INTERVAL, Options, score_folder, store_statistics
from foleylib.evaluation.frechet import cosine_similarities, fad, gaussian
from foleylib.evaluation.metrics import kl_divergence
from foleylib.networks.embedders import Embedder

OPTIONS = Options(bootstrap=10, splits=2)


class Reading(Levels):
    """It reads texts by their length."""

    def embed_text(self, texts):
        return torch.tensor([[len(text), 1.0, 1.0, 1.0] for text in texts])


def evaluator(name="levels", rate=8000, window=None):
    return Embedder(name, 4, rate, "f" * 64, Reading(window), least=window or 4)


BOTH = {"windows": evaluator("fad_16k", window=400), "net": evaluator("cnn14")}


def clip(path, seed, rate=16000, seconds=0.2, channels=1, level=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = level * np.random.default_rng(seed).normal(size=(round(rate * seconds), channels)).clip(-3, 3)
    soundfile.write(path, wave, rate, subtype="PCM_16" if path.suffix == ".wav" else None)


def folder(root, seed, n=10, names="{:02d}.wav", **options):
    for i in range(n):
        clip(
            root / names.format(i),
            (seed, i),
            **{key: value(i) if callable(value) else value for key, value in options.items()},
        )
    return root


def embeddings(root, net):
    """What an evaluator makes of wav files at its own rate, computed plainly."""
    waves = [soundfile.read(path, dtype="float32")[0] for path in sorted(root.glob("*.wav"))]
    return net.embed(np.stack(waves))


def values(table, class_="all"):
    rows = table[table["class"] == class_]
    return {(row.embedder, row.metric): row.value for row in rows.itertuples()}


def test_scores_of_two_folders(tmp_path):
    ours, theirs = folder(tmp_path / "a", 0, rate=8000), folder(tmp_path / "b", 1, rate=8000, level=0.12)
    table, card = score_folder(ours, theirs, BOTH, options=OPTIONS, paired=True)
    assert list(table) == COLUMNS and (table.n == 10).all() and table.value.notna().all()
    assert set(table[table.low.isna()].metric) == {"fad_infinity"} == set(table[table.note == NO_INTERVAL].metric)
    assert set(table.note) == {"", NO_INTERVAL}
    found = values(table)
    x, y = (embeddings(root, BOTH["net"]) for root in (theirs, ours))
    assert found["net", "fd"] == pytest.approx(fad(x["embedding"], y["embedding"]))
    assert found["net", "kad"] == pytest.approx(kad(x["embedding"], y["embedding"]))
    assert found["net", "kl_pairs"] == pytest.approx(kl_divergence(x["logits"], y["logits"]))  # files of one name
    x, y = (embeddings(root, BOTH["windows"])["embedding"] for root in (theirs, ours))
    assert found["windows", "fad"] == pytest.approx(fad(x, y)) and x.shape == (10, 4, 4)
    assert set(card["evaluators"]["net"].values()) == {"cnn14", "f" * 64} and card["pairs"].startswith("by id")
    assert card["n"] == card["reference"]["n"] == 10 and card["clips_sha256"] != card["reference"]["sha256"]
    again = score_folder(ours, theirs, BOTH, options=OPTIONS, paired=True)
    assert again[0].equals(table) and again[1] == card
    apart, of_apart = score_folder(ours, theirs, BOTH, options=OPTIONS)  # equal names may be chance
    assert ("net", "kl_pairs") not in values(apart) and of_apart["pairs"].startswith("not paired")
    same, of_same = score_folder(theirs, theirs, {"net": BOTH["net"]}, options=OPTIONS)
    assert values(same)["net", "fd"] == pytest.approx(0, abs=1e-9)
    assert of_same["clips_sha256"] == of_same["reference"]["sha256"] == card["reference"]["sha256"]


def test_any_rate_length_format_and_channels(tmp_path):
    plain = folder(tmp_path / "plain", 1)
    mixed = folder(
        tmp_path / "mixed", 0, rate=lambda i: (8000, 22050, 44100)[i % 3], seconds=lambda i: 0.2 + 0.05 * (i % 2)
    )
    clip(mixed / "stereo.flac", 5, channels=2)
    table, card = score_folder(mixed, plain, BOTH, options=OPTIONS)
    assert card["n"] == 11 and (table.n == 11).all() and table.value.notna().all()
    assert card["pairs"].startswith("not paired") and ("net", "kl_pairs") not in values(table)
    with pytest.raises(ValueError, match="paired: .* has not one clip of the same name for each in"):
        score_folder(mixed, plain, BOTH, options=OPTIONS, paired=True)


def test_more_files_than_are_read_at_once(tmp_path, monkeypatch):
    ours, theirs = folder(tmp_path / "a", 0), folder(tmp_path / "b", 1)
    whole, _ = score_folder(ours, theirs, BOTH, options=OPTIONS)
    monkeypatch.setattr("foleylib.evaluation.clip_sets.CHUNK", 3)
    parts, _ = score_folder(ours, theirs, BOTH, options=OPTIONS)
    assert values(parts) == pytest.approx(values(whole), rel=1e-5)


def by_class(root, seed, names=("DogBark", "Rain")):
    for i, name in enumerate(names):
        folder(root / name, seed + i, n=6, level=0.05 * (1 + i))
    return root


def test_classes_are_scored_and_averaged_whatever_their_spelling(tmp_path):
    ours, theirs = by_class(tmp_path / "a", 0), by_class(tmp_path / "b", 10, ("dog_bark", "rain", "keyboard"))
    table, _ = score_folder(ours, theirs, BOTH, options=OPTIONS)
    assert list(dict.fromkeys(table["class"])) == ["all", "DogBark", "Rain", "average"]
    alone, _ = score_folder(ours / "Rain", theirs / "rain", {"net": BOTH["net"]}, options=OPTIONS)
    assert values(table, "Rain")["net", "fd"] == pytest.approx(values(alone)["net", "fd"])
    classes = [values(table, name)["windows", "fad"] for name in ("DogBark", "Rain")]
    assert values(table, "average")["windows", "fad"] == pytest.approx(np.mean(classes))
    flat, _ = score_folder(theirs / "rain", theirs, BOTH, options=OPTIONS)
    assert set(flat["class"]) == {"all"}
    with pytest.raises(ValueError, match="the reference has no class keyboard; it has dogbark, rain"):
        score_folder(theirs, ours, BOTH, options=OPTIONS)


def test_captions_give_the_clap_score(tmp_path):
    ours, theirs = by_class(tmp_path / "a", 0), by_class(tmp_path / "b", 10)
    captions = {f"{name}/{i:02d}": f"{name} number {i}" for name in ("DogBark", "Rain") for i in range(6)}
    table, _ = score_folder(ours, theirs, {"net": BOTH["net"]}, captions=captions, options=OPTIONS)
    net = evaluator(rate=16000)
    audio = np.concatenate([embeddings(ours / name, net)["embedding"] for name in ("DogBark", "Rain")])
    text = net.embed_text([captions[key] for key in captions])
    found = score_folder(ours, theirs, {"n": net}, captions=captions, options=OPTIONS)[0]
    assert values(found)["n", "clap_score"] == pytest.approx(cosine_similarities(audio, text).mean(), rel=1e-5)
    assert ("net", "clap_score") in values(table, "average")
    with pytest.raises(ValueError, match="captions has none for 11 clips of .*DogBark/01, DogBark/02"):
        score_folder(ours, theirs, BOTH, captions={"DogBark/00": "x"}, options=OPTIONS)


# ---- stored statistics


def test_own_statistics_stand_for_their_folder(tmp_path):
    ours, theirs = folder(tmp_path / "a", 0), folder(tmp_path / "b", 1)
    file = store_statistics(theirs, BOTH, tmp_path / "deep" / "b.npz")
    whole, (table, card) = (
        values(score_folder(ours, theirs, BOTH, options=OPTIONS)[0]),
        score_folder(ours, file, BOTH, options=OPTIONS),
    )
    found = values(table)
    kept = {("windows", "fad"), ("windows", "fad_infinity"), ("net", "fd"), ("net", "fad_infinity"), ("net", "is")}
    assert {key: found[key] for key in kept} == pytest.approx({key: whole[key] for key in kept}, rel=1e-6)
    lost = table[table.note == NEEDS_CLIPS]
    assert lost.value.isna().all() and set(table[table.note != NEEDS_CLIPS].metric) == {metric for _, metric in kept}
    assert set(lost[lost.embedder == "windows"].metric) == set(OF_REFERENCE)
    assert set(lost[lost.embedder == "net"].metric) == {*OF_REFERENCE, "kl"}
    assert card["reference"]["kind"] == "statistics" and card["reference"]["rows"] == {"all": 40}
    other = {"net": Embedder("cnn14", 4, 8000, "e" * 64, Reading(None))}
    with pytest.raises(ValueError, match="are of weights ffff.*, not of those given"):
        score_folder(ours, file, other, options=OPTIONS)


def test_statistics_of_other_writers(tmp_path):
    ours, rng = folder(tmp_path / "a", 0), np.random.default_rng(0)
    mean, cov = gaussian(rng.normal(size=(50, 4)))
    np.savez(tmp_path / "plain.npz", mu=mean, sigma=cov, n=50)
    np.savez(tmp_path / "fadtk.npz", **{"net.mu": mean, "net.cov": cov, "clap.mu": mean, "clap.cov": cov})
    one = {"net": BOTH["net"]}
    tables = [score_folder(ours, tmp_path / f"{name}.npz", one, options=OPTIONS)[0] for name in ("plain", "fadtk")]
    assert tables[0].equals(tables[1])
    with pytest.raises(ValueError, match="no windows.mu with windows.sigma for windows; it holds clap.cov, clap.mu"):
        score_folder(ours, tmp_path / "fadtk.npz", BOTH, options=OPTIONS)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(4), "sigma": np.eye(3)}, r"\(D,\) and \(D, D\)"),
        ({"mu": np.full(4, np.nan), "sigma": np.eye(4)}, "not finite"),
        ({"mu": np.zeros(4), "sigma": np.triu(np.ones((4, 4)))}, "not symmetric"),
        ({"mu": np.zeros(5), "sigma": np.eye(5)}, "stored statistics have 5 dimensions, the clips 4"),
        ({"other": np.zeros(4)}, "it holds other"),
    ],
)
def test_statistics_that_cannot_be_used(tmp_path, arrays, message):
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        score_folder(folder(tmp_path / "a", 0), tmp_path / "s.npz", {"net": BOTH["net"]}, options=OPTIONS)


# ---- the challenge's published reference, pickled by TensorFlow's protobuf messages


@pytest.fixture
def feature(monkeypatch):
    """`tensorflow.train.Feature`, built with protobuf as TensorFlow defines it and importable under TensorFlow's name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="made/feature.proto", package="made", syntax="proto3")
    kinds = [("BytesList", 12), ("FloatList", 2), ("Int64List", 3)]
    for name, kind in kinds:
        file.message_type.add(name=name).field.add(name="value", number=1, label=3, type=kind)
    message = file.message_type.add(name="Feature")
    message.oneof_decl.add(name="kind")
    for number, (name, field) in enumerate(
        zip(("BytesList", "FloatList", "Int64List"), ("bytes_list", "float_list", "int64_list")), 1
    ):
        message.field.add(name=field, number=number, label=1, type=11, type_name=f".made.{name}", oneof_index=0)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("made.Feature"))
    name = "tensorflow.core.example.feature_pb2"
    for part in ("tensorflow", "tensorflow.core", "tensorflow.core.example", name):
        monkeypatch.setitem(sys.modules, part, ModuleType(part))
    made.__module__, made.__qualname__ = name, "Feature"
    sys.modules[name].Feature = made
    return made


def pickled(path, feature, mean, cov, count, protocol=4):
    features = {name: feature() for name in ("mu", "sigma", "embedding_length", "embedding_count")}
    features["mu"].float_list.value.extend(mean)
    features["sigma"].float_list.value.extend(cov.ravel())
    features["embedding_length"].int64_list.value.append(len(mean))
    features["embedding_count"].int64_list.value.append(count)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(features, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [3, 4, 5])  # Python 3 before 3.8 writes 3
def test_challenge_statistics_are_read_without_tensorflow(tmp_path, feature, monkeypatch, protocol):
    mean, cov = gaussian(np.random.default_rng(0).normal(size=(1000, 128)))
    file = pickled(tmp_path / "gt_embedding.pkl", feature, mean, cov, 1000, protocol)
    monkeypatch.delitem(sys.modules, "tensorflow.core.example.feature_pb2")
    found = stored.read_challenge(file)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.cov, cov, atol=1e-6)
    assert found.n == 1000


def test_clips_against_the_challenges_reference_by_class(tmp_path, feature):
    ours, nets = by_class(tmp_path / "ours", 0), {"fad": evaluator("fad_dcase", window=400)}
    moments = {}
    for i, name in enumerate(("dog_bark", "rain", "sneeze_cough")):
        moments[name] = gaussian(np.random.default_rng(i).normal(size=(100, 4)))
        pickled(tmp_path / "ref" / name / "gt_embedding.pkl", feature, *moments[name], 100)
    table, card = score_folder(ours, tmp_path / "ref", nets, options=OPTIONS)
    assert set(table["class"]) == {"DogBark", "Rain", "average"}
    found = {row["class"]: row.value for _, row in table[table.metric == "fad"].iterrows()}
    single, _ = score_folder(ours / "Rain", tmp_path / "ref/rain/gt_embedding.pkl", nets, options=OPTIONS)
    assert found["Rain"] == pytest.approx(values(single)["fad", "fad"])
    assert found["average"] == pytest.approx((found["Rain"] + found["DogBark"]) / 2)
    assert card["reference"]["rows"] == {"dogbark": 100, "rain": 100, "sneezecough": 100}
    with pytest.raises(ValueError, match="has statistics of dogbark, rain, sneezecough: put the clips in folders"):
        score_folder(ours / "Rain", tmp_path / "ref", nets, options=OPTIONS)
    with pytest.raises(ValueError, match=r"statistics are of fad_dcase, not of \['net'\]"):
        score_folder(ours, tmp_path / "ref", nets | {"net": BOTH["net"]}, options=OPTIONS)


class Harmful:
    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"mu": Harmful()}), "it names builtins.print"),
        (pickle.dumps([1, 2]), "not the challenge's statistics"),
        (b"no pickle", "not the challenge's statistics"),
        (b"", "not the challenge's statistics"),
    ],
)
def test_a_pickle_of_anything_else_is_refused_and_not_run(tmp_path, capsys, content, message):
    (tmp_path / "gt_embedding.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        stored.read_challenge(tmp_path / "gt_embedding.pkl")
    assert "ran" not in capsys.readouterr().out


# ---- clips that cannot be scored


def test_every_file_that_cannot_be_scored_is_named(tmp_path):
    ours, theirs = folder(tmp_path / "a", 0), folder(tmp_path / "b", 1)
    whole = (ours / "00.wav").read_bytes()
    (ours / "01.wav").write_bytes(whole[: len(whole) // 2])
    (ours / "02.wav").write_bytes(b"<html>")
    soundfile.write(ours / "03.wav", np.zeros(3200), 16000)
    soundfile.write(ours / "04.wav", np.zeros(0), 16000)
    clip(theirs / "05.wav", 1, seconds=0.03)
    with pytest.raises(AudioError) as error:
        score_folder(ours, theirs, BOTH, options=OPTIONS)
    lines = str(error.value).splitlines()
    assert lines[0] == "5 clips cannot be scored, so nothing is:" and len(lines) == 6
    said = {"a/01": "cut short", "a/02": "cannot be read", "a/03": "silent", "a/04": "no samples"}
    said["b/05"] = "has 0.03 s, and windows needs 0.05 s"
    for file, what in said.items():
        assert sum(f"{file}.wav" in line and what in line for line in lines) == 1, (file, lines)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no such folder"),
        (lambda root: root.mkdir(), "no sounds"),
        (lambda root: (clip(root / "a.wav", 0), clip(root / "Rain/a.wav", 0)), "sounds beside subfolders"),
        (lambda root: (clip(root / "a.wav", 0), clip(root / "a.flac", 0)), "several files of one name, a.flac, a.wav"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, make, message):
    make(tmp_path / "a")
    with pytest.raises(AudioError, match=message):
        score_folder(tmp_path / "a", folder(tmp_path / "b", 1), BOTH, options=OPTIONS)
    with pytest.raises(ValueError, match="give at least one"):
        score_folder(tmp_path / "b", tmp_path / "b", {}, options=OPTIONS)
