"""The OpenAI-compatible backend against a real HTTP server that misbehaves by script."""

import base64
import json
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from apps.documents.embedding import EmbeddingError, get_embedder
from apps.documents.embedding.fake import FakeEmbedder
from apps.documents.embedding.local import packaged_model_dir
from apps.documents.embedding.openai_compatible import OpenAICompatibleEmbedder, estimate_tokens

DIMENSIONS = 16
SECRET = "sk-secret"
TEXTS = [f"passage {i} " + "word " * (i % 11) for i in range(50)]


class Handler(BaseHTTPRequestHandler):
    """Takes the next step of the server's script for each request; an empty script means "ok"."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append((self.path, self.headers, body))
            step = self.server.script.popleft() if self.server.script else "ok"
        if isinstance(step, int):
            return self.answer(step, {"error": {"message": f"echo: {body['input'][0]}"}})
        if step == "stall":
            time.sleep(3)
        if step == "hang up":
            return self.connection.close()
        vectors = 3 * FakeEmbedder(dimensions=DIMENSIONS).embed(body["input"])
        if step == "wrong dimensions":
            vectors = vectors[:, :-1]
        if step in ("nan", "zero"):
            vectors[-1] = np.nan if step == "nan" else 0
        packed = body["encoding_format"] == "base64" and step != "floats"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode() if packed else vector.tolist(),
            }
            for index, vector in enumerate(vectors)
        ]
        if step == "shuffled":
            data = data[1::2] + data[::2]
        if step == "one missing":
            data = data[:-1]
        if step == "bad base64":
            data[0]["embedding"] = "%%%"
        payload = {"object": "list", "model": body["model"], "data": data, "usage": {"total_tokens": 1}}
        self.answer(200, {"no": "data"} if step == "garbage" else payload, raw=step == "html")

    def answer(self, status, payload, *, raw=False):
        content = b"<html>proxy</html>" if raw else json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if raw else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        """Keep the test output quiet."""


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Clients that give up on a stalled request are part of the script."""


@pytest.fixture
def server():
    httpd = QuietServer(("127.0.0.1", 0), Handler)
    httpd.script, httpd.requests, httpd.lock = deque(), [], threading.Lock()
    threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def connect(server):
    def connect(**kwargs):
        url = f"http://127.0.0.1:{server.server_port}/v1"
        defaults = {"model": "served", "dimensions": DIMENSIONS, "api_key": SECRET, "max_retries": 2}
        return OpenAICompatibleEmbedder(url=url, **defaults | kwargs)

    return connect


EXPECTED = FakeEmbedder(dimensions=DIMENSIONS).embed(TEXTS)


@pytest.mark.parametrize("encoding_format", ["base64", "float"])
def test_vectors_come_back_normalised_and_in_input_order(server, connect, encoding_format):
    vectors = connect(encoding_format=encoding_format, max_texts=7).embed(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, EXPECTED, atol=1e-6)
    path, headers, body = server.requests[0]
    assert path == "/v1/embeddings" and headers["Authorization"] == f"Bearer {SECRET}"
    assert body["model"] == "served" and "dimensions" not in body
    assert sorted(text for _, _, body in server.requests for text in body["input"]) == sorted(TEXTS)


@pytest.mark.parametrize("step", ["shuffled", "floats"])
def test_order_and_encoding_are_taken_from_the_response(server, connect, step):
    server.script.extend([step] * 10)
    np.testing.assert_allclose(connect().embed(TEXTS), EXPECTED, atol=1e-6)


def test_requests_respect_both_limits(server, connect):
    embedder = connect(max_texts=5, budget=60)
    embedder.embed(TEXTS)
    for _, _, body in server.requests:
        assert len(body["input"]) <= 5
        assert len(body["input"]) * max(embedder.count(body["input"])) <= 60


def test_nothing_sends_nothing(server, connect):
    assert connect().embed([]).shape == (0, DIMENSIONS) and server.requests == []


