"""A person as the oracle: the page in a real browser, what it refuses, the terminal, and `pyro-ssl label` as a whole."""

import http.client
import io
import json
import shutil
import socket
import subprocess
import threading
import time
from functools import cache
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

from pyro_ssl.active import learner as active
from pyro_ssl.active.labelling import Page, Question, in_terminal, png
from pyro_ssl.active.learner import ActiveLearner
from pyro_ssl.cli import main as cli
from pyro_ssl.data.labels import LabelWarning
from pyro_ssl.utils import files

IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
CLASSES = ["cat", "dog", "eel"]


@pytest.fixture
def asked():
    """A page that asks for three images, what it kept, and what it gave."""
    kept, given = [], []
    with Page(CLASSES) as page:
        thread = threading.Thread(target=lambda: given.append(page.ask(IMAGES, {1: 2}, kept.append)), daemon=True)
        thread.start()
        wait_for(lambda: page.state()["images"])
        yield page, kept, given, thread


def request(page, method, what="", body=None, path=None, headers=None):
    address = urlsplit(page.address)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    connection.putrequest(method, path or address.path + what, skip_host=True)
    body = body.encode() if isinstance(body, str) else body or b""
    for name, value in ({"Host": address.netloc, "Content-Length": str(len(body))} | (headers or {})).items():
        connection.putheader(name, value.encode("latin-1"))
    connection.endheaders(body)
    reply = connection.getresponse()
    return reply.status, reply.read().decode(), reply


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


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
    page, kept, _, _ = asked
    address = urlsplit(page.address)
    assert address.hostname == "127.0.0.1" and len(address.path) > 20
    assert page._server.server_address[0] == "127.0.0.1"
    others = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
    for other in others:
        if ":" not in other and not other.startswith("127."):
            with pytest.raises(OSError):
                socket.create_connection((other, address.port), timeout=2).close()
    body = json.dumps({"round": page.round, "answers": {"0": 0}})
    for host, origin in (
        ("elsewhere.example:80", None),
        ("", None),
        ("[", None),
        (address.netloc, "http://["),
        (address.netloc, "http://elsewhere.example"),
        (address.netloc, "null"),
    ):
        headers = {"Host": host} | ({"Origin": origin} if origin else {})
        assert request(page, "GET", headers=headers)[0] == 403
        assert request(page, "POST", "answer", body, headers=headers)[0] == 403
    for path in (
        "/",
        "/state",
        "/answer",
        "/wrong/answer",
        "/etc/passwd",
        address.path + "../",
        address.path + "x",
        address.path[:-2],
    ):
        assert request(page, "GET", path=path)[0] == 404
        assert request(page, "POST", path=path, body=body)[0] == 400
    assert page.state()["answers"] == {"1": 2} and not kept
    assert request(page, "GET", headers={"Host": "localhost", "Origin": f"http://localhost:{address.port}"})[0] == 200
    assert request(page, "GET")[2].headers["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("length", ["1048577", "9" * 5000, "-1", "x", "\u00b2", ""])
def test_answers_of_no_good_length_are_not_read(asked, length):
    page, _, _, _ = asked
    assert request(page, "POST", "answer", headers={"Content-Length": length})[0] == 400
    assert request(page, "GET", "round")[0] == 200  # the next one is served


def test_a_port_that_is_taken_is_named():
    with Page(CLASSES) as page, pytest.raises(OSError, match=f"port {page._server.server_port} cannot"):
        Page(CLASSES, page._server.server_port)


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
        wait_for(lambda: page.state()["images"])
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


def test_names_that_are_numbers_are_names(monkeypatch, capsys):
    lines = iter(["0", "1", "3"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    assert in_terminal(["1", "2", "3"], 2) == {0: 0, 1: 2}
    assert "no class '0'" in capsys.readouterr().out


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
        thread = threading.Thread(target=lambda: given.append(page.ask(IMAGES)), daemon=True)
        thread.start()
        until(browser, lambda: captions() == ["?", "?", "?"])
        fast = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}))"
        browser.execute_script(f"for (const key of 'cde') {fast}")
        thread.join(10)
        assert given[2] == {0: 0, 1: 1, 2: 2}
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    expected = ("/answer", "/round", "/state", "favicon")  # the refusal, and what is asked while the page closes
    assert not [m for m in severe if not any(part in m for part in expected)]


def test_keys_of_the_page_and_what_it_takes_back(browser):
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
    until(browser, lambda: said() == "The program has ended.")


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


parser = cache(cli.make_parser)


