"""A person as the source of labels: a page in the browser, served to this machine alone, or the terminal."""

from __future__ import annotations

import base64
import io
import json
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from torch import Tensor

from pyro_ssl.evaluation import plots
from pyro_ssl.utils.files import CheckpointError, checksum, read_sealed, write_sealed

Answers = dict[int, int | None]
"""By place among the images asked for: the class, or None for one that cannot be told."""
LARGEST = 2**20
"""Bytes of an answer at most."""


class Page:
    """One page that shows images and takes a class for each, at an address of this machine that only its reader knows.

    .. code-block:: python

        with Page(["cat", "dog"]) as page:
            print(page.address)
            answers = page.ask(images)

    Arguments:
        classes: Names of the K classes, two at least.
        port: Where it listens, on 127.0.0.1; 0 for any that is free.

    Attributes:
        address: What to open; it holds a secret, so that no other page in the browser can answer.

    Raises:
        ValueError: There are fewer than two classes, or two of one name.
        OSError: The port is taken.
    """

    def __init__(self, classes: Sequence[str], port: int = 0) -> None:
        self.classes = [str(c) for c in classes]
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes should be two or more different names, got {list(classes)}")
        self._images: list[str] = []
        self._answers: Answers = {}
        self._keep: Callable[[Answers], None] = lambda answers: None
        self._changed = threading.Condition()
        self._failed: BaseException | None = None
        self._round = 0
        secret = secrets.token_urlsafe(16)
        try:
            self._server = _Server(("127.0.0.1", port), _handler(self, f"/{secret}/"))
        except OSError as error:
            raise OSError(f"port {port} cannot be listened on: {error.strerror}") from None
        self.address = f"http://127.0.0.1:{self._server.server_port}/{secret}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def ask(
        self, images: Tensor, answers: Answers | None = None, keep: Callable[[Answers], None] | None = None
    ) -> Answers:
        """Show images and wait until each has an answer.

        Arguments:
            images: `(n, C, H, W)` of one or three channels, in 0 .. 1.
            answers: Those there are already.
            keep: Called with all answers whenever there are new ones, before the page says that they are kept.

        Raises:
            ValueError: They are no images.
        """
        pictures = [png(image) for image in images]
        with self._changed:
            self._round += 1
            self._images, self._answers = pictures, dict(answers or {})
            self._keep, self._failed = keep or (lambda answers: None), None
            while len(self._answers) < len(pictures) and self._failed is None:
                self._changed.wait()
            self._round, self._images = self._round + 1, []  # what comes now comes too late, and is told so
            if self._failed is not None:
                raise self._failed
            return dict(self._answers)

    @property
    def round(self) -> int:
        """Counts what is asked; the page looks for a new one."""
        return self._round

    def state(self) -> dict[str, Any]:
        """What the page shows."""
        with self._changed:
            answers = {str(k): v for k, v in self._answers.items()}
            return {"round": self._round, "classes": self.classes, "images": self._images, "answers": answers}

    def answer(self, given: Any) -> None:
        """Take what the page sends, `{"round": r, "answers": {place: class or null}}`.

        Raises:
            ValueError: It is none of these, a place or class is not there, or it is of an earlier round; nothing is taken then.
        """
        if not isinstance(given, dict) or not isinstance(given.get("answers"), dict):
            raise ValueError("an answer should be {round, answers}")
        with self._changed:
            if given.get("round") != self._round:
                raise ValueError("these images are not asked for any more; load the page again")
            new: Answers = {}
            for place, label in given["answers"].items():
                if not (place.isascii() and place.isdigit() and int(place) < len(self._images)):
                    raise ValueError(f"there is no image {place!r}, only 0 .. {len(self._images) - 1}")
                if label is not None and not (type(label) is int and 0 <= label < len(self.classes)):
                    raise ValueError(f"image {place}: there is no class {label!r}, only 0 .. {len(self.classes) - 1}")
                new[int(place)] = label
            try:
                self._keep(self._answers | new)
            except BaseException as error:
                self._failed = error
                self._changed.notify_all()
                raise
            self._answers |= new
            self._changed.notify_all()


