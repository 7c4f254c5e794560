"""The reranking backends against a real HTTP server that misbehaves by script."""

from __future__ import annotations

import logging
import socket
import sys
import types
from collections.abc import Iterator

import pytest

from apps.retrieval.rerank import RerankError
from apps.retrieval.rerank.cross_encoder import CrossEncoderReranker
from apps.retrieval.rerank.fake import FakeReranker
from apps.retrieval.rerank.served import ServedReranker
from tests.support.fake_reranker import FakeRerankServer, fake_reranker

TEXTS = ["Otters swim.", "Pangolins have scales.", "Do pangolins swim?", ""]
QUERY = "do pangolins swim"
SECRET = "sk-secret"


@pytest.fixture(scope="module")
def running() -> Iterator[FakeRerankServer]:
    with fake_reranker() as server:
        yield server


@pytest.fixture
def server(running: FakeRerankServer) -> FakeRerankServer:
    running.requests.clear()
    running.during = None
    return running


def client(server: FakeRerankServer, path: str = "/v1/rerank", **options: object) -> ServedReranker:
    return ServedReranker(url=server.url + path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score"])
def test_scores_come_in_the_order_of_the_texts(server: FakeRerankServer, path: str) -> None:
    assert client(server, path).scores(QUERY, TEXTS) == FakeReranker().scores(QUERY, TEXTS) == [1 / 3, 1 / 3, 1.0, 0.0]


def test_each_protocol_is_spoken_as_its_servers_know_it(server: FakeRerankServer) -> None:
    client(server, "/v1/rerank", model="ranker", api_key=SECRET).scores(QUERY, TEXTS)
    client(server, "/score", model="ranker").scores(QUERY, TEXTS)
    client(server, "/score").scores(QUERY, TEXTS)
    (path, headers, body), (_, bare, scored), (_, _, nameless) = server.requests
    assert path == "/v1/rerank" and headers["authorization"] == f"Bearer {SECRET}" and "authorization" not in bare
    assert body == {"model": "ranker", "query": QUERY, "documents": TEXTS, "top_n": len(TEXTS)}
    assert scored == {"model": "ranker", "text_1": QUERY, "text_2": TEXTS, "truncate_prompt_tokens": -1}
    assert "model" not in nameless


def test_no_texts_are_no_request(server: FakeRerankServer) -> None:
    assert client(server).scores(QUERY, []) == [] and server.requests == []


@pytest.mark.parametrize("path", ["/rerank", "/score"])
@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("429", "rate_limited"),
        ("500", "server_error"),
        ("503", "server_error"),
        ("401", "unauthorized"),
        ("404", "rejected"),
        ("302", "rejected"),
        ("slow", "timeout"),
        ("drip", "timeout"),
        ("cut", "bad_response"),
        *(
            (script, "bad_response")
            for script in ("html", "garbage", "short", "twice", "beyond", "nan", "text", "flag")
        ),
        *((script, "bad_response") for script in ("deep", "huge")),
    ],
)
def test_what_goes_wrong_has_a_code_and_is_tried_once(
    server: FakeRerankServer, path: str, script: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    patient = client(server, path, api_key=SECRET, timeout=0.5 if code == "timeout" else 30)
    with pytest.raises(RerankError) as caught:
        patient.scores(f"private words script:{script}", TEXTS)
    assert caught.value.code == code and len(server.requests) == 1
    assert "private words" not in str(caught.value) + caplog.text and SECRET not in str(caught.value) + caplog.text


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(RerankError) as caught:
            ServedReranker(url=f"http://127.0.0.1:{taken.getsockname()[1]}/rerank").scores(QUERY, TEXTS)
    assert caught.value.code == "unreachable"


def test_a_client_goes_on_after_a_failure(server: FakeRerankServer) -> None:
    one = client(server)
    for script in ("500", "short", "cut"):
        with pytest.raises(RerankError):
            one.scores(f"script:{script}", TEXTS)
        assert one.scores(QUERY, TEXTS)[2] == 1.0


def test_without_sentence_transformers_the_cross_encoder_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(RerankError) as caught:
        CrossEncoderReranker(model="any").scores(QUERY, TEXTS)
    assert caught.value.code == "unavailable"


def test_the_cross_encoder_is_given_pairs_and_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is not among those that tests need: this is its interface, and what the backend makes of it."""
    loaded: list[str] = []

    class CrossEncoder:
        def __init__(self, name: str) -> None:
            loaded.append(name)

        def predict(self, pairs: list[tuple[str, str]], *, batch_size: int, show_progress_bar: bool) -> list[float]:
            assert batch_size > 0 and not show_progress_bar
            return FakeReranker().scores(pairs[0][0], [text for _, text in pairs])

    module = types.ModuleType("sentence_transformers")
    module.CrossEncoder = CrossEncoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    backend = CrossEncoderReranker(model="cross/encoder")
    assert loaded == []
    for _ in range(2):
        assert backend.scores(QUERY, TEXTS) == FakeReranker().scores(QUERY, TEXTS)
    assert loaded == ["cross/encoder"]
