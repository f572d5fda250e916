"""The page of the listening test in a real browser without network: from the first control to the file it saves."""

import time
from collections import Counter

import browser
import numpy as np
import pandas
import pytest

from foleylib import listening

RATE = 16000
RUNS = ("real", "tuning", "tuning_latent")
START = "document.querySelector('#intro').hidden === false"


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """A kit of one survey with three runs of two clips, 0.15 s each, and its key."""
    rng, out = np.random.default_rng(0), tmp_path_factory.mktemp("kit")
    rows = [(run, "Rain", f"Rain-{i}", 0.05 * rng.standard_normal(2400).clip(-3, 3)) for run in RUNS for i in range(2)]
    clips = pandas.DataFrame(rows, columns=["run", "class", "clip", "wave"])
    key = listening.build(out, clips, rate=RATE, seed=0, title="Rain & <other> sounds")
    return out / "surveys" / "survey-rain.html", key


@pytest.fixture(scope="module")
def path():
    try:
        return browser.executable()
    except LookupError as error:
        pytest.skip(str(error))


@pytest.fixture
def page(path, kit, tmp_path):
    """The page, opened from its file; whatever it does, it reports no error and asks nobody for anything."""
    window = browser.Browser(path, tmp_path)
    try:
        window.load(kit[0])
        yield window
        assert window.problems == []
        assert not [url for url in window.requests if not url.startswith(("file:", "data:", "blob:"))]
    finally:
        window.close()


def text(page, selector):
    return page.evaluate(f"document.querySelector('{selector}').innerText")


def start(page, participant):
    page.click("#participant")
    page.type(participant)
    page.click("#start")


def token(page):
    return page.evaluate("state.order[state.at]")


def rate_item(page, key, quality, relevance):
    """Hear and rate the item that is shown with the mouse, as its check asks where it is one."""
    row = key.set_index("token").loc[token(page)]
    if row.kind == "check":
        quality = relevance = int(row.rating)
        assert f"set both ratings to {quality}" in text(page, "#heading")
    else:
        assert text(page, "#heading") == "Class: Rain"
        page.click("#play")
        page.wait("document.querySelector('#playing').textContent === 'Played'")
    rate(page, quality, relevance)


def rate(page, quality, relevance):
    page.click(f"#quality input[value='{quality}']")
    page.click(f"#relevance input[value='{relevance}']")
    page.click("#next")


def downloaded(folder):
    """The one file in the folder of downloads, once it is complete."""
    end = time.monotonic() + browser.LIMIT
    while time.monotonic() < end:
        files = [path for path in folder.glob("downloads/*") if path.suffix == ".csv"]
        if files:
            return files[0]
        time.sleep(0.02)
    raise TimeoutError(f"nothing was downloaded to {folder}")


def test_ratings_go_from_the_controls_through_the_file_into_the_analysis(page, kit, tmp_path):
    assert text(page, "h1") == "Rain & <other> sounds"
    start(page, "anna")
    given = {}
    for number in range(7):
        assert text(page, "#place") == f"Item {number + 1} of 7"
        given[token(page)] = (number + 4, 10 - number)
        rate_item(page, kit[1], *given[token(page)])
    page.click("#download")
    file = downloaded(tmp_path)
    assert file.name == "ratings-rain-anna.csv"
    ratings = listening.read_results([file], kit[1])
    assert len(ratings) == 6 and set(ratings.participant) == {"anna"} and not ratings.simulated.any()
    key = kit[1].set_index("token")
    expected = {(key.run[t], key["clip"][t]): value for t, value in given.items() if key.kind[t] == "clip"}
    assert {(r.run, r.clip): (r.quality, r.relevance) for r in ratings.itertuples()} == expected
    assert (ratings.plays == 1).all() and (ratings.seconds > 0).all()
    assert list(pandas.read_csv(file).order) == list(range(1, 8)) and list(pandas.read_csv(file).token) == list(given)


def test_careless_ratings_fail_the_attention_check(page, kit, tmp_path):
    start(page, "ben")
    for _ in range(7):
        if "No sound" in text(page, "#heading"):
            rate(page, 0, 0)  # never what a check asks for
        else:
            rate_item(page, kit[1], 5, 5)
    page.click("#download")
    with pytest.raises(ValueError, match="all 1 participants missed an attention check"):
        listening.read_results([downloaded(tmp_path)], kit[1])


def test_nothing_is_skipped(page, kit):
    start(page, "an id with blanks")
    assert "letters, digits" in text(page, "#intro-wrong") and page.evaluate(START)
    page.evaluate("document.querySelector('#participant').value = ''")
    page.click("#start")
    assert page.evaluate("/^p-[0-9a-f]{10}$/.test(state.participant)")
    for _ in range(2):  # one of the first two items has a sound
        if "No sound" in text(page, "#heading"):
            rate_item(page, kit[1], 0, 0)
    here = text(page, "#place")
    page.click("#next")
    assert text(page, "#item-wrong") == "Play the sound to its end first."
    page.click("#play")
    page.wait("document.querySelector('#playing').textContent === 'Played'")
    page.click("#play")
    page.wait("current().answer.plays === 2")
    page.click("#next")
    assert text(page, "#item-wrong") == "Rate the audio quality first."
    page.click("#quality input[value='0']")
    page.click("#next")
    assert text(page, "#item-wrong") == "Rate the class relevance first." and text(page, "#place") == here
    page.click("#relevance input[value='0']")
    page.click("#next")
    assert text(page, "#place") != here and text(page, "#playing") == ""
    assert page.evaluate("document.querySelectorAll('#item input:checked').length") == 0


