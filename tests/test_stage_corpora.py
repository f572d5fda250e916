"""The stage corpora: where a corpus is read from and where it is written to."""

import made_corpora
import pytest

from foleylib import paths
from foleylib.datasets import manifest
from foleylib.stages import corpora


@pytest.fixture
def cfg(tiny, tmp_path, monkeypatch):
    """Settings whose corpus `foley` lies in raw/dev of the repository; the working folder is another."""
    made_corpora.dcase(tmp_path / "repository" / "raw" / "dev")
    monkeypatch.setattr(paths, "ROOT", tmp_path / "repository")
    monkeypatch.setattr(paths, "CLIPS", tmp_path / "clips")
    monkeypatch.chdir(tmp_path)
    return tiny.changed(corpora=tiny.corpora | {"foley": made_corpora.corpus("dcase2023t7", "raw/dev")})


def test_a_relative_root_starts_at_the_repository(cfg):
    clips = corpora.make("foley", cfg)
    assert len(clips) == 21 and manifest.load(paths.CLIPS / "foley").equals(clips)


def test_an_absolute_root_is_taken_as_it_is(cfg, tmp_path):
    (tmp_path / "repository").rename(tmp_path / "elsewhere")
    there = cfg.corpora["foley"].changed(root=str(tmp_path / "elsewhere" / "raw" / "dev"))
    assert len(corpora.make("foley", cfg.changed(corpora=cfg.corpora | {"foley": there}))) == 21
    with pytest.raises(ValueError, match="repository/raw/dev: expected DCASE"):
        corpora.make("foley", cfg)


def test_unknown_corpus_is_named(cfg):
    with pytest.raises(ValueError, match="corpora in params.yaml has no 'none'; it has: foley, broad"):
        corpora.make("none", cfg)
