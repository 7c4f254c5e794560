"""A served reranker over HTTP. The address tells the protocol:

.../rerank  Jina's and Cohere's, which vLLM speaks as well: {model, query, documents} ->
            {results: [{index, relevance_score}]}
.../score   vLLM's: {model, text_1, text_2} -> {data: [{index, score}]}
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import Any

from .base import RerankError

CONNECT_SECONDS = 2.0
#: Of a response. Some servers send the texts back with their scores.
MAX_BYTES = 32 * 2**20


class ServedReranker:
    """Implements `Reranker`. One attempt: whoever searches has an order already, and should not wait for a second."""

    backend = "http"

    def __init__(self, *, url: str, model: str = "", api_key: str = "", timeout: float = 5.0) -> None:
        """timeout: seconds for the whole call. model: may be left out where a server has only one."""
        import httpx  # not with the module: most processes never rerank

        self.model = model
        self._url = url
        self._timeout = timeout
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=8),
        )

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """As the server gives them, in the order of the texts. Raises RerankError."""
        if not texts:
            return []
        named = {"model": self.model} if self.model else {}
        if self._url.endswith("/score"):
            # What is longer than the model's window is cut to it. (/rerank has no word for that which all understand.)
            body = {"text_1": query, "text_2": list(texts), "truncate_prompt_tokens": -1}
            return _read(self._post(named | body), "data", "score", len(texts))
        body = {"query": query, "documents": list(texts), "top_n": len(texts)}
        return _read(self._post(named | body), "results", "relevance_score", len(texts))

    def _post(self, body: dict[str, Any]) -> Any:
        import httpx

        deadline = time.monotonic() + self._timeout
        content = bytearray()
        try:
            with self._client.stream("POST", self._url, json=body) as response:
                if response.status_code != 200:
                    raise _status_error(response.status_code)
                for part in response.iter_bytes():
                    content += part
                    if len(content) > MAX_BYTES:
                        raise RerankError("bad_response", "The reranker sent too much.")
                    if time.monotonic() > deadline:  # httpx's limits are for each wait, and a server may drip
                        raise RerankError("timeout", "The reranker did not answer in time.")
            return json.loads(content)
        except httpx.TimeoutException:
            raise RerankError("timeout", "The reranker did not answer in time.") from None
        except (httpx.ProtocolError, httpx.DecodingError):
            raise RerankError("bad_response", "The reranker broke off its response.") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise RerankError("unreachable", "The reranker cannot be reached.") from None
        except (ValueError, RecursionError):
            raise _malformed() from None


def _read(answer: Any, list_name: str, score_name: str, count: int) -> list[float]:
    """The scores by index: each of `count` exactly once, each a finite number. Raises RerankError."""
    rows = answer.get(list_name) if isinstance(answer, dict) else None
    if not isinstance(rows, list) or len(rows) != count or not all(isinstance(row, dict) for row in rows):
        raise _malformed()
    scores: dict[int, float] = {}
    for row in rows:
        index, score = row.get("index"), row.get(score_name)
        if type(index) is not int or type(score) not in (int, float) or not math.isfinite(score):
            raise _malformed()
        scores[index] = float(score)
    if scores.keys() != set(range(count)):
        raise _malformed()
    return [scores[index] for index in range(count)]


def _malformed() -> RerankError:
    return RerankError("bad_response", "The reranker sent something that is no list of scores.")


def _status_error(status: int) -> RerankError:
    if status == 429:
        return RerankError("rate_limited", "The reranker limits the rate (429).")
    if status >= 500:
        return RerankError("server_error", f"The reranker failed ({status}).")
    if status in (401, 403):
        return RerankError("unauthorized", f"The reranker refuses RERANK_API_KEY ({status}).")
    return RerankError("rejected", f"The reranker rejects the request ({status}).")
