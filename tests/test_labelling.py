"""A person as the oracle: the page in a real browser, what it refuses, the terminal, and `pyro-ssl label` as a whole."""

import http.client
import io
import json
import shutil
import socket
import threading
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

from pyro_ssl import cli
from pyro_ssl.active import ActiveLearner
from pyro_ssl.labelling import Page, in_terminal, png

IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
CLASSES = ["cat", "dog", "eel"]


@pytest.fixture
def asked():
    """A page that asks for three images, what it kept, and what it gave."""
    kept, given = [], []
    with Page(CLASSES) as page:
        thread = threading.Thread(target=lambda: given.append(page.ask(IMAGES, {1: 2}, kept.append)), daemon=True)
        thread.start()
        while not page.state()["images"]:
            pass
        yield page, kept, given, thread


def request(page, method, path="", body=None, host=None):
    address = urlsplit(page.address)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    connection.request(method, address.path + path, body, {"Host": host or address.netloc})
    reply = connection.getresponse()
    return reply.status, reply.read().decode(), reply


def test_what_the_page_shows_and_takes(asked):
    page, kept, given, thread = asked
    state = json.loads(request(page, "GET", "state")[1])
    assert state["classes"] == CLASSES and len(state["images"]) == 3 and state["answers"] == {"1": 2}

    def post(answers):
        return request(page, "POST", "answer", json.dumps({"round": state["round"], "answers": answers}))

    assert post({0: 1})[0] == 200 and kept == [{1: 2, 0: 1}]
    assert post({2: None})[0] == 200
    thread.join(10)
    assert given == [{1: 2, 0: 1, 2: None}] == kept[-1:]
    assert post({0: 0})[0] == 400 and "not asked for any more" in post({0: 0})[1]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"answers": {"0": 3}}, "no class 3, only 0 .. 2"),
        ({"answers": {"0": -1}}, "no class -1"),
        ({"answers": {"0": "cat"}}, "no class 'cat'"),
        ({"answers": {"0": True}}, "no class True"),
        ({"answers": {"0": 1.0}}, "no class 1.0"),
        ({"answers": {"3": 0}}, "no image '3', only 0 .. 2"),
        ({"answers": {"x": 0}}, "no image 'x'"),
        ({"answers": {"0": 1, "1": 7}}, "no class 7"),
        ({"answers": [0]}, "should be {round, answers}"),
        ({"answers": {"0": 0}, "round": 0}, "not asked for any more"),
        ([], "should be {round, answers}"),
        ("{", "Expecting"),
        (b"\xff", "decode"),
        ("[" * 100_000, ""),
    ],
)
def test_bad_labels_are_refused_and_nothing_of_them_is_taken(asked, body, said):
    page, kept, _, _ = asked
    if isinstance(body, dict):
        body = {"round": page.state()["round"]} | body
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    status, reply, _ = request(page, "POST", "answer", text)
    assert status == 400 and said in reply
    assert page.state()["answers"] == {"1": 2} and not kept