@pytest.fixture(autouse=True)
def one_parser(monkeypatch):
    """The command line's parser, made once: that takes longer than most commands."""
    monkeypatch.setattr(cli, "make_parser", parser)


@pytest.fixture
def person(monkeypatch, tmp_path):
    """Answers by looking at the rows that are asked for, as many as told; then is gone."""

    def answers(y, most=10**6):
        count = iter(range(most))

        def answer(prompt):
            if next(count, None) is None:
                raise EOFError
            rows = json.loads((tmp_path / "run/asked.json").read_text())["rows"]
            return ["up", "down"][y[rows[int(prompt.split()[1].rstrip(":"))]]]

        monkeypatch.setattr("builtins.input", answer)

    return answers


def kept(tmp_path, name="labels"):
    return json.loads((tmp_path / "run" / f"{name}.json").read_text())


def test_the_command_asks_trains_and_goes_on(tmp_path, person, capsys):
    x, y = pool(tmp_path)
    person(y, 6)
    assert command(tmp_path, "--rounds", "3") == 130 and "the same command goes on" in capsys.readouterr().err
    asked = kept(tmp_path, "asked")
    assert len(asked["answers"]) == 2 and len(asked["rows"]) == 4  # of the second round
    person(y)
    assert command(tmp_path, "--acquisition", "margin", "--n", "1") == 0  # whatever else is asked for, these rows first
    said = capsys.readouterr().out
    assert "8 labels; sure of" in said and "0 up, 1 down" in said
    labels = kept(tmp_path)
    assert set(asked["rows"]) <= set(labels["indices"]) and labels["labels"] == y[labels["indices"]].tolist()
    assert (tmp_path / "run/asked.png").exists()
    np.save(tmp_path / "x.npy", x[:, None] / 255.0)
    predict = [
        "predict",
        str(tmp_path / "run"),
        "--input",
        str(tmp_path / "x.npy"),
        "--output",
        str(tmp_path / "p.npy"),
    ]
    assert cli.main(predict) == 0 and np.load(tmp_path / "p.npy").shape == (60, 2)
    of_fractions = np.load(tmp_path / "p.npy")
    np.save(tmp_path / "x.npy", x[:, None])  # whole numbers, as they were labeled
    assert x.dtype == np.uint8 and cli.main(predict) == 0
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), of_fractions, atol=1e-5)
    for other in (x.astype(float), 2 * x / 255.0 - 1):
        np.save(tmp_path / "x.npy", other[:, None])
        assert cli.main(predict) == 2 and "in other units than the training data" in capsys.readouterr().err


@pytest.mark.parametrize("when", ["before teaching", "in training", "before the model"])
def test_a_killed_command_loses_no_answer(tmp_path, person, monkeypatch, when):
    _, y = pool(tmp_path)
    person(y)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if when == "before teaching":
            patch.setattr(ActiveLearner, "teach", killed)
        else:
            patch.setattr(*((active, "fit") if when == "in training" else (cli.SavedModel, "save")), killed)
        assert command(tmp_path) == 130
    asked = kept(tmp_path, "asked")
    assert len(asked["answers"]) == 4
    assert command(tmp_path) == 0
    labels = kept(tmp_path)
    assert labels["indices"][:4] == asked["rows"] and labels["labels"] == y[labels["indices"]].tolist()
    assert (tmp_path / "run/model/state.json").exists()


def test_it_ends_when_all_are_labeled_and_leaves_out_what_cannot_be_told(tmp_path, person, monkeypatch, capsys):
    _, y = pool(tmp_path, 8)
    person(y)
    assert command(tmp_path, "--n", "6", "--rounds", "5") == 0 and len(kept(tmp_path)["labels"]) == 8
    assert command(tmp_path) == 0
    shutil.rmtree(tmp_path / "run")
    monkeypatch.setattr("builtins.input", lambda _: "")
    assert command(tmp_path) == 0 and len(kept(tmp_path)["skipped"]) == 4 and not (tmp_path / "run/model").exists()
    assert command(tmp_path, "--n", "6", "--rounds", "2") == 0 and len(kept(tmp_path)["skipped"]) == 8


def test_a_class_that_nobody_has_seen_is_named(tmp_path, person):
    _, y = pool(tmp_path)
    person(np.zeros_like(y))
    with pytest.warns(
        LabelWarning, match="no row of class 'down' has a label; label one at least of each class"
    ) as told:
        assert command(tmp_path) == 0
    assert len(told) == 1


