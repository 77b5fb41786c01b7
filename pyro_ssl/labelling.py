"""A person as the source of labels: a page in the browser, served to this machine alone, or the terminal."""

from __future__ import annotations

import base64
import io
import json
import secrets
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from torch import Tensor

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
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self, f"/{secret}/"))
        self._server.daemon_threads = True
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
            images: `(n, C, H, W)` of one or three channels, in 0 .. 1, or else stretched to it.
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


def in_terminal(
    classes: Sequence[str], n: int, answers: Answers | None = None, keep: Callable[[Answers], None] | None = None
) -> Answers:
    """Ask for the class of each of n images of a contact sheet, by its number or name; an empty line for none of them.

    Arguments:
        classes: Names of the classes.
        n: How many images.
        answers: Those there are already.
        keep: Called with all answers after each.

    Raises:
        EOFError: The input ends before all are answered; those given were kept.
    """
    found = dict(answers or {})
    names = {name: k for k, name in enumerate(classes)} | {str(k): k for k in range(len(classes))}
    print("classes: " + ", ".join(f"{k} {name}" for k, name in enumerate(classes)))
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
    """An image `(C, H, W)` as a PNG, base64.

    Raises:
        ValueError: It has not one or three channels.
    """
    from PIL import Image

    if image.dim() != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"images should be (C, H, W) with one channel or three, got {tuple(image.shape)}")
    pixels = image.detach().cpu().double()
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        pixels = (pixels - low) / (high - low)
    array = (pixels * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(array if array.shape[-1] == 3 else array[..., 0]).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _handler(page: Page, path: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.trusted():
                return
            if self.path == path:
                self.reply(HTTPStatus.OK, "text/html; charset=utf-8", HTML)
            elif self.path == path + "state":
                self.reply(HTTPStatus.OK, "application/json", json.dumps(page.state()))
            else:
                self.refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

        def do_POST(self) -> None:
            if not self.trusted():
                return
            size = self.headers.get("Content-Length", "")
            if self.path != path + "answer" or not size.isdigit() or int(size) > LARGEST:
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
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            if host in ("127.0.0.1", "localhost"):
                return True
            self.refuse(HTTPStatus.FORBIDDEN, "this page is for this machine")
            return False

        def refuse(self, status: HTTPStatus, text: str) -> None:
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

HTML = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>pyro-ssl label</title>
<style>
  body { font: 15px system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }
  #images { display: flex; flex-wrap: wrap; gap: .6rem }
  figure { margin: 0; padding: .4rem; border: 2px solid #ddd; border-radius: 6px; text-align: center; cursor: pointer }
  figure.now { border-color: #0072B2 }
  figure img { width: 84px; height: 84px; image-rendering: pixelated; display: block }
  figcaption { min-height: 1.3em; font-size: 13px }
  #classes { display: flex; flex-wrap: wrap; gap: .4rem; margin: 1rem 0 }
  button { font: inherit; padding: .35rem .7rem; border: 1px solid #999; border-radius: 5px; background: #f4f4f4; cursor: pointer }
  button:focus-visible, figure:focus-visible { outline: 3px solid #56B4E9 }
  #said { min-height: 1.4em } .bad { color: #b00020 }
  small { color: #666 }
</style>
<h1>Which class?</h1>
<p id="said" role="status"></p>
<div id="classes"></div>
<div id="images"></div>
<p><small>Choose with the mouse, or by a digit or the first letter of a class; arrows move, space says that none can be told.</small></p>
<script>
  let state = { round: 0, classes: [], images: [], answers: {} }, now = 0;
  const $ = id => document.getElementById(id);
  const say = (text, bad) => { $("said").textContent = text; $("said").className = bad ? "bad" : ""; };
  const name = label => label === null ? "cannot be told" : state.classes[label];

  function draw() {
    const left = state.images.filter((_, i) => !(i in state.answers)).length;
    if (!$("said").classList.contains("bad"))
      say(state.images.length ? left + " left" : "Nothing is asked now; the method may be learning. Leave the page open.");
    $("classes").replaceChildren(...[...state.classes.keys(), null].map(label => {
      const button = document.createElement("button");
      button.textContent = (label === null ? "space  " : String(label) === name(label) ? "" : label + "  ") + name(label);
      button.onclick = () => answer(label);
      return button;
    }));
    $("images").replaceChildren(...state.images.map((image, i) => {
      const figure = document.createElement("figure"), picture = document.createElement("img"), caption = document.createElement("figcaption");
      picture.src = "data:image/png;base64," + image; picture.alt = "image " + i;
      caption.textContent = i in state.answers ? name(state.answers[i]) : "?";
      figure.className = i === now ? "now" : ""; figure.id = "image" + i; figure.tabIndex = 0;
      figure.onclick = () => { now = i; draw(); };
      figure.append(picture, caption);
      return figure;
    }));
  }

  async function answer(label) {
    if (!state.images.length) return;
    const place = now;
    const reply = await fetch("answer", { method: "POST", body: JSON.stringify({ round: state.round, answers: { [place]: label } }) })
      .catch(() => null);
    if (!reply || !reply.ok) return say(reply ? await reply.text() : "The program has ended.", true);
    say("", false);
    state.answers[place] = label;
    const next = state.images.findIndex((_, i) => !(i in state.answers));
    if (next >= 0) now = next;
    draw();
  }

  async function load() {
    const reply = await fetch("state").catch(() => null);
    if (reply && reply.ok) {
      const fresh = await reply.json();
      if (fresh.round !== state.round) {
        state = fresh; say("", false);
        now = Math.max(0, state.images.findIndex((_, i) => !(i in state.answers)));
        draw();
      }
    } else if (state.round) say("The program has ended.", true);
    setTimeout(load, 1000);
  }

  document.onkeydown = event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key === "arrowright" || key === "arrowleft") {
      now = Math.min(state.images.length - 1, Math.max(0, now + (key === "arrowright" ? 1 : -1)));
      return draw();
    }
    if (key === " ") { event.preventDefault(); return answer(null); }
    const starts = state.classes.map((c, i) => c.toLowerCase().startsWith(key) ? i : -1).filter(i => i >= 0);
    if (/^[0-9]$/.test(key) && Number(key) < state.classes.length) answer(Number(key));
    else if (key.length === 1 && starts.length === 1) answer(starts[0]);
  };
  load();
</script>
</html>
"""
