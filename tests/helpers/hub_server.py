"""A small hub on this machine: it takes commits and gives them out again, as far as huggingface_hub asks for it."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Hub(ThreadingHTTPServer):
    """``repos`` holds {path: bytes} by name; ``asked`` the requests; with ``refuses`` every write is forbidden."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.commits: list[dict] = []
        self.refuses = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit_of(self, repo: str) -> str:
        """The number of the newest commit, made of the contents."""
        digest = hashlib.sha1()
        for name, content in sorted(self.repos[repo].items()):
            digest.update(name.encode() + content)
        return digest.hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Creation, commits, lists of files, and files."""

    def log_message(self, *_):
        pass

    def answer(self, code: int, body: bytes = b"", **headers) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def say(self, value, code: int = 200) -> None:
        self.answer(code, json.dumps(value).encode(), Content_Type="application/json")

    def do_POST(self):
        hub, path = self.server, urlsplit(self.path).path
        hub.asked.append(f"POST {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if hub.refuses:
            return self.say({"error": "You have no right to write here"}, 403)
        if path == "/api/validate-yaml":  # the card's front matter
            return self.say({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            given = json.loads(body)
            name = "/".join(filter(None, (given.get("organization"), given["name"])))
            hub.repos.setdefault(name, {})
            return self.say({"url": f"{hub.address}/{name}", "name": name})
        repo = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return self.say({"files": [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in files]})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                hub.commits.append(line["value"])
            if line["key"] == "file":
                hub.repos[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        oid = hub.commit_of(repo)
        return self.say({"commitUrl": f"{hub.address}/{repo}/commit/{oid}", "commitOid": oid, "success": True})

    def do_GET(self):
        hub, parts = self.server, urlsplit(self.path).path.strip("/").split("/")
        hub.asked.append(f"{self.command} /{'/'.join(parts)}")
        api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if api else parts[:2])
        if repo not in hub.repos:
            return self.answer(404, X_Error_Code="RepoNotFound")
        files, oid = hub.repos[repo], hub.commit_of(repo)
        if api and "tree" in parts:
            return self.say(
                [{"type": "file", "path": name, "size": len(content), "oid": "0"} for name, content in files.items()]
            )
        if api:
            return self.say({"id": repo, "sha": oid, "siblings": [{"rfilename": name} for name in files]})
        name = "/".join(parts[4:])
        if name not in files:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=oid)
        etag = hashlib.sha1(files[name]).hexdigest()
        return self.answer(200, files[name], ETag=f'"{etag}"', X_Repo_Commit=oid)

    do_HEAD = do_GET


@contextmanager
def running_hub():
    """A hub that answers while this block runs."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
