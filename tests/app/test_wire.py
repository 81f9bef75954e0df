"""What every answer says to browsers, whose pages are listened to, and what no answer and no log ever holds."""

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from core.settings import Settings
from tests.app.all_routes import WEBSOCKET, every_route, parameters
from tests.app.served import ON_SQLITE, Api, serving

pytestmark = ON_SQLITE

SAFE = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
# The page, which says more precisely what it needs.
OWN_POLICY = {"/", "/assets/{asset}", "/docs"}


def test_every_answer_is_safe_to_be_met_by_a_browser(api: Api) -> None:
    for method, path in every_route(api.app):
        if method == WEBSOCKET:
            continue
        address = path.format(**dict.fromkeys(parameters(path), "x") | {"asset": "index.html"})
        for key in (api.headers, {"Authorization": ""}):
            answer = api.http.request(method, address, headers=key)
            for name, value in SAFE.items():
                if path in OWN_POLICY and name in ("cache-control", "content-security-policy"):
                    assert name == "cache-control" or "default-src" in answer.headers[name], path
                else:
                    assert answer.headers[name] == value, (method, path)
            assert not {"set-cookie", "server", "x-powered-by"} & answer.headers.keys()
            assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_no_page_of_another_origin_is_listened_to(api: Api) -> None:
    job = api.job()["id"]
    own = f"127.0.0.1:{api.port}"
    others = [
        "null",
        "https://evil.example",
        f"http://127.0.0.1.evil.example:{api.port}",
        "http://127.0.0.1",
        "file://",
    ]
    others += [f"http://{own}.", f"http://{own}/", f"http://evil@{own}", f"ftp://{own}", f"{own}", ""]
    for origin in others:
        answer = api.http.get("/jobs", headers={"Origin": origin})
        assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json"), origin
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(
                api.ws(f"/jobs/{job}/stream"), additional_headers=api.headers, origin=Origin(origin or "x"), proxy=None
            ),
        ):
            pass
        assert refused.value.response.status_code == 403
    for origin in (f"http://{own}", f"https://{own}"):  # the second where TLS is in front
        assert api.http.get("/jobs", headers={"Origin": origin}).status_code == 200
    asked = {"Origin": f"http://{own}", "Access-Control-Request-Method": "POST"}
    preflight = api.http.options("/jobs", headers=asked)
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control-")]


def test_no_answer_and_no_log_holds_a_password(settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    away = settings.model_copy(update={"redis_url": "redis://:hunter2@127.0.0.1:1/0"})
    with serving(away) as api:
        job = api.job()["id"]
        api.http.get(f"/jobs/{job}/events?after=0-1&wait=0.2")
        answers = [api.http.get(path).text for path in ("/readyz", "/metrics", "/openapi.json", f"/jobs/{job}")]
        answers.append(api.http.get("/jobs?key=" + api.key).text)
    assert "unreachable" in answers[0]
    log = capfd.readouterr().err
    assert "bell_not_heard" in log
    assert not [text for text in [log, *answers] if "hunter2" in text]
    # Nor a key, not even one that was sent where none belongs.
    ours = [line for line in log.splitlines() if "HTTP Request" not in line]  # the test's own client
    assert [line for line in ours if r"?key=epochd_\u2026" in line]
    assert not [line for line in ours if api.key in line]


def test_a_key_in_an_address_opens_nothing(api: Api) -> None:
    for name in ("key", "token", "access_token", "api_key", "authorization", "ticket"):
        assert api.http.get("/jobs", params={name: api.key}, headers={"Authorization": ""}).status_code == 401