class Question:
    """Images of a pool that a person is asked about, in a file: each answer is there as soon as it is given.

    Arguments:
        path: The file, JSON; the contact sheet stands beside it, as PNG. What is in it is gone on with.
        pool: Images `(N, C, H, W)`.
        classes: Names of the classes.

    Attributes:
        rows: The pool's rows that are asked for; none, if nothing is.

    Raises:
        ValueError: The file is of another pool or of other classes, or damaged.
    """

    def __init__(self, path: Path, pool: Tensor, classes: Sequence[str]) -> None:
        self.path, self.pool, self.classes = path, pool, list(classes)
        self.rows: list[int] = []
        self._answers: dict[int, int | None] = {}
        self._of = {"pool": [list(pool.shape), checksum(pool)], "classes": self.classes}
        if not path.exists():
            return
        try:
            found = read_sealed(path)
            self.rows = [int(row) for row in found["rows"]]
            self._answers = {int(row): label for row, label in found["answers"].items()}
            of = {k: found[k] for k in self._of}
        except CheckpointError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from None
        for name, was in of.items():
            if was != self._of[name]:
                option = "--data: other images" if name == "pool" else f"--classes: others, {', '.join(self.classes)},"
                raise ValueError(
                    f"{option} than what {path.parent} has labels of"
                    + (f", {', '.join(was)}" if name == "classes" else "")
                )
        told = [label for label in self._answers.values() if label is not None]
        if wrong := [label for label in told if type(label) is not int or not 0 <= label < len(self.classes)]:
            raise ValueError(f"{path} is damaged: there is no class {wrong[0]!r}, only 0 .. {len(self.classes) - 1}")
        if outside := [row for row in self.rows if not 0 <= row < len(pool)]:
            raise ValueError(f"{path} is damaged: row {outside[0]} is not in 0 .. {len(pool) - 1}")

    @property
    def left_out(self) -> list[int]:
        """Rows that cannot be told."""
        return [row for row in self.rows if self._answers.get(row, 0) is None]

    def ask(self, rows: Sequence[int]) -> None:
        """Ask about other rows."""
        self.rows, self._answers = list(rows), {}
        self._write({})

    def forget(self, known: Iterable[int]) -> None:
        """Ask no more about rows whose answers are elsewhere now."""
        gone = set(known)
        self.rows = [row for row in self.rows if row not in gone]

    def answered(self, page: Page | None) -> tuple[list[int], list[int]]:
        """Rows that have a class, and the classes, when all are answered: on the page, or in the terminal."""
        images, sheet = self._shown(), self.path.with_suffix(".png")
        plots.save(plots.contact_sheet(images), sheet)
        before = {i: self._answers[row] for i, row in enumerate(self.rows) if row in self._answers}
        where = f"{page.address} (and {sheet})" if page else str(sheet)
        print(f"{len(self.rows)} images: {where}", flush=True)
        if page is None:
            answers = in_terminal(self.classes, len(self.rows), before, self._write)
        else:
            answers = page.ask(images, before, self._write)
        self._answers = {self.rows[place]: label for place, label in answers.items()}
        told = {row: label for row, label in self._answers.items() if label is not None}
        return list(told), list(told.values())

    def _shown(self) -> Tensor:
        """The images in 0 .. 1, by one scale for the whole pool."""
        low, high = float(self.pool.min()), float(self.pool.max())
        images = self.pool[self.rows]
        if 0 <= low and high <= 1:
            return images
        return (images - low) / ((high - low) or 1.0)

    def _write(self, answers: Answers) -> None:
        given = {str(self.rows[place]): label for place, label in answers.items()}
        write_sealed(self.path, self._of | {"rows": self.rows, "answers": given})


def in_terminal(
    classes: Sequence[str], n: int, answers: Answers | None = None, keep: Callable[[Answers], None] | None = None
) -> Answers:
    """Ask for the class of each of n images of a contact sheet; an empty line for none.

    A class is given by its name, or by its number where no name is a number.

    Arguments:
        classes: Names of the classes.
        n: How many images.
        answers: Those there are already.
        keep: Called with all answers after each.

    Raises:
        EOFError: The input ends before all are answered; those given were kept.
    """
    found = dict(answers or {})
    names = {name: k for k, name in enumerate(classes)}
    numbers = {} if any(name.isdigit() for name in classes) else {str(k): k for k in range(len(classes))}
    print("classes: " + ", ".join(f"{k} {name}" if numbers else name for k, name in enumerate(classes)))
    names = numbers | names
    for place in range(n):
        while place not in found:
            text = input(f"image {place}: ").strip()
            if text and text not in names:
                print(f"there is no class {text!r}; an empty line leaves the image out")
                continue
            found[place] = names[text] if text else None
            if keep is not None:
                keep(dict(found))
    return found


def png(image: Tensor) -> str:
    """An image `(C, H, W)` in 0 .. 1 as a PNG, base64.

    Raises:
        ValueError: It has not one or three channels.
    """
    from PIL import Image

    if image.dim() != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"images should be (C, H, W) with one channel or three, got {tuple(image.shape)}")
    array = (image.detach().cpu().double().clamp(0, 1) * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(array if array.shape[-1] == 3 else array[..., 0]).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a browser that goes away is no fault, and the terminal is the user's."""


def _handler(page: Page, path: str) -> type[BaseHTTPRequestHandler]:
    html = (files("pyro_ssl.active") / "label.html").read_text()

    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # seconds, for a request that does not end

        def do_GET(self) -> None:
            if not self.trusted():
                return
            if self.path == path:
                self.reply(HTTPStatus.OK, "text/html; charset=utf-8", html)
            elif self.path == path + "round":
                self.reply(HTTPStatus.OK, "application/json", json.dumps({"round": page.round}))
            elif self.path == path + "state":
                self.reply(HTTPStatus.OK, "application/json", json.dumps(page.state()))
            else:
                self.refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

        def do_POST(self) -> None:
            if not self.trusted():
                return
            size = self.headers.get("Content-Length", "")
            if self.path != path + "answer" or not (
                size.isascii() and size.isdigit() and len(size) < 8 and int(size) <= LARGEST
            ):
                return self.refuse(HTTPStatus.BAD_REQUEST, "an answer is a small POST to answer")
            try:
                page.answer(json.loads(self.rfile.read(int(size))))
            except (ValueError, RecursionError) as error:
                return self.refuse(HTTPStatus.BAD_REQUEST, str(error))
            except Exception as error:
                return self.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"not kept: {error}")
            self.reply(HTTPStatus.OK, "application/json", "{}")

        def trusted(self) -> bool:
            """Of this machine by name too: a page elsewhere, whose name was made to stand for it, has another."""
            said = "//" + (self.headers.get("Host") or ""), self.headers.get("Origin") or "//127.0.0.1"
            try:
                if {urlsplit(name).hostname for name in said} <= {"127.0.0.1", "localhost"}:
                    return True
            except ValueError:  # no name of a machine
                pass
            self.refuse(HTTPStatus.FORBIDDEN, "this page is for this machine")
            return False

        def refuse(self, status: HTTPStatus, text: str) -> None:
            self.close_connection = True  # what was sent may not have been read
            self.reply(status, "text/plain; charset=utf-8", text)

        def reply(self, status: HTTPStatus, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **HEADERS}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the terminal is the user's."""

    return Handler


HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}
