"""A page in the browser to label images, served to this machine only."""

from __future__ import annotations

import base64
import io
import json
import secrets
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from torch import Tensor

Answers = dict[int, int | None]
"""The class of each image, by its index among those shown; None for no class."""
Guesses = Sequence[tuple[int, float]]
"""The likeliest class of each image, and its probability."""
Description = dict[str, Any]
"""The `name` of an image or row, and its `values`, pairs of a column and a cell."""
MAX_ANSWER_BYTES = 2**20
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'"
    ),
}


class Page:
    """A page that shows images and asks for the class of each, at a secret address of this machine.

    .. code-block:: python

        with Page(["cat", "dog"]) as page:
            print(page.address)
            answers = page.ask(images)

    Arguments:
        classes: Names of the K classes, two or more.
        port: Port on 127.0.0.1; 0 uses any free one.
        labels_file: File of the labels, for the person.
        next_command: Command that asks for more labels, for the person.

    Attributes:
        learning: Function that says what is learned at the moment: a `text`, and the `share` that
            is done, or None.
        guessed: For each round, its `answers`, and how many the model had guessed, `right`; see
            `Guessed`.
        address: URL of the page. It holds a secret, so that other pages in the browser cannot
            answer.

    Raises:
        ValueError: There are fewer than two classes, or two with the same name.
        OSError: The port is taken.
    """

    def __init__(
        self,
        classes: Sequence[str],
        port: int = 0,
        *,
        labels_file: str = "",
        next_command: str = "",
    ) -> None:
        self.classes = [str(c) for c in classes]
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes should be two or more different names, got {list(classes)}")
        self.learning: Callable[[], dict[str, Any]] = _nothing
        self.guessed: list[dict[str, Any]] = []
        self._files = {"labels": labels_file, "command": next_command}
        self._images: list[str] = []
        self._beside: dict[str, Any] = {"descriptions": [], "why": ""}
        self._answers: Answers = {}
        self._guesses: Guesses = []
        self._counts = [0] * len(self.classes)
        self._doing = ""
        self._keep: Callable[[Answers], None] = _ignore
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._round = 0
        path = f"/{secrets.token_urlsafe(16)}/"
        try:
            self._server = _Server(port, self, path)
        except OSError as error:
            raise OSError(f"port {port} is not available: {error.strerror}") from None
        self.address = f"http://127.0.0.1:{self._server.server_port}{path}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def ask(
        self,
        images: Tensor | None,
        answers: Answers | None = None,
        keep: Callable[[Answers], None] | None = None,
        *,
        guesses: Guesses = (),
        counts: Sequence[int] | None = None,
        descriptions: Sequence[Description] = (),
        why: str = "",
    ) -> Answers:
        """Show images, or rows of a table, and wait until each has an answer.

        Arguments:
            images: `(n, C, H, W)` with one or three channels, in [0, 1]; None for rows of a table.
            answers: Answers so far.
            keep: Called with all answers for each new one, before the page confirms it.
            guesses: What the model thinks of each image; empty without a model.
            counts: Labels of each class before this question, `(K,)`.
            descriptions: Name and values of each image or row.
            why: Where the question comes from.

        Raises:
            ValueError: The images have another shape.
        """
        pictures = [""] * len(descriptions)
        if images is not None:
            pictures = [png(image) for image in images]
        with self._changed:
            self._round += 1
            self._images = pictures
            self._answers = dict(answers or {})
            self._guesses = list(guesses)
            self._counts = list(counts or self._counts)
            self._beside = {"descriptions": list(descriptions), "why": why}
            self._doing = ""
            self._keep = keep or _ignore
            self._failure = None
            while len(self._answers) < len(pictures) and self._failure is None:
                self._changed.wait()
            self._round += 1  # later answers to these images are refused
            self._images = []
            if self._failure is not None:
                raise self._failure
            return dict(self._answers)

    def tell(self, doing: str) -> None:
        """Show what the program is doing, until the next question.

        Arguments:
            doing: What it is doing.
        """
        self._doing = doing

    @property
    def round(self) -> int:
        """Number of the current question."""
        return self._round

    @property
    def news(self) -> dict[str, Any]:
        """The number of the current question, and what the program does; the page polls it."""
        learning = self.learning()
        with self._changed:  # `ask` changes the round and what is done together
            return {
                "round": self._round,
                "doing": self._doing,
                "learning": learning,
                "guessed": self.guessed,
            }

    def state(self) -> dict[str, Any]:
        """Everything that the page shows, as plain data."""
        with self._changed:
            return {
                "round": self._round,
                "classes": self.classes,
                "images": self._images,
                "answers": {str(k): label for k, label in self._answers.items()},
                "guesses": [list(guess) for guess in self._guesses],
                "counts": self._counts,
                "files": self._files,
                **self._beside,
            }

    def answer(self, message: Any) -> None:
        """Handle a message of the page, `{"round": r, "answers": {image: class or null}}`.

        Raises:
            ValueError: The message has another form, names an image or class that does not exist,
                or belongs to an earlier round. No answer is taken.
        """
        is_message = isinstance(message, dict) and isinstance(message.get("answers"), dict)
        if not is_message:
            raise ValueError("an answer should be {round, answers}")
        with self._changed:
            if message.get("round") != self._round:
                raise ValueError("these images are no longer asked for; load the page again")
            answers = self._parsed(message["answers"])
            try:
                self._keep(self._answers | answers)
            except BaseException as error:
                self._failure = error
                self._changed.notify_all()
                raise
            self._answers |= answers
            self._changed.notify_all()

    def _parsed(self, answers: dict[str, Any]) -> Answers:
        """Answers of a message by the image's number; raise ValueError for anything else."""
        result: Answers = {}
        for image, label in answers.items():
            is_number = image.isascii() and image.isdigit()
            if not is_number or int(image) >= len(self._images):
                last = len(self._images) - 1
                raise ValueError(f"there is no image {image!r}, only 0 .. {last}")
            is_class = type(label) is int and 0 <= label < len(self.classes)
            if label is not None and not is_class:
                last = len(self.classes) - 1
                raise ValueError(f"image {image}: there is no class {label!r}, only 0 .. {last}")
            result[int(image)] = label
        return result


