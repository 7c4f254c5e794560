"""`/api/v1/sources`: created, shown, changed, synced, deleted - and refused in clear words."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents.models import Collection, Source
from apps.documents.sources import verbs
from tests.conftest import make_collection
from tests.support.processes import Server, Workers, wait_for

SOURCES = "/api/v1/sources"


def body(path: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "folder", "name": "Files", "collection": "docs", "settings": {"path": str(path)}, **more}


@pytest.fixture
def source(client: httpx.Client, collection: Collection, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "lamp.md").write_text("# Lamp\n\nThe lamp costs 40 euros.\n")
    (tmp_path / "chair.md").write_text("# Chair\n\nThe chair costs 90 euros.\n")
    made = client.post(SOURCES, json=body(tmp_path))
    assert made.status_code == 201, made.text
    return made.json()


def test_a_new_source_is_shown_whole(client: httpx.Client, source: dict[str, Any], tmp_path: Path) -> None:
    assert source["settings"] == {
        "path": str(tmp_path),
        "include": [],
        "exclude": [],
        "max_bytes": 100 * 2**20,
        "watch": True,
    }
    assert (source["kind"], source["name"], source["collection"]) == ("folder", "Files", "docs")
    assert (source["schedule"], source["enabled"], source["items"]) == (None, True, 0)
    assert source["last_run"] is None and source["open_run"] is None and source["next_run_at"] is None
    assert client.get(f"{SOURCES}/{source['id']}").json() == source
    assert client.get(SOURCES).json()["results"] == [source]
    assert client.get(SOURCES, params={"kind": "web"}).json()["results"] == []
    assert client.get(SOURCES, params={"collection": "docs", "kind": "folder"}).json()["results"] == [source]


def test_a_sync_brings_documents_that_are_found(
    client: httpx.Client, source: dict[str, Any], workers: Workers, tmp_path: Path
) -> None:
    url = f"{SOURCES}/{source['id']}"
    asked = client.post(f"{url}/sync")
    assert asked.status_code == 202 and asked.json()["state"] in ("queued", "running")
    assert asked.json()["source_id"] == source["id"]

    def last() -> dict[str, Any]:
        return client.get(url).json()["last_run"] or {}

    wait_for(lambda: last().get("state") == "done", what="the run")
    assert client.get(url).json()["items"] == 2 and client.get(url).json()["failed_items"] == 0

    def text() -> str:
        found = client.post("/api/v1/search", json={"query": "lamp", "collections": ["docs"], "k": 1}).json()
        return found["results"][0]["text"] if found["results"] else ""

    wait_for(lambda: "40 euros" in text(), what="the document to be live")
    (tmp_path / "lamp.md").write_text("# Lamp\n\nThe lamp costs 45 euros.\n")
    (tmp_path / "chair.md").unlink()
    client.post(f"{url}/sync", json={})
    wait_for(lambda: "45 euros" in text(), what="the new version")
    shown = client.get("/api/v1/documents", params={"collection": "docs"}).json()["results"]
    assert [(each["source_uri"], each["version"]) for each in shown] == [("lamp.md", 2)]
    listed = client.get(f"{url}/runs").json()["results"]
    assert len(listed) >= 2 and {each["source_id"] for each in listed} == {source["id"]}


def test_what_failed_is_listed_whichever_run_met_it(
    client: httpx.Client, source: dict[str, Any], workers: Workers, tmp_path: Path
) -> None:
    """What could not be taken, and what was taken and then not parsed: `last_run` names the former once."""
    url = f"{SOURCES}/{source['id']}"

    def synced(failed: int) -> dict[str, Any]:
        client.post(f"{url}/sync")
        wait_for(lambda: client.get(url).json()["failed_items"] == failed, what=f"{failed} failed items")
        wait_for(lambda: client.get(url).json()["open_run"] is None, what="the end of the run")
        return client.get(url).json()

    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 broken")
    assert synced(2)["items"] == 3
    live = {"source_uri": "lamp.md", "state": "live"}
    wait_for(lambda: client.get("/api/v1/documents", params=live).json()["results"], what="the lamp")
    (tmp_path / "lamp.md").write_bytes(b"%PDF-1.4 broken, too")
    shown = synced(3)
    assert [each["source_uri"] for each in shown["last_run"]["failures"]] == [] and shown["items"] == 3
    assert client.get(SOURCES).json()["results"] == [shown]
    failed = client.get(f"{url}/items", params={"failed": "true"}).json()
    told = [(each["source_uri"], each["document_state"], each["live_version"]) for each in failed["results"]]
    assert told == [("broken.pdf", "failed", None), ("empty.txt", None, None), ("lamp.md", "stale", 1)]
    codes = [each["error"]["code"] for each in failed["results"]]
    assert codes[1] == "empty" and failed["next"] is None
    for each in (failed["results"][0], failed["results"][2]):
        assert client.get(f"/api/v1/documents/{each['document_id']}").json()["error"] == each["error"]
    paged, at = [], f"{url}/items?limit=1"
    while at:
        page = client.get(at).json()
        paged, at = paged + page["results"], page["next"]
    assert [each["source_uri"] for each in paged] == ["broken.pdf", "chair.md", "empty.txt", "lamp.md"]
    assert [each["error"] is None for each in paged] == [False, True, False, False]
    (tmp_path / "lamp.md").write_text("# Lamp\n\nThe lamp costs 45 euros.\n")
    (tmp_path / "broken.pdf").unlink()
    synced(1)


@pytest.mark.parametrize("cursor", ["x", "cD0=", b64encode(b"p=a%00b").decode()])
def test_a_list_of_items_takes_its_own_parameters_only(
    client: httpx.Client, source: dict[str, Any], cursor: str
) -> None:
    url = f"{SOURCES}/{source['id']}/items"
    assert client.get(url, params={"failed": "true"}).json() == {"results": [], "next": None, "previous": None}
    for bad in ({"failed": "yes"}, {"limit": "0"}, {"key": "a"}):
        refused = client.get(url, params=bad)
        assert refused.status_code == 400 and refused.json()["errors"][0]["pointer"] == f"/{next(iter(bad))}"
    assert client.get(url, params={"cursor": cursor}).status_code in (200, 400)


def test_a_page_of_sources_is_a_fixed_number_of_queries(collection: Collection, tmp_path: Path) -> None:
    def queries() -> int:
        with tenancy.scope(collection.tenant_id), CaptureQueriesContext(connection) as asked:
            shown = verbs.show_all(list(Source.objects.select_related("collection")))
        assert all(each["last_run"] or each["open_run"] for each in shown)
        return len(asked)

    needed = []
    for number in range(3):
        with tenancy.scope(collection.tenant_id):
            verbs.create(
                tenant_id=collection.tenant_id,
                collection="docs",
                kind="folder",
                name=str(number),
                settings={"path": str(tmp_path)},
            )
            verbs.sync(source=Source.objects.get(name=str(number)))
        needed.append(queries())
    assert len(set(needed)) == 1, needed


def test_a_source_is_changed(client: httpx.Client, source: dict[str, Any], tmp_path: Path) -> None:
    url = f"{SOURCES}/{source['id']}"
    changed = client.patch(url, json={"schedule": "*/5  * * * *", "name": "Shop"}).json()
    assert changed["schedule"] == "*/5 * * * *" and changed["name"] == "Shop"
    assert changed["next_run_at"].endswith(":00Z") and changed["settings"] == source["settings"]
    off = client.patch(url, json={"enabled": False}).json()
    assert off["enabled"] is False and off["next_run_at"] is None
    refused = client.post(f"{url}/sync")
    assert refused.status_code == 409 and refused.json()["code"] == "disabled"
    on = client.patch(url, json={"enabled": True, "schedule": None}).json()
    assert on["schedule"] is None and on["next_run_at"] is None
    settings = client.patch(url, json={"settings": {"path": str(tmp_path), "exclude": ["*.bak"]}}).json()["settings"]
    assert settings["exclude"] == ["*.bak"] and settings["watch"] is True


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"kind": "ftp"}, 400, "/kind"),
        ({"kind": None}, 400, "/kind"),
        ({"name": ""}, 400, "/name"),
        ({"name": "n" * 201}, 400, "/name"),
        ({"collection": "nowhere"}, 422, "/collection"),
        ({"settings": {}}, 400, "/settings/path"),
        ({"settings": {"path": "relative"}}, 400, "/settings/path"),
        ({"settings": {"path": "/no/such/folder"}}, 400, "/settings/path"),
        ({"settings": {"path": "/", "depth": 3}}, 400, "/settings/depth"),
        ({"settings": []}, 400, "/settings"),
        ({"settings": {"path": "/tmp/.hidden"}}, 400, "/settings/path"),
        ({"schedule": "daily"}, 400, "/schedule"),
        ({"schedule": "0 25 * * *"}, 400, "/schedule"),
        ({"schedule": 5}, 400, "/schedule"),
        ({"enabled": "maybe"}, 400, "/enabled"),
        ({"folder": "/"}, 400, "/folder"),
        ({"kind": "feed", "settings": {"path": "/"}}, 400, "/settings/path"),
        ({"kind": "feed", "settings": {}, "schedule": "0 3 * * *"}, 400, "/schedule"),
        ({"kind": "web", "settings": {"url": "ftp://example.org/"}}, 400, "/settings/url"),
        ({"kind": "web", "settings": {"url": "https://example.org/", "depth": 99}}, 400, "/settings/depth"),
        ({"kind": "s3", "settings": {"bucket": "no"}}, 400, "/settings/bucket"),
        ({"kind": "s3", "settings": {"bucket": "some", "access_key": "a"}}, 400, "/settings/secret_key"),
    ],
)
def test_what_is_wrong_with_a_source_is_pointed_at(
    client: httpx.Client, collection: Collection, tmp_path: Path, change: dict[str, Any], status: int, pointer: str
) -> None:
    refused = client.post(SOURCES, json=body(tmp_path) | change)
    assert refused.status_code == status, refused.text
    assert [each["pointer"] for each in refused.json()["errors"]] == [pointer], refused.text
    assert client.get(SOURCES).json()["results"] == []


def test_a_folder_that_the_operator_has_not_opened_is_refused(
    collection: Collection, api_key: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    opened = tmp_path_factory.mktemp("opened")
    from tests.conftest import DATA

    with Server(DATA, SOURCE_FOLDERS=str(opened)) as web, web.client(api_key) as client:
        refused = client.post(SOURCES, json=body(tmp_path))
        assert refused.status_code == 400 and refused.json()["errors"][0]["pointer"] == "/settings/path"
        assert client.post(SOURCES, json=body(opened)).status_code == 201


def test_names_are_unique_in_a_collection(
    client: httpx.Client, source: dict[str, Any], tenant: Tenant, tmp_path: Path
) -> None:
    refused = client.post(SOURCES, json=body(tmp_path))
    assert refused.status_code == 409 and refused.json()["code"] == "name_taken"
    make_collection(tenant, slug="other")
    assert client.post(SOURCES, json=body(tmp_path, collection="other")).status_code == 201
    second = client.post(SOURCES, json=body(tmp_path, name="Second")).json()
    assert client.patch(f"{SOURCES}/{second['id']}", json={"name": "Files"}).status_code == 409


def test_secrets_are_never_shown(client: httpx.Client, collection: Collection) -> None:
    settings = {"bucket": "papers", "access_key": "AKIA", "secret_key": "hush-hush"}
    made = client.post(SOURCES, json=body(Path("/"), kind="s3", settings=settings))
    assert made.status_code == 201 and made.json()["settings"]["access_key"] == "AKIA"
    url = f"{SOURCES}/{made.json()['id']}"
    shown = [made, client.get(url), client.get(SOURCES), client.patch(url, json={"name": "x"})]
    assert not any("hush" in each.text or "secret_key" in each.text for each in shown)


def test_runs_are_cancelled(client: httpx.Client, source: dict[str, Any]) -> None:
    url = f"{SOURCES}/{source['id']}"
    assert client.post(f"{url}/cancel").status_code == 409
    client.post(f"{url}/sync")
    ended = client.post(f"{url}/cancel")
    assert ended.status_code == 200 and ended.json()["open_run"] is None
    assert client.get(f"{url}/runs").json()["results"][0]["state"] == "cancelled"


def test_a_source_is_deleted(client: httpx.Client, source: dict[str, Any]) -> None:
    url = f"{SOURCES}/{source['id']}"
    assert client.delete(url, params={"documents": "burn"}).status_code == 400
    assert client.delete(url).status_code == 204
    for answer in (client.get(url), client.delete(url), client.post(f"{url}/sync"), client.get(f"{url}/items")):
        assert answer.status_code == 404 and answer.json()["code"] == "not_found"


def test_a_feed_is_not_read_and_others_take_no_events(client: httpx.Client, source: dict[str, Any]) -> None:
    feed = client.post(SOURCES, json={"kind": "feed", "name": "Shop", "collection": "docs"}).json()
    refused = client.post(f"{SOURCES}/{feed['id']}/sync")
    assert refused.status_code == 409 and refused.json()["code"] == "wrong_kind"
    event = json.dumps({"op": "delete", "source_uri": "a", "version": 1}).encode()
    headers = {"Content-Type": "application/x-ndjson"}
    refused = client.post(f"{SOURCES}/{source['id']}/events", content=event, headers=headers)
    assert refused.status_code == 409 and refused.json()["code"] == "wrong_kind"
    taken = client.post(f"{SOURCES}/{feed['id']}/events", content=event, headers=headers)
    assert taken.status_code == 200 and json.loads(taken.text)["state"] == "deleted"


def test_sources_stay_behind_the_wall(
    client: httpx.Client, source: dict[str, Any], web: Server, other_tenant: Tenant, make_key: Any
) -> None:
    make_collection(other_tenant)
    with web.client(make_key(other_tenant)) as stranger:
        url = f"{SOURCES}/{source['id']}"
        assert stranger.get(SOURCES).json()["results"] == []
        for answer in (
            stranger.get(url),
            stranger.patch(url, json={"name": "mine"}),
            stranger.delete(url),
            stranger.post(f"{url}/sync"),
            stranger.post(f"{url}/cancel"),
            stranger.get(f"{url}/runs"),
            stranger.get(f"{url}/items"),
            stranger.post(f"{url}/events", content=b"{}", headers={"Content-Type": "application/x-ndjson"}),
        ):
            assert answer.status_code == 404 and answer.json()["code"] == "not_found", answer.text
    assert client.get(f"{SOURCES}/{source['id']}").json() == source


def test_scopes_are_asked_for(web: Server, source: dict[str, Any], tenant: Tenant, make_key: Any) -> None:
    with web.client(make_key(tenant, "read")) as reader:
        assert reader.get(SOURCES).status_code == 200
        assert reader.post(f"{SOURCES}/{source['id']}/sync").status_code == 403
        assert reader.post(SOURCES, json={}).status_code == 403
    with web.client(make_key(tenant, "write")) as writer:
        assert writer.get(SOURCES).status_code == 403
        assert writer.post(f"{SOURCES}/{uuid4()}/sync").status_code == 404
