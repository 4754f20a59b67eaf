"""``sse-push doctor`` against nginx as shipped, and with one change each that breaks something."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from sse_push.doctor import Address, Examination, Result, Target
from tests.harness import plain_http
from tests.harness.nginx import Nginx, make_certificate
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service, serving
from tests.harness.stream import open_stream
from tests.harness.tokens import SECRET, token_of
from tests.harness.waiting import SECOND, free_port
from tests.integration.test_doctor_hostile import answering

COOKIE = "push"
ORIGIN = "https://app.test"
HEARTBEAT_S = 0.5 * SECOND
TOKEN = token_of("42", aud=..., iss=..., expires_in_s=3600)
ENDED = token_of("42", aud=..., iss=..., expires_in_s=3600, jti="ended")


@dataclass(frozen=True)
class Broken:
    """The shipped files with one change, and what doctor calls its fault."""

    faults: set[str]
    changes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """For each file of ``snippets`` which text becomes which."""
    tls: bool = False


STREAM, HEADERS = "event-stream.conf", "service-headers.conf"
BROKEN = {
    "as shipped": Broken(set()),
    "as shipped, TLS": Broken(set(), tls=True),
    "buffering": Broken(
        {"buffering", "http_1_0"},
        {
            STREAM: {
                "proxy_buffering off;": "proxy_ignore_headers X-Accel-Buffering;"
                "proxy_http_version 1.0;"
            },
            HEADERS: {"proxy_http_version 1.1;": ""},
        },
    ),
    "gzip": Broken(
        {"compression"},
        {STREAM: {"gzip off;": "gzip on; gzip_min_length 0; gzip_types text/event-stream;"}},
    ),
    "gzip and buffering": Broken(
        {"compression"},
        {
            STREAM: {
                "gzip off;": "gzip on; gzip_min_length 0; gzip_types text/event-stream;",
                "proxy_buffering off;": "proxy_ignore_headers X-Accel-Buffering;",
            }
        },
    ),
    "idle cut": Broken(
        {"idle_cut"},
        {STREAM: {"proxy_read_timeout 75s;": f"proxy_read_timeout {HEARTBEAT_S * 500:.0f}ms;"}},
    ),
    "HTTP/1.0": Broken({"http_1_0"}, {HEADERS: {"proxy_http_version 1.1;": ""}}),
    "stripped cookie": Broken(
        {"cookie"}, {HEADERS: {"proxy_set_header Forwarded ": 'proxy_set_header Cookie ""; $&'}}
    ),
    "body limit": Broken(
        {"body_limit"}, {"notify.conf": {"client_max_body_size 1m;": "client_max_body_size 64k;"}}
    ),
    "redirect to https": Broken(
        {"redirect"}, {STREAM: {"proxy_cache off;": "return 301 https://$host$request_uri; $&"}}
    ),
    "cached stream": Broken(
        {"cache"},
        {
            STREAM: {
                "proxy_cache off;": "proxy_cache doctor; proxy_cache_key $uri;"
                "proxy_cache_valid 200 1h; proxy_ignore_headers Cache-Control X-Accel-Buffering;",
                "proxy_buffering off;": "",
            }
        },
    ),
}


def snippets_of(name: str, folder: Path) -> str:
    """Copy the snippets with the changes of this name; return the name of their folder."""
    made = f"snippets-{list(BROKEN).index(name)}"
    shutil.copytree(folder / "snippets", folder / made)
    for path in (folder / made).iterdir():
        text = path.read_text().replace("include snippets/", f"include {made}/")
        for old, new in BROKEN[name].changes.get(path.name, {}).items():
            lines = text.splitlines()
            (at,) = [at for at, line in enumerate(lines) if line.strip().startswith(old)]
            lines[at] = lines[at].replace(old, new.replace("$&", old))
            text = "\n".join(lines)
        path.write_text(text)
    return made


def internal_of(snippets: str, port: int, folder: Path) -> str:
    """Return the internal server of the shipped files, with other snippets and another port."""
    text = (folder / "conf.d/sse-push.conf").read_text()
    server = f"server {{{text.rpartition(chr(10) + 'server {')[2]}"
    server = re.sub(r"listen 127.0.0.1:\d+", f"listen 127.0.0.1:{port}", server)
    return server.replace("include snippets/", f"include {snippets}/")


@dataclass
class Proxies:
    """One nginx with a server for each name of ``BROKEN``, and the service behind it."""

    service: Service
    nginx: Nginx
    ports: dict[str, int]
    notify_ports: dict[str, int]

    def url(self, name: str) -> str:
        return f"http{'s' if BROKEN[name].tls else ''}://localhost:{self.ports[name]}"

    def target(self, name: str, **options: object) -> Target:
        port = self.notify_ports.get(name, self.nginx.internal_port)
        given = {
            "token": TOKEN,
            "cookies": (f"{COOKIE}={TOKEN}",),
            "key": KEY,
            "notify_address": Address.parse(f"http://localhost:{port}"),
            "origin": ORIGIN,
            # What is held back never arrives, and all else does so in time.
            "timeout_s": (2.0 if "buffering" in name else 10.0) * SECOND,
            "ca_file": str(self.nginx.folder / "tls/certificate.pem"),
        }
        return Target.of(self.url(name), **{**given, **options})


@pytest.fixture(scope="module")
def proxies(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Proxies]:
    cache = tempfile.TemporaryDirectory(prefix="sse_push-")
    Path(cache.name).chmod(0o755)  # nginx's workers run under an account of their own
    ports = {name: free_port() for name in BROKEN}
    notify_ports = {name: free_port() for name in BROKEN if "notify.conf" in BROKEN[name].changes}

    def adapt(folder: Path) -> None:
        make_certificate(folder)
        servers = [f"proxy_cache_path {cache.name}/cache keys_zone=doctor:1m use_temp_path=off;"]
        for name, port in ports.items():
            snippets = snippets_of(name, folder)
            options, tls = (
                ("ssl http2", "include snippets/tls.conf;") if BROKEN[name].tls else ("",) * 2
            )
            listen = f"listen 127.0.0.1:{port} {options};"
            servers.append(f"server {{ {listen} {tls} include {snippets}/public.conf; }}")
            if name in notify_ports:
                servers.append(internal_of(snippets, notify_ports[name], folder))
        path = folder / "nginx.conf"
        origin = f'"{ORIGIN}" $http_origin;'
        shared = folder / "conf.d/sse-push.conf"
        shared.write_text(
            shared.read_text().replace('#"https://shop.example" $http_origin;', origin)
        )
        path.write_text("\n".join([path.read_text().rstrip().removesuffix("}"), *servers, "}"]))

    folder = tmp_path_factory.mktemp("doctor")
    with (
        cache,
        serving(
            folder,
            redis.url,
            *("--subscribe-auth", "token"),
            token_keys=SECRET,
            token_cookie=COOKIE,
            allowed_origins=ORIGIN,
            heartbeat_s=HEARTBEAT_S,
            body_limit_bytes=131_072,
            drain_s=SECOND,
        ) as service,
        Nginx.start(folder / "nginx", f"127.0.0.1:{service.port}", adapt) as nginx,
    ):
        yield Proxies(service, nginx, ports, notify_ports)


async def examine(target: Target) -> list[Result]:
    return await Examination(target, lambda _text: None).run()


def faults(results: list[Result]) -> set[str]:
    """Return the names of the faults; ``late`` aside, which a busy machine may be."""
    return {each.fault.value for each in results if each.fault is not None} - {"late"}


async def fill_the_cache(proxies: Proxies) -> None:
    """Have a stream end, so that the proxy which caches has the whole of it."""
    url = proxies.url("cached stream")
    async with open_stream(url, query=f"token={ENDED}") as stream:
        body = {"merchant_id": "42", "jti": "ended"}
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = plain_http.post(f"{proxies.service.url}/revoke", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        await stream.wait_complete()


@pytest.fixture(scope="module")
def examined(proxies: Proxies) -> dict[str, list[Result]]:
    """All examinations, at the same time."""

    async def all_of_them() -> list[list[Result]]:
        await fill_the_cache(proxies)
        return await asyncio.gather(*(examine(proxies.target(name)) for name in BROKEN))

    return dict(zip(BROKEN, asyncio.run(all_of_them()), strict=True))


@pytest.mark.parametrize("name", BROKEN)
def test_doctor_names_the_fault_of_a_proxy_and_no_other(
    examined: dict[str, list[Result]], name: str
) -> None:
    results = examined[name]

    assert faults(results) == BROKEN[name].faults, [each.finding.text for each in results]


async def test_credentials_are_not_shown_to_a_server_whose_certificate_is_not_believed(
    proxies: Proxies,
) -> None:
    results = await examine(proxies.target("as shipped, TLS", ca_file=None))

    assert faults(results) == {"certificate"}
    assert [each.check for each in results] == ["tls"], "nothing is asked after that"


async def test_a_cookie_and_a_token_are_shown_one_at_a_time(proxies: Proxies) -> None:
    """The service refuses two that differ."""
    other = token_of("42", aud=..., iss=..., expires_in_s=3000)

    target = proxies.target("as shipped", cookies=(f"{COOKIE}={other}",), key=None, wait_s=0.0)
    results = await examine(replace(target, notify_address=None))

    assert faults(results) == set()


async def test_a_service_that_lets_anyone_listen_is_examined_without_credentials(
    service: Service,
) -> None:
    results = await examine(Target.of(service.url, wait_s=0.0))

    assert faults(results) == set()
    assert [each.check for each in results if each.is_note] == [
        "tls",
        "closed",
        "access",
        "delivery",
    ]


@pytest.mark.parametrize("cookies", [(), ("a=b",)])
async def test_a_service_without_a_proxy_takes_the_largest_body(
    service: Service, cookies: tuple[str, ...]
) -> None:
    address = Address.parse(service.url)
    target = Target.of(
        service.url,
        merchant_id="42",
        cookies=cookies,
        notify_address=address,
        key=KEY,
        timeout_s=5.0 * SECOND,
        wait_s=0.1,
    )

    results = await examine(target)

    assert faults(results) == set()
    (body,) = [each for each in results if each.check == "body"]
    assert (body.got, "1048576" in body.tried) == ("200", True)


@pytest.mark.parametrize(("key", "name"), [(None, "unauthorized"), ("another-key", "unauthorized")])
async def test_a_key_that_is_unknown_is_a_fault(
    service: Service, key: str | None, name: str
) -> None:
    address = Address.parse(service.url)

    results = await examine(Target.of(service.url, notify_address=address, key=key, wait_s=0.0))

    assert faults(results) == {"notify"}
    (delivery,) = [each for each in results if each.check == "delivery"]
    assert name in delivery.got


async def test_a_notification_to_another_service_is_lost(service: Service) -> None:
    body = b'{"id":"9999999999999-0.0123abcd"}'
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with answering(head + body) as port:
        address = Address.parse(f"http://127.0.0.1:{port}")
        results = await examine(
            Target.of(
                service.url,
                merchant_id="lost",
                notify_address=address,
                timeout_s=1.0 * SECOND,
                wait_s=0.0,
            )
        )

    assert faults(results) == {"lost"}
