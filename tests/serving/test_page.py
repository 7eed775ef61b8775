"""The page in a real browser: a user is searched, items are shown with pictures, and one is explained."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from rec.keys import ServeConfig
from rec.serving.answers import Answerer
from rec.serving.app import create
from tests.serving.test_app import Noted

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-quic --disable-dev-shm-usage"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (apt install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS.split():
        options.add_argument(flag)
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture(params=[None, "secret"], ids=["open", "token"])
def address(request, artifact) -> Iterator[str]:
    app = create(Answerer(artifact), ServeConfig(), Noted(), request.param, "r")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


def wait_for(condition: Any, what: str) -> Any:
    for _ in range(200):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"never seen: {what}")


def test_a_person_can_search_recommend_and_ask_why(browser, address, request) -> None:
    from selenium.webdriver.common.by import By

    browser.get(address)
    find = lambda css: browser.find_elements(By.CSS_SELECTOR, css)  # noqa: E731
    if "token" in request.node.callspec.id:
        wait_for(lambda: "401" in find("#error")[0].text, "a refusal")
        find("#token")[0].send_keys("secret")
    find("#user")[0].send_keys("u29")
    options = wait_for(lambda: find("#users option"), "suggestions")
    assert [o.get_attribute("value") for o in options][:2] == ["u29", "u290"]
    find("#k")[0].clear()
    find("#k")[0].send_keys("5")
    find("form button")[0].click()
    rows = wait_for(lambda: find("#items tbody tr"), "items")
    assert len(rows) == 5
    assert "Item" in rows[0].text
    wait_for(lambda: browser.execute_script("return document.querySelector('img')?.naturalWidth > 0"), "a picture")
    rows[1].find_element(By.CSS_SELECTOR, "button.why").click()
    parts = wait_for(lambda: rows[1].find_elements(By.CSS_SELECTOR, ".parts"), "an explanation")
    assert all(word in parts[0].text for word in ("id", "narrative", "visual", "audio", "like"))
    find("#history")[0].send_keys("no-such-item")
    find("form button")[0].click()
    wait_for(lambda: "not known items" in find("#notes")[0].text and "popularity" in find("#notes")[0].text, "a note")
    find("#k")[0].send_keys("9999")
    browser.execute_script("document.getElementById('k').removeAttribute('max')")
    find("form button")[0].click()
    wait_for(lambda: "422" in find("#error")[0].text, "an error")
