"""Games by a served model, against a server in this process that has vLLM's interface; nothing here runs vLLM."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from toy_game import GuessNumber
from transformers import GenerationConfig

from boost_trl import rollout
from boost_trl.environments.policies import GenerationPolicy
from boost_trl.environments.served_model import ServedModel


@pytest.fixture
def model(make_tiny_model):
    return make_tiny_model().eval()


@pytest.fixture
def server(model):
    """Answers completions for token ids as vLLM does, in any order of its choices."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((self.path, asked))
            if asked["model"] == "another":
                return self.send_error(404, "no such model")
            choices = []
            for index, prompt in enumerate(asked["prompt"]):
                sampling = {"temperature": asked["temperature"], "top_k": asked["top_k"], "top_p": asked["top_p"]}
                ids = model.generate(
                    torch.tensor([prompt]),
                    attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                    max_new_tokens=asked["max_tokens"],
                    eos_token_id=asked["stop_token_ids"],
                    **(sampling | {"do_sample": True} if asked["temperature"] else {"do_sample": False}),
                )
                choices.append({"index": index, "token_ids": ids[0, len(prompt) :].tolist()})
            body = json.dumps({"choices": choices[::-1]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", requests
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path)
    return str(tmp_path)


CONVERSATIONS = [[{"role": "user", "content": text}] for text in ("yes .", "is it big ?", "maybe yes .")]


def test_the_likeliest_replies_are_those_of_the_model_in_this_process(server, folder, model, tiny_tokenizer):
    greedy = {"generation_config": GenerationConfig(do_sample=False), "max_new_tokens": 6}
    served = GenerationPolicy(ServedModel(folder, server[0]), tiny_tokenizer, **greedy)
    assert served(CONVERSATIONS) == GenerationPolicy(model, tiny_tokenizer, **greedy)(CONVERSATIONS)
    path, asked = server[1][0]
    assert path == "/v1/completions" and asked["return_token_ids"] and asked["temperature"] == 0
    # Without padding, which the server would take for a part of the prompt.
    assert len({len(prompt) for prompt in asked["prompt"]}) > 1


def test_games_are_played_and_a_seed_asks_the_server_for_the_same(server, folder, tiny_tokenizer):
    games = [
        rollout((ServedModel(folder, server[0]), tiny_tokenizer), GuessNumber(), GuessNumber().tasks()[:2], seed=3)
        for _ in range(2)
    ]
    assert all(len(rows) == 2 and rows["messages"][0] for rows in games)
    seeds = [asked["seed"] for _, asked in server[1]]
    assert server[1][0][1]["temperature"] == 1 and seeds[0] == seeds[len(seeds) // 2]


def test_a_server_that_is_not_there_or_refuses_is_named(server, folder, tiny_tokenizer):
    with pytest.raises(ConnectionError, match="vllm serve"):
        GenerationPolicy(ServedModel(folder, "http://127.0.0.1:9"), tiny_tokenizer)(CONVERSATIONS)
    model = ServedModel(folder, server[0])
    model.name_or_path = "another"
    with pytest.raises(ConnectionError, match="404"):
        GenerationPolicy(model, tiny_tokenizer)(CONVERSATIONS)
