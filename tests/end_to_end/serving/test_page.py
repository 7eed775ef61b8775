"""The page in a real browser without a network: forms and answers of every task, and the documents of all routes."""

import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from selenium.webdriver.common.keys import Keys

from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.config import ServeConfig
from tests.end_to_end.serving.test_app import Noted

pytestmark = pytest.mark.slow

FLAGS = (
    *"--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking".split(),
    *"--disable-component-update --disable-sync --disable-quic --disable-dev-shm-usage --window-size=1000,2000".split(),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing but this machine can be reached
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (apt install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@contextmanager
def served(artifact: Any, token: str | None = None) -> Iterator[str]:
    app = create(Answerer(artifact), ServeConfig(), Noted(), token, "r")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()


class Page:
    """A page in a browser, by what a person sees."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        browser.get(address)

    def all(self, css: str) -> list[Any]:
        return self.browser.find_elements("css selector", css)

    def field(self, name: str, of: str = "input, textarea, select") -> list[Any]:
        found = [f for f in self.all(f"[data-field={name}]") if f.is_displayed()]
        return found[0].find_elements("css selector", of) if found else []

    def ask(self) -> None:
        self.all("form > div > button")[0].click()

    def error(self) -> str:
        return self.all("#error")[0].text


def wait_for(condition: Any, what: str) -> Any:
    for _ in range(200):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"never seen: {what}")


@pytest.mark.parametrize("token", [None, "secret"], ids=["open", "token"])
def test_a_person_can_search_recommend_and_ask_why(browser, artifact, token) -> None:
    with served(artifact, token) as address:
        page = Page(browser, address)
        if token:
            wait_for(lambda: page.all("#token")[0].is_displayed(), "a token field")
            page.all("#token")[0].send_keys("wrong")
            page.all("#open")[0].click()
            wait_for(lambda: page.error() == "This token is wrong.", "a refusal")
            page.all("#token")[0].clear()
            page.all("#token")[0].send_keys(token)
            page.all("#open")[0].click()
        (user,) = wait_for(lambda: page.field("user"), "a form")
        assert not page.all("#token")[0].is_displayed()
        assert not page.field("profile")
        assert user.get_attribute("value") == artifact.example()["request"]["user"]
        assert "An example is filled in." in page.all("form")[0].text
        assert re.search(
            r"trained on \S+ \([\d,]+ users, [\d,]+ items, [\d,]+ interactions\)", page.all("#model")[0].text
        )
        user.clear()
        page.ask()
        wait_for(lambda: page.error() == "expected user or history", "what this form has, not a profile")
        user.send_keys("u2")
        second = wait_for(lambda: page.field("user", "li[role=option]")[1:2], "suggestions")[0]
        chosen = second.text
        second.click()
        assert user.get_attribute("value") == chosen.rpartition(" ")[2]
        assert not page.all("[data-field=user] ul")[0].is_displayed()
        user.clear()
        user.send_keys("u29")
        options = wait_for(lambda: page.field("user", "li[role=option]"), "suggestions")
        assert [o.text for o in options][:2] == ["u29", "u290"]
        user.send_keys(Keys.ARROW_DOWN, Keys.ENTER)
        wait_for(lambda: "known of this user" in page.all("[data-field=user]")[0].text, "the user's own history")
        page.field("k")[0].clear()
        page.field("k")[0].send_keys("5")
        page.ask()
        rows = wait_for(lambda: page.all("#answer tbody tr"), "items")
        assert len(rows) == 5
        assert "Item" in rows[0].text
        assert "A score orders what stands in one answer" in page.all("#answer")[0].text
        wait_for(lambda: browser.execute_script("return document.querySelector('img')?.naturalWidth > 0"), "a picture")
        rows[1].find_element("css selector", "button.link").click()
        (why,) = wait_for(lambda: page.all("tr.told"), "an explanation")
        assert all(word in why.text for word in ("id", "narrative", "visual", "audio", "similar", "experts"))
        rows[1].find_element("css selector", "button.link").click()
        wait_for(lambda: not page.all("tr.told"), "the explanation closed")
        (history,) = page.field("history")
        history.send_keys("Item 7")
        titled = wait_for(lambda: page.field("history", "li[role=option]"), "items by title")
        assert all("Item 7" in option.text for option in titled)
        history.clear()
        history.send_keys("no-such-item", Keys.ENTER)
        page.ask()
        wait_for(lambda: "not known items" in page.all("#answer")[0].text, "a note")
        assert "popularity" in page.all("#answer")[0].text
        assert page.all("#answer tbody tr")
        assert not page.all("#answer button.link")  # popularity has no reasons
        browser.execute_script("arguments[0].removeAttribute('max')", page.field("k")[0])
        page.field("k")[0].send_keys("9999")
        page.ask()
        wait_for(lambda: page.error().startswith("k: Input should be less"), "an error in words")


def test_a_person_can_tell_visits_and_gets_labels(browser, sets_artifact) -> None:
    with served(sets_artifact) as address:
        page = Page(browser, address)
        (code,) = wait_for(lambda: page.field("visits"), "a form")
        assert page.all("#notice")[0].text == (
            "Generated data; no medical advice. Labels are synthetic: nobody has judged what is relevant."
        )
        code.send_keys("code 1", Keys.ENTER, "code 7", Keys.ENTER)
        next(b for b in page.field("visits", "button.link") if "another visit" in b.text).click()
        page.field("visits")[1].send_keys("code 3", Keys.ENTER)
        page.field("threshold")[0].send_keys("0.05")
        page.ask()
        wait_for(lambda: page.all("#answer tbody tr"), "labels")
        rows = page.all("#answer table")[0].find_elements("css selector", "tbody tr")
        wanted = Answerer(sets_artifact).respond(
            "predict", {"rows": [{"visits": [["code 1", "code 7"], ["code 3"]]}], "threshold": 0.05}
        )
        (answer,) = wanted["answers"]
        labels = [entry["label"] for entry in answer["labels"]]
        assert [row.find_elements("css selector", "td")[1].text for row in rows] == labels
        # What interacts is marked in the set, with what and how badly.
        assert answer["interactions"]
        for label, row in zip(labels, rows, strict=True):
            others = [(e["other"], e["severity"]) for e in answer["interactions"] if e["label"] == label]
            others += [(e["label"], e["severity"]) for e in answer["interactions"] if e["other"] == label]
            marks = row.find_elements("css selector", "td.bad")[0].text
            assert sorted(marks.split("; ") if marks else []) == sorted(f"{a}: {b}" for a, b in others)


def test_a_person_can_tell_earlier_visits_one_by_one_and_is_told_why(browser, ward_artifact) -> None:
    with served(ward_artifact) as address:
        page = Page(browser, address)
        wait_for(lambda: page.field("codes"), "a form")
        assert not page.field("visit")  # where a visit lies in the data set is never asked
        page.ask()  # with nothing at all
        wait_for(lambda: "codes" in page.all("#answer")[0].text, "what is missing")
        assert {"codes", "earlier visit"} <= {chip.text for chip in page.all("#answer .chips li")}
        page.field("codes")[0].send_keys("code 1", Keys.ENTER, "code 7", Keys.ENTER)
        more = next(b for b in page.all("[data-field='earlier visit'] button.link") if b.text == "+ earlier visit")
        for code in ("code 3", "code 9", "code 4"):
            more.click()
            [f for f in page.all("[data-field=earlier_codes] input") if f.is_displayed()][-1].send_keys(
                code, Keys.ENTER
            )
        assert [legend.text for legend in page.all("legend")] == [f"earlier visit {n}" for n in (1, 2, 3)]
        [f for f in page.all("[data-field=gap] input") if f.is_displayed()][2].send_keys("30")
        next(b for b in page.all("fieldset button.link") if b.text == "take out").click()
        page.field("explain")[0].click()
        page.ask()
        wait_for(lambda: "reasons" in page.all("#answer")[0].text, "reasons")
        row = {"codes": ["code 1", "code 7"], "earlier_codes": [["code 9"], ["code 4"]], "gap": [0, 30]}
        (answer,) = Answerer(ward_artifact).respond("predict", {"rows": [row], "explain": True})["answers"]
        text = page.all("#answer")[0].text
        for one in answer["reasons"]["earlier"]:
            assert f"{one['weight']:.4f}" in text
        assert f"{answer['reasons']['sections']['codes']:.3f}" in text
        page.field("filter")[0].send_keys("greedy")
        page.ask()
        wait_for(lambda: "none" in page.all("#answer")[0].text.partition("interactions")[2][:120], "no interaction")


def test_a_text_is_shown_and_a_rating(browser, writer_artifact) -> None:
    with served(writer_artifact) as address:
        page = Page(browser, address)
        (user,) = wait_for(lambda: page.field("user"), "a form")
        user.clear()
        user.send_keys("user 2")
        page.field("item")[0].clear()
        page.field("item")[0].send_keys("102")
        page.ask()
        row = {"user": "user 2", "item": "102"}
        answerer = Answerer(writer_artifact)
        text = answerer.respond("predict", {"rows": [row]})["answers"][0]["text"]
        wait_for(lambda: text in page.all("#answer")[0].text, "the text")
        told = answerer.respond("predict", {"rows": [row], "explain": True})["answers"][0]
        wait_for(lambda: f"{told['rating']:.4f}" in page.all("#answer")[0].text, "its rating")
        assert not page.all("#answer .token")  # this writer tells nothing of tokens
        page.field("explain")[0].click()
        page.ask()
        wait_for(lambda: page.all("#answer")[0].text == text, "the text alone")
        page.field("task")[0].send_keys("rating")
        assert not page.field("temperature")
        page.ask()
        rating = answerer.respond("predict", {"rows": [row], "task": "rating"})["answers"][0]["rating"]
        figure = wait_for(lambda: page.all("#answer .figure"), "a rating")[0]
        assert float(figure.text) == pytest.approx(rating, abs=1e-4)


def test_a_text_is_shown_with_its_gate_and_the_experts_of_every_token(browser, reviewer_artifact) -> None:
    with served(reviewer_artifact) as address:
        page = Page(browser, address)
        (user,) = wait_for(lambda: page.field("user"), "a form")
        user.clear()
        user.send_keys("user 3")
        page.field("item")[0].clear()
        page.field("item")[0].send_keys("item 2")
        page.ask()
        request = {"rows": [{"user": "user 3", "item": "item 2"}], "explain": True}
        (answer,) = Answerer(reviewer_artifact).respond("predict", request)["answers"]
        marks = wait_for(lambda: page.all("#answer .token"), "tokens")
        assert [mark.text for mark in marks] == [token["text"] for token in answer["tokens"]]
        text = page.all("#answer")[0].text
        assert answer["text"] in text
        assert answer["gate"] in text
        assert f"{answer['rating']:.4f}" in text
        for mark, token in zip(marks, answer["tokens"], strict=True):
            (experts,) = token["experts"].values()
            mark.click()
            shown = page.all("#answer .why .bars")[0].text.split("\n")
            assert shown == [line for e, weight in experts.items() for line in (f"expert {e}", f"{weight:.3f}")]
        # Tokens that the same expert wrote most of are alike, others are not.
        colours = [mark.value_of_css_property("background-color") for mark in marks]
        first = [next(iter(next(iter(token["experts"].values())))) for token in answer["tokens"]]
        assert len(set(zip(colours, first, strict=True))) == len(set(colours)) == len(set(first))
        (beams,) = wait_for(lambda: page.all("[data-field=beams] input"), "beams")
        browser.execute_script("arguments[0].closest('details').open = true", beams)
        beams.clear()
        beams.send_keys("3")
        page.field("temperature")[0].send_keys(".5")
        page.ask()
        wait_for(lambda: "draws nothing at random" in page.error(), "an error in words")


def test_the_documents_show_every_route_without_the_internet(browser, food_artifact) -> None:
    with served(food_artifact) as address:
        page = Page(browser, f"{address}docs")
        blocks = wait_for(lambda: page.all(".opblock-summary-path"), "routes")
        assert {"/v1/recommend", "/v1/explain", "/v1/predict", "/v1/model"} <= {
            b.get_attribute("data-path") for b in blocks
        }
        loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
        assert loaded
        assert all(name.startswith((address, "data:")) for name in loaded)