@pytest.mark.parametrize("step", [429, 500, 503, "hang up", "stall"])
def test_a_passing_failure_is_retried(server, connect, step):
    server.script.append(step)
    vectors = connect(timeout=1 if step == "stall" else 20).embed(TEXTS[:3])
    np.testing.assert_allclose(vectors, EXPECTED[:3], atol=1e-6)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("step", "code"),
    [(429, "rate_limited"), (500, "server_error"), ("hang up", "unreachable"), ("stall", "timeout")],
)
def test_a_lasting_failure_ends_after_bounded_retries(server, connect, step, code):
    server.script.extend([step] * 10)
    with pytest.raises(EmbeddingError) as caught:
        connect(timeout=0.5 if step == "stall" else 20, max_retries=1).embed(TEXTS[:3])
    assert (caught.value.code, caught.value.retryable) == (code, True)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("step", "code", "retryable"),
    [
        (400, "rejected", False),
        (401, "unauthorized", False),
        (404, "rejected", False),
        ("wrong dimensions", "wrong_dimensions", False),
        ("nan", "not_finite", False),
        ("zero", "zero_vector", False),
        ("one missing", "bad_response", True),
        ("bad base64", "bad_response", True),
        ("garbage", "bad_response", True),
        ("html", "bad_response", True),
    ],
)
def test_an_unusable_answer_is_an_error_and_tells_no_secrets(server, connect, step, code, retryable):
    server.script.append(step)
    with pytest.raises(EmbeddingError) as caught:
        connect().embed(["confidential text", "another"])
    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    assert "confidential" not in str(caught.value) and SECRET not in str(caught.value)
    assert len(server.requests) == 1


def test_one_failing_batch_fails_the_call(server, connect):
    server.script.extend(["ok", "nan"])
    with pytest.raises(EmbeddingError, match="NaN"):
        connect(max_texts=10).embed(TEXTS)


def test_a_lone_surrogate_is_refused_before_it_is_sent(server, connect):
    with pytest.raises(EmbeddingError) as caught:
        connect().embed(["\ud800"])
    assert caught.value.code == "invalid_text" and server.requests == []


def test_dimensions_are_requested_when_asked_for(server, connect):
    connect(request_dimensions=True).embed(["x"])
    assert server.requests[0][2]["dimensions"] == DIMENSIONS


def test_the_door_builds_a_working_client(server):
    url = f"http://127.0.0.1:{server.server_port}/v1"
    embedder = get_embedder("openai", model="served", dimensions=DIMENSIONS, url=url)
    np.testing.assert_allclose(embedder.embed(TEXTS[:2]), EXPECTED[:2], atol=1e-6)


# Counting


@pytest.mark.skipif(packaged_model_dir() is None, reason="weights missing: requirements-model.txt")
def test_a_tokenizer_makes_counts_exact_and_cuts_long_texts(server, connect):
    embedder = connect(tokenizer_file=packaged_model_dir() / "tokenizer.json", max_tokens=4)
    assert embedder.count(["hello world", "embeddings", ""]) == [2, 4, 0]
    embedder.embed(["one two three four five six", "short"])
    assert server.requests[0][2]["input"] == ["one two three four", "short"]


def test_a_missing_tokenizer_is_named(connect, tmp_path):
    with pytest.raises(EmbeddingError, match=r"nowhere\.json") as caught:
        connect(tokenizer_file=tmp_path / "nowhere.json")
    assert caught.value.code == "tokenizer_missing"


@pytest.mark.skipif(packaged_model_dir() is None, reason="weights missing: requirements-model.txt")
@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox jumps over the lazy dog while antidisestablishmentarianism persists.",
        "def embed(texts): return [model(x)**2 for x in texts if x != '']  # 3.14159",
        "検索エンジンは文書を見つける。数据库系统",
        "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
        "Съешь же ещё этих мягких французских булок, да выпей чаю.",
        "🦊🚀🎉 ok 👩‍👩‍👧",
        "https://example.org/a/b?c=d&e=f#g 192.168.0.1 2026-11-21T09:00:00Z",
    ],
)
def test_the_estimate_errs_upwards(text):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(packaged_model_dir() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    exact = len(tokenizer.encode(text, add_special_tokens=False).ids)
    assert exact <= estimate_tokens(text) <= len(text.encode())


def test_the_estimate_of_nothing_is_nothing():
    assert estimate_tokens("") == 0 and estimate_tokens(" \n\t") == 0
