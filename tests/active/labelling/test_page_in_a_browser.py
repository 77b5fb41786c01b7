"""The labelling page in a real browser."""

import shutil
import threading

import pytest
from programs.label_page import CLASSES, IMAGES

from pyro_ssl.active.labelling.page import Page

pytestmark = pytest.mark.slow


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not (chromium and driver):
        pytest.skip("no chromium and chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as found:
        yield found


def until(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20).until(lambda _: condition())


def test_browser_labels_three_images(browser):
    from selenium.webdriver.common.by import By

    given = []
    with Page(CLASSES) as page:
        thread = threading.Thread(target=lambda: given.append(page.ask(IMAGES)), daemon=True)
        thread.start()
        browser.get(page.address)
        read = "return [...document.querySelectorAll('figcaption')].map(c => c.textContent)"

        def captions():
            return browser.execute_script(read)

        until(browser, lambda: captions() == ["?", "?", "?"])
        sizes = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
        assert sizes == [8, 8, 8, 8]  # one of them is shown enlarged
        browser.find_element(
            By.CSS_SELECTOR, "#classes button:nth-child(2)"
        ).click()  # with the mouse
        until(browser, lambda: captions() == ["dog", "?", "?"])
        refused = browser.execute_async_script(
            "const done = arguments[0], body = "
            "JSON.stringify({round: state.round, answers: {1: 9}});"
            "fetch('answer', {method: 'POST', body})"
            ".then(async reply => done([reply.status, await reply.text()]))"
        )
        assert refused[0] == 400 and "no class 9" in refused[1] and captions() == ["dog", "?", "?"]
        browser.find_element(By.TAG_NAME, "body").send_keys("e")  # the first letter of a class
        until(browser, lambda: captions() == ["dog", "eel", "?"])
        assert browser.find_element(By.ID, "said").text == "1 left in this round; 2 labels in all"
        browser.find_element(By.TAG_NAME, "body").send_keys(" ")
        thread.join(10)
        assert given == [{0: 1, 1: 2, 2: None}]
        thread = threading.Thread(target=lambda: given.append(page.ask(IMAGES[:1])), daemon=True)
        thread.start()
        until(browser, lambda: captions() == ["?"])  # the next round, without a reload
        browser.find_element(By.TAG_NAME, "body").send_keys("0")
        thread.join(10)
        assert given[1] == {0: 0}
        thread = threading.Thread(target=lambda: given.append(page.ask(IMAGES)), daemon=True)
        thread.start()
        until(browser, lambda: captions() == ["?", "?", "?"])
        fast = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}))"
        browser.execute_script(f"for (const key of 'cde') {fast}")
        thread.join(10)
        assert given[2] == {0: 0, 1: 1, 2: 2}
    severe = [
        entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"
    ]
    expected = (
        "/answer",
        "/round",
        "/state",
        "favicon",
    )  # the refusal, and what is asked while the page closes
    assert not [m for m in severe if not any(part in m for part in expected)]