def test_nothing_is_served_beyond_this_machine(asked):
    page, _, _, _ = asked
    address = urlsplit(page.address)
    assert address.hostname == "127.0.0.1" and len(address.path) > 20
    assert page._server.server_address[0] == "127.0.0.1"
    others = {i[4][0] for i in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for other in others:
        if not other.startswith("127."):
            with pytest.raises(OSError):
                socket.create_connection((other, address.port), timeout=2).close()
    assert request(page, "GET", host="elsewhere.example:80")[0] == 403
    assert request(page, "POST", "answer", "{}", host="elsewhere.example")[0] == 403
    for path in ("../", "x", "../../etc/passwd"):
        assert request(page, "GET", path)[0] == 404
    assert request(page, "POST", "state", "{}")[0] == 400
    assert request(page, "GET")[2].headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_a_failure_to_keep_reaches_both_sides():
    with Page(CLASSES) as page:
        found = []

        def ask():
            try:
                page.ask(IMAGES, keep=lambda answers: 1 / 0)
            except ZeroDivisionError as error:
                found.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        while not page.state()["images"]:
            pass
        status, text, _ = request(
            page, "POST", "answer", json.dumps({"round": page.state()["round"], "answers": {"0": 0}})
        )
        thread.join(10)
        assert status == 500 and "not kept" in text and found and page.state()["answers"] == {}


@pytest.mark.parametrize("classes", [["one"], ["a", "a"], []])
def test_classes_that_cannot_be_told_apart(classes):
    with pytest.raises(ValueError, match="classes should be two or more"):
        Page(classes)


def test_images_become_pictures():
    from base64 import b64decode

    from PIL import Image

    for channels, mode in ((1, "L"), (3, "RGB")):
        x = torch.arange(channels * 6).double().reshape(channels, 2, 3) / (channels * 6)
        found = Image.open(io.BytesIO(b64decode(png(x))))
        assert found.mode == mode and found.size == (3, 2)
        pixels = torch.as_tensor(np.array(found)).reshape(2, 3, channels).permute(2, 0, 1)
        assert pixels.equal((x * 255).round().to(torch.uint8))
    with pytest.raises(ValueError, match="one channel or three"):
        png(torch.zeros(2, 4, 4))


def test_the_terminal_takes_numbers_and_names(monkeypatch, capsys):
    lines = iter(["dog", "7", "0", ""])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    kept = []
    assert in_terminal(CLASSES, 4, {2: 1}, kept.append) == {0: 1, 1: 0, 2: 1, 3: None}
    assert "no class '7'" in capsys.readouterr().out and kept[-1] == {0: 1, 1: 0, 2: 1, 3: None} and len(kept) == 3


# --- a real browser ---------------------------------------------------------------------------------------------------


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not (chromium and driver):
        pytest.skip("no chromium and chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as found:
        yield found


def until(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20).until(lambda _: condition())


def test_a_browser_labels_three_images(browser):
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
        assert sizes == [8, 8, 8]
        browser.find_element(By.CSS_SELECTOR, "#classes button:nth-child(2)").click()  # with the mouse
        until(browser, lambda: captions() == ["dog", "?", "?"])
        refused = browser.execute_async_script(
            "const done = arguments[0]; fetch('answer', {method: 'POST', body: JSON.stringify({round: state.round, "
            "answers: {1: 9}})}).then(async r => done([r.status, await r.text()]))"
        )
        assert refused[0] == 400 and "no class 9" in refused[1] and captions() == ["dog", "?", "?"]
        browser.find_element(By.TAG_NAME, "body").send_keys("e")  # the first letter of a class
        until(browser, lambda: captions() == ["dog", "eel", "?"])
        assert browser.find_element(By.ID, "said").text == "1 left"
        browser.find_element(By.TAG_NAME, "body").send_keys(" ")
        thread.join(10)
        assert given == [{0: 1, 1: 2, 2: None}]
        thread = threading.Thread(target=lambda: given.append(page.ask(IMAGES[:1])), daemon=True)
        thread.start()
        until(browser, lambda: captions() == ["?"])  # the next round, without a reload
        browser.find_element(By.TAG_NAME, "body").send_keys("0")
        thread.join(10)
        assert given[1] == {0: 0}
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [
        e
        for e in severe
        if "400" not in e["message"] and "REFUSED" not in e["message"] and "favicon" not in e["message"]
    ]


# --- the command ------------------------------------------------------------------------------------------------------


def pool(tmp_path, n=60):
    """Images whose upper or lower half is bright."""
    y = np.arange(n) % 2
    x = np.random.default_rng(0).integers(0, 60, (n, 8, 8), dtype=np.uint8)
    x[y == 0, :4] += 180
    x[y == 1, 4:] += 180
    np.savez(tmp_path / "images.npz", x=x, classes=np.array(["up", "down"]))
    return x, y


def command(tmp_path, *others):
    return cli.main([
        "label", str(tmp_path / "run"), "--data", str(tmp_path / "images.npz"), "--source", "terminal", "--n", "4",
        "--options", json.dumps({"hidden": [8], "z_dim": 2, "network": "mlp"}), "--training", json.dumps({"epochs": 2}), "--start", "random", *others,
    ])  # fmt: skip


def person(monkeypatch, tmp_path, y, most=10**6, asked=None):
    """Answers by looking at the rows that the contact sheet has; stops after as many."""
    count = [0]

    def answer(prompt):
        if count[0] == most:
            raise KeyboardInterrupt
        count[0] += 1
        place = int(prompt.split()[1].rstrip(":"))
        return ["up", "down"][y[asked()[place]]]

    monkeypatch.setattr("builtins.input", answer)


def test_the_command_asks_trains_and_goes_on(tmp_path, monkeypatch, capsys):
    x, y = pool(tmp_path)
    rows = []
    query = ActiveLearner.query

    def seen(self, *args):
        found = query(self, *args)
        rows[:] = found.tolist()
        return found

    monkeypatch.setattr(ActiveLearner, "query", seen)
    person(monkeypatch, tmp_path, y, most=6, asked=lambda: rows)
    with pytest.raises(KeyboardInterrupt):
        command(tmp_path, "--rounds", "3")
    assert len(json.loads((tmp_path / "run" / "asked.json").read_text())) == 2  # of the second round
    before = list(rows)
    person(monkeypatch, tmp_path, y, asked=lambda: rows)
    assert command(tmp_path) == 0 and rows == before
    said = capsys.readouterr().out
    assert "8 labels; the method is sure of" in said and "0 up, 1 down" in said
    labels = json.loads((tmp_path / "run" / "labels.json").read_text())
    assert labels["labels"] == y[labels["indices"]].tolist() and (tmp_path / "run" / "asked.png").exists()
    np.save(tmp_path / "x.npy", x[:, None] / 255.0)
    assert (
        cli.main(
            ["predict", str(tmp_path / "run"), "--input", str(tmp_path / "x.npy"), "--output", str(tmp_path / "p.npy")]
        )
        == 0
    )
    assert np.load(tmp_path / "p.npy").shape == (60, 2)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (["--n", "0"], "n should be a whole number above 0"),
        (["--n", "61"], "n should be at most 60"),
        (["--classes", "one"], "--classes: two or more"),
        (["--acquisition", "bald"], "deterministic"),
        (["--port", "70000"], "--port should be in"),
        (["--data", "none.npz"], "no such file"),
    ],
)
def test_mistakes_are_said_in_a_line(tmp_path, capsys, others, said):
    pool(tmp_path)
    assert command(tmp_path, *others) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "Traceback" not in error


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": np.zeros(3)}, "should hold an array x"),
        ({"x": np.zeros((3, 4))}, "should be images"),
        ({"x": np.zeros((3, 2, 4, 4))}, "one channel or three"),
        ({"x": np.full((3, 4, 4), np.nan)}, "NaN"),
        ({"x": np.zeros((3, 4, 4))}, "two or more different names"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, capsys, arrays, said):
    np.savez(tmp_path / "images.npz", **arrays)
    assert command(tmp_path) == 2
    assert said in capsys.readouterr().err
