"""The labelling page: what it shows, takes and refuses."""

import http.client
import io
import json
import socket
import subprocess
import threading
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from programs.label_page import CLASSES, IMAGES, wait_for

from pyro_ssl.active.labelling.page import Page, png


@pytest.fixture
def asked():
    """A page that asks for three images, what it kept, and what it gave."""
    kept, given = [], []
    with Page(CLASSES) as page:
        thread = threading.Thread(
            target=lambda: given.append(page.ask(IMAGES, {1: 2}, kept.append)), daemon=True
        )
        thread.start()
        wait_for(lambda: page.state()["images"])
        yield page, kept, given, thread


def request(page, method, what="", body=None, path=None, headers=None):
    address = urlsplit(page.address)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    connection.putrequest(method, path or address.path + what, skip_host=True)
    body = body.encode() if isinstance(body, str) else body or b""
    for name, value in (
        {"Host": address.netloc, "Content-Length": str(len(body))} | (headers or {})
    ).items():
        connection.putheader(name, value.encode("latin-1"))
    connection.endheaders(body)
    reply = connection.getresponse()
    return reply.status, reply.read().decode(), reply


def test_page_shows_images_and_takes_answers(asked):
    page, kept, given, thread = asked
    state = json.loads(request(page, "GET", "state")[1])
    assert (
        state["classes"] == CLASSES and len(state["images"]) == 3 and state["answers"] == {"1": 2}
    )

    def post(answers):
        return request(
            page, "POST", "answer", json.dumps({"round": state["round"], "answers": answers})
        )

    assert post({0: 1})[0] == 200 and kept == [{1: 2, 0: 1}]
    assert post({2: None})[0] == 200
    thread.join(10)
    assert given == [{1: 2, 0: 1, 2: None}] == kept[-1:]
    assert post({0: 0})[0] == 400 and "no longer asked for" in post({0: 0})[1]


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
        ({"answers": {"0": 0}, "round": 0}, "no longer asked for"),
        ([], "should be {round, answers}"),
        ("{", "Expecting"),
        (b"\xff", "decode"),
        ("[" * 100_000, ""),
    ],
)
def test_page_refuses_invalid_answers_completely(asked, body, said):
    page, kept, _, _ = asked
    if isinstance(body, dict):
        body = {"round": page.state()["round"]} | body
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    status, reply, _ = request(page, "POST", "answer", text)
    assert status == 400 and said in reply
    assert page.state()["answers"] == {"1": 2} and not kept


def test_page_serves_this_machine_only(asked):
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
    assert (
        request(
            page, "GET", headers={"Host": "localhost", "Origin": f"http://localhost:{address.port}"}
        )[0]
        == 200
    )
    assert (
        request(page, "GET")[2].headers["Content-Security-Policy"].startswith("default-src 'none'")
    )


@pytest.mark.parametrize("length", ["1048577", "9" * 5000, "-1", "x", "\u00b2", ""])
def test_page_refuses_an_invalid_content_length(asked, length):
    page, _, _, _ = asked
    assert request(page, "POST", "answer", headers={"Content-Length": length})[0] == 400
    assert request(page, "GET", "round")[0] == 200  # the next one is served


def test_taken_port_is_named():
    with (
        Page(CLASSES) as page,
        pytest.raises(OSError, match=f"port {page._server.server_port} is not available"),
    ):
        Page(CLASSES, page._server.server_port)


def test_failure_to_keep_reaches_page_and_program():
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
            page,
            "POST",
            "answer",
            json.dumps({"round": page.state()["round"], "answers": {"0": 0}}),
        )
        thread.join(10)
        assert status == 500 and "not kept" in text and found and page.state()["answers"] == {}


@pytest.mark.parametrize("classes", [["one"], ["a", "a"], []])
def test_page_refuses_fewer_than_two_different_classes(classes):
    with pytest.raises(ValueError, match="classes should be two or more"):
        Page(classes)


def test_png_of_grey_and_colour_images():
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
