"""What every layer needs: devices, seeds, hashes, files that appear at once."""

import json
import os
import signal
import sys
from functools import partial

import pandas as pd
import pytest
import torch

from foleylib import runtime
from foleylib.params.base import Train


def test_unknown_device_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.pick_device("auto").type == runtime.pick_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="device is 'cuda'.*params.yaml"):
        runtime.pick_device("cuda")


def test_generators_depend_on_their_key_alone():
    draws = [torch.rand(4, generator=runtime.step_generator("cpu", *key)) for key in [(0, 1, 0), (0, 1, 0), (0, 2, 0)]]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_clip_seeds():
    few = runtime.clip_seeds(0, [("a", 0), ("a", 1), ("b", 0)])
    other = runtime.clip_seeds(0, [("b", 0), ("c", 0), ("a", 1), ("a", 0)])
    assert few == [other[3], other[2], other[0]] and len(set(other)) == 4
    assert not set(few) & set(runtime.clip_seeds(1, [("a", 0), ("a", 1), ("b", 0)]))
    assert all(0 <= seed < 2**63 for seed in other)


def test_seeds_are_those_of_earlier_versions():
    """Other seeds would be other clips and other weights."""
    assert runtime.step_generator("cpu", 1, 2, 3).initial_seed() == 6498626229777268288
    assert runtime.clip_seeds(7, [("DogBark", 0), ("Rain", 12)]) == [7537931782342350827, 3166274295502385797]


def test_hash_of_a_folder_covers_names_and_contents(tmp_path):
    hashes = set()
    for name, content in [("a", "1"), ("b", "1"), ("a", "2")]:
        folder = tmp_path / f"{name}{content}"
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / name).write_text(content)
        hashes.add(runtime.weights_sha256(folder))
    assert len(hashes) == 3
    assert runtime.weights_sha256(tmp_path / "a1" / "sub" / "a") == runtime.weights_sha256(
        tmp_path / "b1" / "sub" / "b"
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no weights there"):
        runtime.weights_sha256(tmp_path / "empty")


def test_fingerprint_changes_with_each_part():
    section = Train(steps=1, batch_size=2, lr=0.1)
    prints = [
        runtime.fingerprint(section, 1),
        runtime.fingerprint(section.changed(lr=0.2), 1),
        runtime.fingerprint(section, 2),
        runtime.fingerprint(section, 1, "more"),
    ]
    assert len(set(prints)) == 4 and prints[0] == runtime.fingerprint(section.changed(), 1)
    assert runtime.fingerprint({"a": 1, "b": 2}) == runtime.fingerprint({"b": 2, "a": 1})


def test_state_is_replaced_at_once(tmp_path, monkeypatch):
    file = tmp_path / "run" / "state.pt"
    runtime.save_atomically({"a": 1}, file)
    runtime.save_atomically({"a": 2}, file)
    assert torch.load(file) == {"a": 2} and [p.name for p in file.parent.iterdir()] == ["state.pt"]

    def killed(state, path):
        path.write_bytes(b"half")
        raise InterruptedError

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(InterruptedError):
        runtime.save_atomically({"a": 3}, file)
    assert torch.load(file) == {"a": 2}


def test_tables_and_json_are_written_as_git_compares_them(tmp_path):
    columns = pd.MultiIndex.from_tuples([("Rain", "ours"), ("Rain", "paper")])
    table = pd.DataFrame([[1 / 3, 2.0]], columns=columns)
    file = runtime.write_csv(table, tmp_path / "new" / "table.csv")
    assert file.read_bytes() == b"Rain ours,Rain paper\n0.333333,2\n" and list(table.columns) == list(columns)
    named = table.set_axis(pd.Index(["ldm"], name="system"))
    assert runtime.write_csv(named, file).read_text().splitlines()[1] == "ldm,0.333333,2"
    assert [p.name for p in file.parent.iterdir()] == ["table.csv"]
    lines = runtime.write_json(tmp_path / "other" / "a.json", {"a": 1, "b": [2]})
    assert json.loads(lines.read_text()) == {"a": 1, "b": [2]} and lines.read_text().endswith("}\n")


# Work side by side


def setup_of(file):
    """Notes that it was called, and by which process."""
    with open(file, "a") as lines:
        lines.write(f"{os.getpid()}\n")
    return 10


def noted(context, number):
    return context + number, os.getpid(), torch.get_num_threads()


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("forks", [True, False])
def test_calls_keep_their_order_whatever_process_works_on_them(tmp_path, monkeypatch, jobs, forks):
    monkeypatch.setattr(runtime, "_autograd_works_in_forks", lambda: forks)
    before = torch.get_num_threads()
    how = {"device": "cpu", "jobs": jobs, "desc": "calls"}
    found = runtime.in_parallel(noted, [(n,) for n in range(6)], partial(setup_of, tmp_path / "setups"), **how)
    assert [value for value, *_ in found] == [10, 11, 12, 13, 14, 15] and {threads for *_, threads in found} == {1}
    processes = {process for _, process, _ in found}
    assert (os.getpid() in processes) == (jobs == 1) and torch.get_num_threads() == before
    setups = set(map(int, (tmp_path / "setups").read_text().split()))
    if jobs == 1 or (forks and sys.platform == "linux"):
        assert setups == {os.getpid()}  # forks have the context of this process
    else:
        assert processes <= setups and os.getpid() not in setups


def trained(context, number):
    weight = torch.ones(3, requires_grad=True)
    (context * weight).square().sum().backward()
    return float(weight.grad.sum()) + number


def test_processes_train_whether_or_not_this_one_has(tmp_path):
    """Autograd may not work in a fork of a process that has used it, as this one has: others are started then."""
    assert trained(10, 0) == 600
    how = {"device": "cpu", "jobs": 2, "desc": "trainings"}
    found = runtime.in_parallel(trained, [(0,), (1,)], partial(setup_of, tmp_path / "setups"), **how)
    assert found == [600, 601]


def killed(context, number):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="calls: a process was killed before its work was done.*; set jobs to fewer"):
        runtime.in_parallel(killed, [(0,), (1,)], partial(setup_of, tmp_path / "s"), device="cpu", jobs=2, desc="calls")


def test_a_single_call_has_all_threads(tmp_path):
    ((_, process, threads),) = runtime.in_parallel(
        noted, [(1,)], partial(setup_of, tmp_path / "setups"), device="cpu", jobs=-1, desc="one"
    )
    assert process == os.getpid() and threads == torch.get_num_threads()


def failing(context, number):
    if number:
        raise ValueError("corpora.wide: no such clip")


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_is_that_of_the_call(tmp_path, jobs):
    with pytest.raises(ValueError, match=r"corpora\.wide: no such clip"):
        runtime.in_parallel(
            failing, [(0,), (1,)], partial(setup_of, tmp_path / "s"), device="cpu", jobs=jobs, desc="calls"
        )


@pytest.mark.parametrize(
    "cores, calls, exactly, processes",
    [(2, 1, False, 1), (2, 3, False, 3), (2, 4, False, 2), (2, 9, False, 2), (16, 17, False, 17), (2, 3, True, 2)],
)
def test_no_core_waits_in_a_second_round_unless_the_number_of_processes_was_asked_for(cores, calls, exactly, processes):
    assert runtime._processes(cores, calls, exactly) == processes