def test_keys_of_the_page_and_refused_answers(browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    read = "return [[...document.querySelectorAll('figcaption')].map(c => c.textContent), now]"
    press = lambda *keys: browser.find_element(By.TAG_NAME, "body").send_keys(*keys)  # noqa: E731
    shows = lambda *wanted: until(browser, lambda: browser.execute_script(read) == list(wanted))  # noqa: E731
    said = lambda: browser.find_element(By.ID, "said").text  # noqa: E731
    asked = {"daemon": True, "args": [IMAGES]}

    with Page(["A", "a", "Bee", "3"]) as page:
        threading.Thread(target=page.ask, **asked).start()
        browser.get(page.address)
        shows(["?", "?", "?"], 0)
        press("a", "A")
        shows(["a", "A", "?"], 2)
        press("0", "7")  # no numbers where a name is one
        press(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_RIGHT)
        shows(["a", "A", "?"], 1)
        press("b")
        shows(["a", "Bee", "?"], 2)
        browser.execute_script("answer(9)")
        until(browser, lambda: "no class 9" in said())
        shows(["a", "Bee", "?"], 2)
        browser.execute_script("now = 0; answer(8)")
        until(browser, lambda: "no class 8" in said())
        shows(["a", "Bee", "?"], 0)
        assert page.state()["answers"] == {"0": 1, "1": 2}
    until(browser, lambda: said().startswith("The program has ended. The confirmed answers"))
    assert not browser.find_elements(By.CSS_SELECTOR, "#images figure")


@pytest.mark.parametrize("width", [390, 1280])
def test_guesses_counts_and_going_back(browser, width):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    text = lambda name: browser.find_element(By.ID, name).text  # noqa: E731
    given = []

    def ask():
        guesses = [(1, 0.834), (0, 0.5), (2, 0.4)]
        given.append(page.ask(IMAGES, guesses=guesses, counts=[3, 0, 1]))

    with Page(CLASSES) as page:
        page.tell("The method learns from 4 labels.")
        browser.get(page.address)
        until(browser, lambda: text("said") == "The method learns from 4 labels.")
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        until(browser, lambda: text("guess") == f"The model thinks: {CLASSES[1]}, 83 %")
        assert "none yet" in text("classes")
        body = browser.find_element(By.TAG_NAME, "body")
        body.send_keys("2")
        assert text("said") == "2 left in this round; 5 labels in all"
        assert text("guess") == f"The model thinks: {CLASSES[0]}, 50 %"
        body.send_keys(Keys.BACKSPACE, "1")  # the first image again, with another class
        assert "none yet" not in text("classes")
        widths = "return [document.documentElement.scrollWidth, window.innerWidth]"
        scrolled, inside = browser.execute_script(widths)
        assert inside == width and scrolled <= inside
        browser.find_element(By.ID, "image2").send_keys(Keys.ENTER)  # by keyboard alone
        focused = browser.switch_to.active_element
        assert focused.get_attribute("aria-label") == "image 2, no answer"
        focused.send_keys("0")
        browser.find_element(By.TAG_NAME, "body").send_keys("0")
        thread.join(10)
    assert given == [{0: 1, 1: 0, 2: 0}]


@pytest.mark.parametrize("width", [390, 1280])
def test_learning_record_and_files(browser, width):
    from selenium.webdriver.common.by import By

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    find = lambda name: browser.find_element(By.ID, name)  # noqa: E731
    learning = {"text": "The model learns from 10 labels: about 9 s left.", "share": 0.4}
    command = "pyro-ssl label runs/mine --data a/long/path/to/a/folder/of/images --rounds 3"
    given = []
    with Page(CLASSES, labels_file="runs/mine/labels.csv", next_command=command) as page:
        page.tell("Looking for the first questions.")
        browser.get(page.address)
        until(browser, lambda: find("said").text == "Looking for the first questions.")
        hidden = ["large", "classes", "keys", "done", "learning", "record"]
        assert not any(find(name).is_displayed() for name in hidden)
        why = "The model is still learning: these come from clusters without a label."
        asked = {"descriptions": [{"name": f"{i}.png", "values": []} for i in range(3)], "why": why}
        thread = threading.Thread(
            target=lambda: given.append(page.ask(IMAGES, **asked)), daemon=True
        )
        thread.start()
        until(browser, lambda: find("why").text == why)
        assert find("guess").text == "No guess yet." and find("which").text == "0.png"
        page.learning = lambda: learning
        until(browser, lambda: find("learned").text == learning["text"])
        assert find("share").is_displayed()
        assert float(find("share").get_attribute("value")) == 0.4
        page.learning = lambda: {"text": "The model has learned from 10 labels.", "share": None}
        until(browser, lambda: not find("share").is_displayed())
        page.guessed = [
            {"labels": 20, "answers": 10, "right": 3, "by_model": True},
            {"labels": 30, "answers": 10, "right": 9, "by_model": False},
        ]
        until(browser, lambda: find("record").is_displayed())
        assert find("bars").get_attribute("aria-label") == (
            "Answers that the model had guessed: 3 of 10, with 20 labels, questions that the model "
            "chose; 9 of 10, with 30 labels"
        )
        heights = "return [...document.querySelectorAll('#bars i')].map(i => i.offsetHeight)"
        low, high = browser.execute_script(heights)
        assert 2.5 < high / low < 3.5
        assert find("recorded").text.startswith("In the last round, the model had guessed 9 of 10")
        assert find("file").text == "runs/mine/labels.csv" and find("command").text == command
        scrolled = browser.execute_script("return document.documentElement.scrollWidth")
        assert scrolled <= width
        browser.find_element(By.TAG_NAME, "body").send_keys("c", "d", "e")
        thread.join(10)
        assert given == [{0: 0, 1: 1, 2: 2}]
    until(browser, lambda: find("said").text.startswith("The program has ended."))
    assert not find("large").is_displayed() and find("command").is_displayed()


def test_rows_of_a_table(browser):
    from selenium.webdriver.common.by import By

    find = lambda name: browser.find_element(By.ID, name)  # noqa: E731
    rows = [
        {"name": f"row {i}", "values": [["name", f"<b>pet {i}</b>"], ["weight", "4.5"]]}
        for i in (7, 3)
    ]
    given = []
    with Page(CLASSES) as page:
        thread = threading.Thread(
            target=lambda: given.append(page.ask(None, descriptions=rows)), daemon=True
        )
        thread.start()
        browser.get(page.address)
        until(browser, lambda: find("values").text == "name <b>pet 7</b>\nweight 4.5")
        assert not find("zoom").is_displayed() and find("which").text == "row 7"
        browser.find_element(By.TAG_NAME, "body").send_keys("d")
        until(browser, lambda: find("which").text == "row 3")
        assert find("image0").text == "row 7\ndog"
        browser.find_element(By.TAG_NAME, "body").send_keys("c")
        thread.join(10)
    assert given == [{0: 1, 1: 0}]