def _ignore(answers: Answers) -> None:
    """Keep nothing."""


def _nothing() -> dict[str, Any]:
    """Nothing is learned."""
    return {"text": "", "share": None}


def png(image: Tensor) -> str:
    """Encode an image `(C, H, W)` in [0, 1] as PNG, in base64.

    >>> import torch
    >>> png(torch.zeros(1, 2, 2))[:8]
    'iVBORw0K'

    Raises:
        ValueError: It does not have one or three channels.
    """
    from PIL import Image

    if image.dim() != 3 or image.shape[0] not in (1, 3):
        shape = tuple(image.shape)
        raise ValueError(f"images should be (C, H, W) with one channel or three, got {shape}")
    pixels = (image.detach().cpu().double().clamp(0, 1) * 255).round()
    array = pixels.permute(1, 2, 0).numpy().astype(np.uint8)
    if array.shape[-1] == 1:
        array = array[..., 0]
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


# --- the server -----------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    """Serves a page under a secret path."""

    daemon_threads = True

    def __init__(self, port: int, page: Page, path: str) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.page = page
        self.path = path
        self.html = (files("pyro_ssl.active.labelling") / "page.html").read_text()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a browser that disconnects is not an error."""


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of the page."""

    server: _Server
    timeout = 30  # seconds until an incomplete request is dropped

    def do_GET(self) -> None:
        if not self.is_allowed():
            return
        root = self.server.path
        if self.path == root:
            self.reply(HTTPStatus.OK, "text/html; charset=utf-8", self.server.html)
        elif self.path == root + "round":
            self.reply_json(self.server.page.news)
        elif self.path == root + "state":
            self.reply_json(self.server.page.state())
        else:
            self.refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

    def do_POST(self) -> None:
        if not self.is_allowed():
            return
        size = _body_size(self.headers.get("Content-Length", ""))
        if self.path != self.server.path + "answer" or size is None:
            self.refuse(HTTPStatus.BAD_REQUEST, "an answer should be a small POST to answer")
            return
        try:
            self.server.page.answer(json.loads(self.rfile.read(size)))
        except (ValueError, RecursionError) as error:
            self.refuse(HTTPStatus.BAD_REQUEST, str(error))
        except Exception as error:
            self.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"not kept: {error}")
        else:
            self.reply_json({})

    def is_allowed(self) -> bool:
        """Return True if the request names this machine; refuse it otherwise."""
        if _is_local(self.headers.get("Host"), self.headers.get("Origin")):
            return True
        self.refuse(HTTPStatus.FORBIDDEN, "this page is only for this machine")
        return False

    def refuse(self, status: HTTPStatus, text: str) -> None:
        self.close_connection = True  # the body may not have been read
        self.reply(status, "text/plain; charset=utf-8", text)

    def reply_json(self, data: dict[str, Any]) -> None:
        self.reply(HTTPStatus.OK, "application/json", json.dumps(data))

    def reply(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), **HEADERS}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent: the terminal belongs to the user."""


def _is_local(host: str | None, origin: str | None) -> bool:
    """Return True if a request names this machine.

    A website whose name was made to resolve to this machine (DNS rebinding) has another name.
    """
    names = {f"//{host or ''}", origin or "//127.0.0.1"}
    try:
        hosts = {urlsplit(name).hostname for name in names}
    except ValueError:  # not a host name
        return False
    return hosts <= {"127.0.0.1", "localhost"}


def _body_size(length: str) -> int | None:
    """Content-Length in bytes; None if it is not a number or too large."""
    is_number = length.isascii() and length.isdigit() and len(length) < 8
    if not is_number or int(length) > MAX_ANSWER_BYTES:
        return None
    return int(length)