def test_a_changed_answer_is_found(tmp_path, person, capsys):
    _, y = pool(tmp_path)
    person(y, 3)
    assert command(tmp_path) == 130
    asked = kept(tmp_path, "asked")
    row = next(iter(asked["answers"]))
    changed = asked | {"answers": asked["answers"] | {row: 1 - asked["answers"][row]}}
    (tmp_path / "run/asked.json").write_text(json.dumps(changed))
    assert command(tmp_path) == 2 and "asked.json is damaged: its checksum does not match" in capsys.readouterr().err


def test_answers_belong_to_their_images_and_classes(tmp_path, person, capsys):
    x, y = pool(tmp_path)
    person(y, 3)
    assert command(tmp_path) == 130
    assert command(tmp_path, "--classes", "down", "up") == 2
    assert "--classes: others, down, up, than what" in capsys.readouterr().err
    np.savez(tmp_path / "images.npz", x=x[::-1], classes=np.array(["up", "down"]))
    assert command(tmp_path) == 2 and "--data: other images" in capsys.readouterr().err
    np.savez(tmp_path / "images.npz", x=x, classes=np.array(["up", "down"]))
    asked = kept(tmp_path, "asked")
    (tmp_path / "run/asked.json").write_text(json.dumps(asked | {"rows": [60]}))
    assert command(tmp_path) == 2 and "asked.json is damaged: its checksum does not match" in capsys.readouterr().err
    del asked["checksum"]
    (tmp_path / "run/asked.json").write_text(json.dumps(asked | {"rows": [60]}))
    assert command(tmp_path) == 2 and "asked.json is damaged: row 60 is not in 0 .. 59" in capsys.readouterr().err
    (tmp_path / "run/asked.json").write_text(json.dumps(asked | {"answers": {str(asked["rows"][0]): 9}}))
    assert command(tmp_path) == 2 and "asked.json is damaged: there is no class 9" in capsys.readouterr().err
    (tmp_path / "run/asked.json").write_text("{")
    assert command(tmp_path) == 2 and "asked.json is damaged" in capsys.readouterr().err


def test_one_command_at_a_time(tmp_path, capsys):
    pytest.importorskip("fcntl")
    pool(tmp_path)
    with files.locked(tmp_path / "run"):
        assert command(tmp_path) == 2
    assert "in use by another" in capsys.readouterr().err


def test_a_page_is_asked_on(tmp_path, monkeypatch):
    """The command's own page, answered by requests."""
    _, y = pool(tmp_path)

    def browse(page):
        wait_for(lambda: page.state()["images"])
        rows = kept(tmp_path, "asked")["rows"]
        page.answer({"round": page.round, "answers": {str(i): int(y[row]) for i, row in enumerate(rows)}})

    enter = Page.__enter__
    monkeypatch.setattr(
        Page, "__enter__", lambda page: threading.Thread(target=browse, args=[page], daemon=True).start() or enter(page)
    )
    assert command(tmp_path, "--source", "browser") == 0
    assert kept(tmp_path)["labels"] == y[kept(tmp_path)["indices"]].tolist()


@pytest.mark.parametrize(
    ("dtype", "largest", "unit"), [("uint8", 255, 255), ("int64", 255, 255), ("uint8", 1, 1), ("float32", 1, 1)]
)
def test_whole_numbers_are_divided_where_they_are_grey(tmp_path, dtype, largest, unit):
    x = np.linspace(0, largest, 2 * 64).round().reshape(2, 8, 8)
    np.savez(tmp_path / "images.npz", x=x.astype(dtype))
    images, _, found = cli._images(str(tmp_path / "images.npz"), ["a", "b"])
    assert found == unit and float(images.max()) == 1
    np.testing.assert_allclose(images[:, 0] * unit, x, atol=1e-5)


@pytest.mark.parametrize("unit", [1, 1e-13, 1e13])
def test_pictures_outside_0_and_1_are_shown_by_one_scale(tmp_path, unit):
    x = unit * torch.linspace(-1, 3, 2 * 64).reshape(2, 1, 8, 8)
    question = Question(tmp_path / "asked.json", x, ["a", "b"])
    question.ask([1])
    shown = question._shown()
    assert shown.min() > 0.49 and float(shown.max()) == 1
    assert Question(tmp_path / "other.json", torch.full((1, 1, 2, 2), 7.0), ["a", "b"])._shown().isfinite().all()


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
        ({"x": np.full((3, 4, 4), 256)}, "whole numbers, should be in 0 .. 255"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, capsys, arrays, said):
    np.savez(tmp_path / "images.npz", **arrays)
    assert command(tmp_path) == 2
    assert said in capsys.readouterr().err
