"""A real identity provider on a free port, with three people and a service account."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
import socket
import threading
from collections.abc import Coroutine, Iterator
from html import unescape
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette

from muster.identity import Authority, NewClient, People
from muster.store import open_store
from muster.store.contract import Store
from muster.wire.rest import COMPUTE_SCOPE, NATIVE_CLIENT, PROJECTS_SCOPE

T = TypeVar("T")
PASSWORD = "correct horse battery"
CODE_PAGE = "/v2/web/auth-code"


class Site:
    """The provider, running in a thread with a loop of its own."""

    store: Store
    authority: Authority
    people: People
    robot: NewClient

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()])

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        self._loop.close()
        self._socket.close()

    async def _serve(self) -> None:
        self.store = await open_store(f"sqlite:///{self.directory}/muster.db?synchronous=NORMAL")
        self.authority, self.people = Authority(self.store, self.origin), People(self.store)
        await self.authority.open()
        for username in ("harper@example.org", "alice@example.org"):
            await self.people.add(username, name=username.partition("@")[0].title(), password=PASSWORD)
        await self.people.add("mickey97@example.com", password=PASSWORD, linked_to="harper@example.org")
        self.robot = await self.people.add_client("robot")
        server = uvicorn.Server(uvicorn.Config(Starlette(routes=self.authority.routes()), log_level="warning"))
        serving = asyncio.ensure_future(server.serve([self._socket]))
        self._ready.set()
        await self._stop.wait()
        server.should_exit = True
        await serving
        await self.store.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """On the provider's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def id_of(self, username: str) -> str:
        return str(self.run(self.people.find(username)).id)

    def robot_tokens(self, scope: str = COMPUTE_SCOPE) -> dict[str, Any]:
        form = {"grant_type": "client_credentials", "scope": scope}
        answer = httpx2.post(f"{self.origin}/v2/oauth2/token", data=form, auth=self.robot_pair)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    @property
    def robot_pair(self) -> tuple[str, str]:
        return str(self.robot.client_id), self.robot.client_secret


class Browser:
    """What a person and their browser do."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.http = httpx2.Client(base_url=site.origin)
        self.verifier = secrets.token_urlsafe(48)

    def query(self, **changes: str | None) -> str:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
        query: dict[str, str | None] = {
            "client_id": NATIVE_CLIENT,
            "redirect_uri": self.site.origin + CODE_PAGE,
            "scope": f"openid {COMPUTE_SCOPE} {PROJECTS_SCOPE}",
            "state": "_default",
            "response_type": "code",
            "access_type": "offline",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "prefill_named_grant": "muster on node1",
        }
        return urlencode({name: value for name, value in (query | changes).items() if value is not None})

    def open(self, path: str) -> httpx2.Response:
        return self.http.get(path)

    def submit(self, page: httpx2.Response, action: str, **more: str) -> httpx2.Response:
        """Press a button of the page that was shown."""
        form = form_of(page)
        headers = {"Origin": self.site.origin}
        return self.http.post(form["target"], data={"csrf": form["csrf"], "action": action, **more}, headers=headers)

    def log_in(
        self, username: str = "harper@example.org", password: str = PASSWORD, **changes: str | None
    ) -> httpx2.Response:
        page = self.open(f"/v2/oauth2/authorize?{self.query(**changes)}")
        return self.submit(page, "login", username=username, password=password)

    def code(self, username: str = "harper@example.org", **changes: str | None) -> str:
        return code_in(self.log_in(username, **changes))

    def trade(self, code: str, **changes: str | None) -> httpx2.Response:
        form: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "client_id": NATIVE_CLIENT,
            "code": code,
            "code_verifier": self.verifier,
            "redirect_uri": self.site.origin + CODE_PAGE,
        }
        return self.token({name: value for name, value in (form | changes).items() if value is not None})

    def token(self, form: dict[str, str], **options: Any) -> httpx2.Response:
        return self.http.post("/v2/oauth2/token", data=form, **options)

    def tokens(self, username: str = "harper@example.org", **changes: str | None) -> dict[str, Any]:
        answer = self.trade(self.code(username, **changes))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def refresh(self, token: str, **more: str) -> httpx2.Response:
        return self.token({"grant_type": "refresh_token", "refresh_token": token, "client_id": NATIVE_CLIENT, **more})


def form_of(page: httpx2.Response) -> dict[str, str]:
    target = re.search(r'<form method="post" action="([^"]+)"', page.text)
    csrf = re.search(r'name="csrf" value="([0-9a-f]{64})"', page.text)
    assert target, page.text
    assert csrf, page.text
    return {"target": unescape(target[1]), "csrf": csrf[1]}


def code_in(answer: httpx2.Response) -> str:
    assert answer.status_code == 303, answer.text
    return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("identity")) as running:
        yield running


@pytest.fixture
def browser(site: Site) -> Iterator[Browser]:
    person = Browser(site)
    yield person
    person.http.close()
