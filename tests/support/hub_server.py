"""A server that speaks the Hugging Face hub's protocol, for its real client: ``HF_ENDPOINT``.

Repositories are folders below one place, each with one commit. Downloads (with ranges), uploads
(regular and LFS), gated and unknown repositories, unknown revisions, and a connection that breaks.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "hf_right"
LFS_BYTES = 1_000
"""Uploads of so many bytes go to large file storage."""


class HubServer:
    """The hub; `repos` maps ``datasets/owner/name`` or ``models/owner/name`` to a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.repos: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.cards: dict[str, dict[str, Any]] = {}
        self.break_after: int | None = None
        """Bytes of a file after which the connection breaks, once."""
        self.asked: list[str] = []
        self.objects: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def add(self, name: str, kind: str = "datasets", **card: Any) -> Path:
        """A new repository; its files are whatever is in its folder."""
        folder = self.place / kind / name
        folder.mkdir(parents=True)
        self.repos[f"{kind}/{name}"], self.cards[f"{kind}/{name}"] = folder, card
        return folder

    def commit(self, repo: str) -> str:
        """The commit of a repository: a hash of its files."""
        digest = hashlib.sha1()
        for path in files_of(self.repos[repo]):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        path, _, _ = request.path.partition("?")
        self.asked.append(f"{request.command} {path}")
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length) if length else read_chunks(request)
        for pattern, method in ROUTES:
            if found := re.fullmatch(pattern, path):
                method(self, request, body, **found.groupdict())
                return
        send(request, 404, {"error": f"no route for {path}"})

    def refused(self, request: BaseHTTPRequestHandler, repo: str, revision: str) -> bool:
        """Refuse what the hub refuses, in its words."""
        authorised = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo not in self.repos:
            send(request, 401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif repo in self.gated and not authorised:
            send(request, 403, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
        elif revision not in ("main", self.commit(repo)):
            code = {"X-Error-Code": "RevisionNotFound"}
            send(request, 404, {"error": f"Invalid rev id: {revision}"}, code)
        else:
            return False
        return True

    def info(
        self,
        request: BaseHTTPRequestHandler,
        _: bytes,
        kind: str,
        name: str,
        revision: str = "main",
    ) -> None:
        """A repository's commit, files and card."""
        repo = f"{kind}/{name}"
        if self.refused(request, repo, revision):
            return
        siblings = [
            {"rfilename": relative(self.repos[repo], path), "size": path.stat().st_size}
            for path in files_of(self.repos[repo])
        ]
        sha = self.commit(repo)
        found = {"id": name, "sha": sha, "siblings": siblings, "cardData": self.cards[repo]}
        send(request, 200, {**found, "private": False, "tags": [], "downloads": 0, "likes": 0})

    def tree(
        self, request: BaseHTTPRequestHandler, _: bytes, kind: str, name: str, revision: str
    ) -> None:
        """All files of a commit."""
        repo = f"{kind}/{name}"
        if not self.refused(request, repo, revision):
            send(
                request,
                200,
                [
                    {
                        "type": "file",
                        "path": relative(self.repos[repo], path),
                        "size": path.stat().st_size,
                        "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
                    }
                    for path in files_of(self.repos[repo])
                ],
            )

    def resolve(
        self,
        request: BaseHTTPRequestHandler,
        _: bytes,
        name: str,
        revision: str,
        file: str,
        kind: str = "models",
    ) -> None:
        """A file, or the rest of it."""
        repo = f"{kind}/{name}"
        if self.refused(request, repo, revision):
            return
        path = self.repos[repo] / file
        if not path.is_file():
            code = {"X-Error-Code": "EntryNotFound"}
            send(request, 404, {"error": f"{file} does not exist"}, code)
            return
        content = path.read_bytes()
        start = 0
        if asked := re.match(r"bytes=(\d+)-", request.headers.get("Range") or ""):
            start = int(asked[1])
        request.send_response(206 if start else 200)
        request.send_header("X-Repo-Commit", self.commit(repo))
        request.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        request.send_header("Content-Length", str(len(content) - start))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.end_headers()
        if request.command == "HEAD":
            return
        if self.break_after is not None and len(content) > self.break_after:
            request.wfile.write(content[start : self.break_after])
            self.break_after = None
            request.close_connection = True
            request.connection.close()
            return
        request.wfile.write(content[start:])

    def create(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        """A new repository of the caller's."""
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            send(request, 401, {"error": "Invalid username or password."})
            return
        asked = json.loads(body)
        kind, owner = f"{asked.get('type', 'model')}s", asked.get("organization") or "me"
        name = f"{owner}/{asked['name']}"
        if f"{kind}/{name}" in self.repos:
            send(
                request,
                409,
                {"error": "You already created this repo", "url": f"{self.url}/{name}"},
            )
            return
        self.add(name, kind)
        send(request, 200, {"url": f"{self.url}/{name}", "id": name})

    def preupload(
        self, request: BaseHTTPRequestHandler, body: bytes, kind: str, name: str, revision: str
    ) -> None:
        """Which files go to large file storage."""
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] >= LFS_BYTES else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        send(request, 200, {"files": files})

    def batch(self, request: BaseHTTPRequestHandler, body: bytes, name: str) -> None:
        """Where to upload large files."""
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.url}/objects/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        send(request, 200, {"transfer": "basic", "objects": objects})

    def upload(self, request: BaseHTTPRequestHandler, body: bytes, oid: str) -> None:
        """Take a large file."""
        assert hashlib.sha256(body).hexdigest() == oid
        self.objects[oid] = body
        send(request, 200, {})

    def commit_files(
        self, request: BaseHTTPRequestHandler, body: bytes, kind: str, name: str, revision: str
    ) -> None:
        """A commit: lines of JSON."""
        folder = self.repos[f"{kind}/{name}"]
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] in ("file", "lfsFile"):
                path = folder / value["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                regular = entry["key"] == "file"
                content = (
                    base64.b64decode(value["content"]) if regular else self.objects[value["oid"]]
                )
                path.write_bytes(content)
        commit = self.commit(f"{kind}/{name}")
        url = f"{self.url}/{name}/commit/{commit}"
        send(request, 200, {"commitUrl": url, "commitOid": commit, "pullRequestUrl": None})

    def valid(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        """A card's front matter is right."""
        send(request, 200, {"errors": [], "warnings": []})


NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
KIND = r"(?P<kind>models|datasets)"
ROUTES: list[tuple[str, Any]] = [
    (rf"/api/{KIND}/{NAME}/preupload/(?P<revision>[^/]+)", HubServer.preupload),
    (rf"/api/{KIND}/{NAME}/commit/(?P<revision>[^/]+)", HubServer.commit_files),
    (rf"/api/{KIND}/{NAME}/tree/(?P<revision>[^/]+)", HubServer.tree),
    (rf"/api/{KIND}/{NAME}/revision/(?P<revision>[^/]+)", HubServer.info),
    (rf"/api/{KIND}/{NAME}", HubServer.info),
    (r"/api/repos/create", HubServer.create),
    (r"/api/validate-yaml", HubServer.valid),
    (rf"/(?:datasets/)?{NAME}\.git/info/lfs/objects/batch", HubServer.batch),
    (r"/objects/(?P<oid>[0-9a-f]{64})", HubServer.upload),
    (rf"/(?P<kind>datasets)/{NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", HubServer.resolve),
    (rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", HubServer.resolve),
]


def send(
    request: BaseHTTPRequestHandler, status: int, body: Any, headers: dict[str, str] | None = None
) -> None:
    """Send JSON."""
    content = json.dumps(body).encode()
    request.send_response(status)
    for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(content)


def read_chunks(request: BaseHTTPRequestHandler) -> bytes:
    """A body that is sent in chunks."""
    body = b""
    if request.headers.get("Transfer-Encoding") == "chunked":
        while size := int(request.rfile.readline(), 16):
            body += request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
    return body


def files_of(folder: Path) -> list[Path]:
    """All files of a repository."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def relative(folder: Path, path: Path) -> str:
    """A file's name in its repository."""
    return path.relative_to(folder).as_posix()


@contextmanager
def hub_server(place: Path) -> Iterator[HubServer]:
    """A hub in a thread."""
    hub = HubServer(place)
    threading.Thread(target=hub.server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