def test_keyboard_alone_is_enough(page, kit):
    key = kit[1].set_index("token")
    page.press("Tab")
    page.type("cleo")
    page.press("Enter")
    for number in range(7):
        row = key.loc[token(page)]
        wanted = int(row.rating) if row.kind == "check" else number
        if row.kind == "clip":
            page.press("Tab")
            page.press(" ")
            page.wait("document.querySelector('#playing').textContent === 'Played'")
        for _ in range(2):
            page.press("Tab")
            page.press(" ")
            page.press("ArrowRight", wanted)
        assert page.evaluate("[current().answer.quality, current().answer.relevance]") == [wanted, wanted]
        page.press("Tab")
        page.press("Enter")
    assert page.evaluate("document.activeElement.id") == "thanks" and page.evaluate("attentive()")
    page.press("Tab")
    assert page.evaluate("document.activeElement.id") == "download"


def test_controls_have_names(page):
    start(page, "dora")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    controls = [(n["role"]["value"], n["name"]["value"]) for n in nodes if not n["ignored"] and n.get("name")]
    count = Counter(controls)
    assert all(count["radio", str(value)] == 2 for value in range(11))
    assert count["group", "Audio quality"] == count["group", "Class relevance"] == 1
    assert count["button", "Next"] == 1 and count["progressbar", "Item 1 of 7"] == 1
    assert not [role for role, name in controls if role in ("radio", "button", "textbox") and not name]


def test_unfinished_answers_outlive_the_page(page, kit):
    start(page, "emil")
    rate_item(page, kit[1], 3, 4)
    order, first = page.evaluate("state.order"), page.evaluate("state.answers[state.order[0]]")
    page.load(kit[0])
    assert page.evaluate("document.querySelector('#participant').value") == "emil"
    assert "unfinished" in text(page, "#kept")
    page.click("#start")
    assert text(page, "#place") == "Item 2 of 7" and page.evaluate("state.order") == order
    assert page.evaluate("state.answers[state.order[0]]") == first


def test_page_works_without_storage(page, kit):
    page.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="Object.defineProperty(window, 'localStorage', { get() { throw new Error('refused'); } })",
    )
    page.load(kit[0])
    start(page, "fay")
    rate_item(page, kit[1], 1, 2)
    assert text(page, "#place") == "Item 2 of 7"


def test_sounds_that_cannot_be_played_are_told(page):
    page.evaluate("items.forEach((item) => { if (item.src) item.src = 'data:audio/flac;base64,AAAA'; })")
    start(page, "gil")
    if "No sound" in text(page, "#heading"):
        rate(page, 0, 0)
    page.click("#play")
    page.wait("document.querySelector('#item-wrong').textContent.includes('cannot be played here')")


def test_order_is_the_participants_own_and_fair(page, kit):
    orders = page.evaluate("Array.from({ length: 600 }, (_, i) => orderFor(`p${i}`))")
    assert page.evaluate("orderFor('p0')") == orders[0] and len(set(map(tuple, orders))) > 400
    assert all(sorted(order) == sorted(kit[1].token) for order in orders)
    (check,) = kit[1].token[kit[1].kind == "check"]
    assert {order.index(check) for order in orders} == {1, 2, 3, 4, 5}
    places = np.array([[[t for t in order if t != check].index(clip) for clip in sorted(set(kit[1].token) - {check})]
                       for order in orders])  # (participants, clips)  # fmt: skip
    counts = np.stack([np.bincount(column, minlength=6) for column in places.T])
    assert ((counts - 100) ** 2 / 100).sum() < 60  # chi-square of 25 degrees of freedom: p = 1e-4


def test_damaged_package_is_refused(monkeypatch, tmp_path):
    def pack(command, **options):
        (browser.Path(command[-1]) / "package.tgz").write_bytes(b"not it")
        return browser.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(browser, "CACHE", tmp_path / "chromium")
    monkeypatch.setattr(browser.subprocess, "run", pack)
    monkeypatch.setattr(browser.shutil, "which", lambda name: name)
    monkeypatch.setattr(browser.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(browser.platform, "system", lambda: "Linux")
    with pytest.raises(RuntimeError, match="it is not used"):
        browser._fetch()


def test_no_browser_is_said_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(browser, "CACHE", tmp_path)
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    monkeypatch.delenv("FOLEYLIB_CHROMIUM", raising=False)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(LookupError, match="FOLEYLIB_CHROMIUM to its path or to 'fetch'"):
        browser.executable()
    monkeypatch.setenv("FOLEYLIB_CHROMIUM", str(tmp_path / "none"))
    with pytest.raises(LookupError, match="is no file"):
        browser.executable()
