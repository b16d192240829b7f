"""A Hub in memory, behind the HTTP interface that `huggingface_hub` speaks with its Xet uploads switched off: repositories, uploads by
LFS and in commits, listings, downloads with their headers, and tokens that may write.
"""

import base64
import fnmatch
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


LARGE = ("*.safetensors", "*.parquet", "*.bin", "*.pt", "*.pth")
KINDS = {"models": "model", "datasets": "dataset"}
NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
OF_API = rf"/api/(?P<kind>models|datasets)/{NAME}"
OF_PAGE = rf"/(?P<kind>datasets/)?{NAME}"


@dataclass
class Repository:
    """The files of each branch and commit by path, and what was said with the commits."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})
    branches: dict[str, str] = field(default_factory=lambda: {"main": "0" * 40})
    messages: list[str] = field(default_factory=list)

    def commit_of(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.commit_of(revision)]

    def commit(self, revision: str, files: dict[str, bytes], message: str) -> str:
        sha = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[revision] = sha
        self.messages.append(message)
        return sha


class Refused(Exception):
    """An answer other than 200, with the code that the client makes an error of."""

    def __init__(self, status: int, code: str, commit: str | None = None):
        super().__init__(code)
        self.status, self.code, self.commit = status, code, commit


class Hub:
    """Repositories by kind and name (`hub.repositories["model", "me/agent"]`).

    Args:
        tokens (`set[str]`): those that may write, and read what is private.
    """

    def __init__(self, tokens: set[str]):
        self.tokens = tokens
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []

    def files(self, name: str, kind: str = "model", revision: str = "main") -> dict[str, bytes]:
        return self.repositories[kind, name].files(revision)

    # Answers, by what the address looks like

    def create(self, request):
        self.check_token(request)
        wanted = request.json()
        name, kind = f"{wanted.get('organization') or 'me'}/{wanted['name']}", wanted.get("type", "model")
        url = f"{request.endpoint}/{'' if kind == 'model' else kind + 's/'}{name}"
        exists = (kind, name) in self.repositories
        if not exists:
            private = wanted.get("private") or wanted.get("visibility") == "private"
            self.repositories[kind, name] = Repository(bool(private))
        return {"url": url, "name": name}, {}, 409 if exists else 200

    def whoami(self, request):
        self.check_token(request)
        return {"name": "me", "type": "user", "orgs": [], "auth": {"type": "access_token"}}

    def validate_card(self, request):
        metadata = re.match(r"---\n(.*?)\n---", request.json()["content"], flags=re.DOTALL)
        try:
            errors = [] if metadata and isinstance(yaml.safe_load(metadata[1]), dict) else ["no metadata"]
        except yaml.YAMLError as error:
            errors = [str(error)]
        return {"errors": errors, "warnings": []}, {}, 400 if errors else 200

    def create_branch(self, request, kind, name, revision):
        repository = self.repository(request, KINDS[kind], name, to_write=True)
        if revision in repository.branches:
            raise Refused(409, "Conflict")
        repository.branches[revision] = repository.branches["main"]
        return {}

    def preupload(self, request, kind, name, revision):
        self.commit_of(self.repository(request, KINDS[kind], name, to_write=True), revision)
        large = {
            item["path"]: any(fnmatch.fnmatch(item["path"], each) for each in LARGE)
            for item in request.json()["files"]
        }
        return {
            "files": [
                {"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
                for path, is_large in large.items()
            ]
        }

    def large_files(self, request, kind, name):
        self.repository(request, "dataset" if kind else "model", name, to_write=True)
        objects = [{"oid": item["oid"], "size": item["size"]} for item in request.json()["objects"]]
        for item in objects:
            if item["oid"] not in self.large:
                item["actions"] = {"upload": {"href": f"{request.endpoint}/lfs/{item['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    def upload_large(self, request, oid):
        if hashlib.sha256(request.body).hexdigest() != oid:
            raise Refused(400, "BadContent")
        self.large[oid] = request.body
        return b""

    def commit(self, request, kind, name, revision):
        repository = self.repository(request, KINDS[kind], name, to_write=True)
        files, message = dict(repository.commits[self.commit_of(repository, revision)]), ""
        for line in request.body.splitlines():
            what, value = json.loads(line)["key"], json.loads(line)["value"]
            if what == "header":
                message = value["summary"]
            elif what == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif what == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            elif what == "deletedFile":
                del files[value["path"]]
            else:
                raise Refused(400, f"Unknown operation {what}")
        if "create_pr" in request.query:
            revision = f"refs/pr/{len(repository.branches)}"
        sha = repository.commit(revision, files, message)
        url = f"{request.endpoint}/{'' if kind == 'models' else kind + '/'}{name}"
        return {
            "success": True,
            "commitOid": sha,
            "commitUrl": f"{url}/commit/{sha}",
            "pullRequestUrl": f"{url}/discussions/1",
        }

    def information(self, request, kind, name, revision="main"):
        repository = self.repository(request, KINDS[kind], name)
        sha = self.commit_of(repository, revision)
        return {
            "id": name,
            "sha": sha,
            "private": repository.private,
            "siblings": [{"rfilename": path} for path in repository.commits[sha]],
            "tags": [],
        }

    def tree(self, request, kind, name, revision, folder=None):
        files = self.repository_files(request, KINDS[kind], name, revision)
        inside = f"{folder}/" if folder else ""
        paths = [path for path in files if path.startswith(inside)]
        if folder and not paths:
            raise Refused(404, "EntryNotFound")
        if "recursive" not in request.query:
            folders = sorted(
                {inside + path[len(inside) :].split("/")[0] for path in paths if "/" in path[len(inside) :]}
            )
            paths = [path for path in paths if "/" not in path[len(inside) :]]
        else:
            folders = sorted({path.rsplit("/", 1)[0] for path in paths if "/" in path[len(inside) :]})
        return [described(path, files[path]) for path in paths] + [described(path, None) for path in folders]

    def paths_info(self, request, kind, name, revision):
        files = self.repository_files(request, KINDS[kind], name, revision)
        found = []
        for path in request.asked_paths():
            if path in files:
                found.append(described(path, files[path]))
            elif any(other.startswith(f"{path}/") for other in files):
                found.append(described(path, None))
        return found

    def resolve(self, request, kind, name, revision, path):
        repository = self.repository(request, "dataset" if kind else "model", name)
        sha = self.commit_of(repository, revision)
        content = repository.commits[sha].get(path)
        if content is None:
            raise Refused(404, "EntryNotFound", sha)
        return content, {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}, 200

    # Who may what

    def check_token(self, request) -> None:
        if request.token not in self.tokens:
            raise Refused(401, "Unauthorized")

    def repository(self, request, kind: str, name: str, to_write: bool = False) -> Repository:
        repository = self.repositories.get((kind, name))
        if to_write and request.token not in self.tokens:
            raise Refused(401, "Unauthorized")
        if repository is None or repository.private and request.token not in self.tokens:
            raise Refused(404 if request.token in self.tokens else 401, "RepoNotFound")
        return repository

    def repository_files(self, request, kind: str, name: str, revision: str) -> dict[str, bytes]:
        repository = self.repository(request, kind, name)
        return repository.commits[self.commit_of(repository, revision)]

    @staticmethod
    def commit_of(repository: Repository, revision: str) -> str:
        sha = repository.commit_of(revision)
        if sha is None:
            raise Refused(404, "RevisionNotFound")
        return sha


ROUTES = [
    ("POST", r"/api/repos/create", Hub.create),
    ("GET", r"/api/whoami-v2", Hub.whoami),
    ("POST", r"/api/validate-yaml", Hub.validate_card),
    ("POST", rf"{OF_API}/branch/(?P<revision>.+)", Hub.create_branch),
    ("POST", rf"{OF_API}/preupload/(?P<revision>.+)", Hub.preupload),
    ("POST", rf"{OF_API}/commit/(?P<revision>.+)", Hub.commit),
    ("POST", rf"{OF_API}/paths-info/(?P<revision>.+)", Hub.paths_info),
    ("GET", rf"{OF_API}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", Hub.tree),
    ("GET", rf"{OF_API}(/revision/(?P<revision>.+))?", Hub.information),
    ("POST", rf"{OF_PAGE}\.git/info/lfs/objects/batch", Hub.large_files),
    ("PUT", r"/lfs/(?P<oid>\w+)", Hub.upload_large),
    ("GET", rf"{OF_PAGE}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Hub.resolve),
]


def described(path: str, content: bytes | None) -> dict:
    """An entry of a listing; a folder has no content."""
    if content is None:
        return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest()}
    return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


class Answers(BaseHTTPRequestHandler):
    """One request: its parts by name, and the answer of the first route that fits."""

    hub: Hub

    def answer(self):
        address = urlsplit(self.path)
        self.query = parse_qs(address.query, keep_blank_values=True)
        if self.query.get("recursive") == ["False"] or self.query.get("recursive") == ["false"]:
            del self.query["recursive"]
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.endpoint = f"http://{self.headers['Host']}"
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} {self.path}")
        headers, status = {}, 200
        try:
            content = self.routed(address.path)
            if isinstance(content, tuple):
                content, headers, status = content
        except Refused as refused:
            content, status = {"error": refused.code}, refused.status
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.code}
            headers |= {"X-Repo-Commit": refused.commit} if refused.commit else {}
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def routed(self, path: str):
        method = {"HEAD": "GET"}.get(self.command, self.command)
        for wanted, pattern, answer in ROUTES:
            found = re.fullmatch(pattern, path)
            if wanted == method and found:
                parts = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
                if answer in (Hub.resolve, Hub.large_files):
                    parts.setdefault("kind", "")
                return answer(self.hub, self, **parts)
        raise Refused(404, f"no such address: {self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def json(self):
        return json.loads(self.body)

    def asked_paths(self) -> list[str]:
        """The paths of a form or of JSON."""
        if "json" in (self.headers.get("Content-Type") or ""):
            return self.json()["paths"]
        return parse_qs(self.body.decode()).get("paths", [])

    def log_message(self, *args):
        pass


@contextmanager
def running_hub(*tokens: str):
    """`(hub, endpoint)` of a Hub that these tokens may write to, while the block lasts."""
    hub = Hub(set(tokens))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("AnswersOfHub", (Answers,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
