"""The page of the listening test in a real browser without network: from the first control to the file it saves."""

import numpy as np
import pandas as pd
import pytest

from foleylib.report.listening.page import build
from foleylib.report.listening.ratings import read_results


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """Address of a survey of three runs of two clips, 0.15 s each, and its key by token."""
    rng, out = np.random.default_rng(0), tmp_path_factory.mktemp("kit")
    rows = [(run, "Rain", f"Rain-{i}", 0.05 * rng.standard_normal(2400).clip(-3, 3)) for run in "abc" for i in range(2)]
    clips = pd.DataFrame(rows, columns=["run", "class", "clip", "wave"])
    key = build(out, clips, rate=16000, seed=0, title="Rain & <other> sounds")
    return (out / "surveys" / "survey-rain.html").as_uri(), key.set_axis(list(key.token))


@pytest.fixture
def page(browser, kit):
    """The page, opened from its file; whatever it does, it reports no error and asks nobody for anything."""
    page, problems, requests = browser.new_page(offline=True), [], []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(kit[0])
    yield page
    page.close()
    assert problems == [] and {url.split(":")[0] for url in requests} <= {"file", "data", "blob"}


def start(page, participant):
    page.get_by_label("Participant id").fill(participant)
    page.get_by_role("button", name="Start").click()


def shown(page, key):
    return key.loc[page.evaluate("state.order[state.at]")]


def play(page):
    page.get_by_role("button", name="Play").click()
    page.get_by_text("Played", exact=True).wait_for()


def rate(page, quality, relevance):
    """Give both ratings by the names of their controls, and go on."""
    for group, value in (("Audio quality", quality), ("Class relevance", relevance)):
        page.get_by_role("group", name=group).get_by_role("radio", name=str(value), exact=True).check()
    page.click("#next")


def answer(page, key, quality, relevance, *, attentive=True):
    """Play and rate the item that is shown, as its check asks where it is one."""
    row = shown(page, key)
    if row.kind == "clip":
        assert page.inner_text("#heading") == "Class: Rain"
        play(page)
    elif attentive:
        quality = relevance = int(row.rating)
        assert f"set both ratings to {quality}" in page.inner_text("#heading")
    rate(page, quality, relevance)


def finish(page, key, folder, **options):
    """Rate all items; the file that is saved, and the ratings given by token."""
    given = {}
    for number in range(7):
        assert page.inner_text("#position") == f"Item {number + 1} of 7"
        given[shown(page, key).token] = (number + 4, 10 - number)
        answer(page, key, number + 4, 10 - number, **options)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download results").click()
    download.value.save_as(folder / download.value.suggested_filename)
    return folder / download.value.suggested_filename, given


def test_ratings_go_from_the_controls_through_the_file_into_the_analysis(page, kit, tmp_path):
    assert page.inner_text("h1") == "Rain & <other> sounds"
    start(page, "anna")
    file, given = finish(page, kit[1], tmp_path)
    ratings = read_results([file], kit[1])
    assert file.name == "ratings-rain-anna.csv" and set(ratings.participant) == {"anna"} and len(ratings) == 6
    rows = kit[1][kit[1].kind == "clip"]
    expected = {(row.run, row.clip): given[row.token] for row in rows.itertuples()}
    assert {(row.run, row.clip): (row.quality, row.relevance) for row in ratings.itertuples()} == expected
    assert (ratings.plays == 1).all() and (ratings.seconds > 0).all() and not ratings.simulated.any()
    assert list(pd.read_csv(file).token) == list(given) and list(pd.read_csv(file).order) == list(range(1, 8))


def test_careless_ratings_fail_the_attention_check(page, kit, tmp_path):
    start(page, "ben")
    file, _ = finish(page, kit[1], tmp_path, attentive=False)
    with pytest.raises(ValueError, match="all 1 participants missed an attention check"):
        read_results([file], kit[1])


def test_nothing_is_skipped(page, kit):
    start(page, "an id with blanks")
    assert "letters, digits" in page.inner_text("#intro-wrong") and page.is_visible("#intro")
    start(page, "")
    assert page.evaluate("/^p-[0-9a-f]{10}$/.test(state.participant)")
    page.click("#next")  # the first item is never a check
    assert page.inner_text("#item-wrong") == "Play the sound to its end first."
    play(page)
    page.click("#next")
    assert page.inner_text("#item-wrong") == "Rate the audio quality first."
    page.get_by_role("group", name="Audio quality").get_by_role("radio", name="0", exact=True).check()
    page.click("#next")
    assert page.inner_text("#item-wrong") == "Rate the class relevance first."
    assert page.inner_text("#position") == "Item 1 of 7"
    rate(page, 0, 0)
    assert page.inner_text("#position") == "Item 2 of 7" and page.locator("#item input:checked").count() == 0


def test_keyboard_alone_is_enough_and_unfinished_answers_outlive_the_page(page, kit):
    for key in ["Tab", *"cleo", "Enter", "Tab", "Space"]:
        page.keyboard.press(key)
    page.get_by_text("Played", exact=True).wait_for()
    for key in ["Tab", "Space", "ArrowRight", "Tab", "Space", *["ArrowRight"] * 3, "Tab", "Enter"]:
        page.keyboard.press(key)
    before = page.evaluate("state")
    page.goto(kit[0])
    assert page.input_value("#participant") == "cleo" and "unfinished" in page.inner_text("#kept")
    page.click("#start")
    assert page.inner_text("#position") == "Item 2 of 7" and page.evaluate("state.order") == before["order"]
    assert page.evaluate("['quality', 'relevance'].map((name) => state.answers[state.order[0]][name])") == [1, 3]


def test_page_works_without_storage_and_tells_of_sounds_that_cannot_be_played(page, kit):
    page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('refused'); } })")
    page.goto(kit[0])
    page.evaluate("items.get(orderFor('fay')[6]).src = 'data:audio/flac;base64,AAAA'")  # the last is never a check
    start(page, "fay")
    for _ in range(6):
        answer(page, kit[1], 1, 2)
    page.get_by_role("button", name="Play").click()
    page.get_by_text("cannot be played here").wait_for()


def test_order_is_the_participants_own_and_fair(page, kit):
    orders = page.evaluate("Array.from({ length: 600 }, (_, i) => orderFor(`p${i}`))")
    assert page.evaluate("orderFor('p0')") == orders[0] and len(set(map(tuple, orders))) > 400
    assert all(sorted(order) == sorted(kit[1].token) for order in orders)
    (check,) = kit[1].token[kit[1].kind == "check"]
    assert {order.index(check) for order in orders} == {1, 2, 3, 4, 5}
    clips = pd.DataFrame([[token for token in order if token != check] for order in orders])
    counts = clips.apply(pd.Series.value_counts)  # of each clip at each of six positions
    assert ((counts - 100) ** 2 / 100).to_numpy().sum() < 60  # chi-square of 25 degrees of freedom: p = 1e-4
