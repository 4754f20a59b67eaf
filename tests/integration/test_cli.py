"""The command line: every command, run as a process."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import jwt
import pytest

from sse_push import __version__
from sse_push.access.grant import hash_claim
from sse_push.cli import COMMANDS
from tests.harness.access import LIMITED_KEY
from tests.harness.nginx import recording
from tests.harness.programs import Running, run, run_all
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service, serving
from tests.harness.stream import open_stream
from tests.harness.tokens import SECRET, jwk_set, public_jwk, token_of
from tests.harness.waiting import START_S, STOP_S, until, wait_for


def test_the_help_lists_every_command_in_the_order_of_a_first_day() -> None:
    done = run("--help")

    assert done.returncode == 0
    listed = done.stdout.partition("Commands:")[2].splitlines()
    assert [line.split()[0] for line in listed if re.match("  [a-z]", line)] == list(COMMANDS)


def test_serve_does_not_start_without_its_required_settings() -> None:
    done = run("serve")

    assert done.returncode == 2
    assert done.stderr == (
        "sse-push: subscribe_auth (SSE_PUSH_SUBSCRIBE_AUTH, --subscribe-auth): missing; "
        "`token`: anyone with a token, `header`: clients whose merchant a proxy names, "
        "`none`: anyone\n"
        "sse-push: notify_keys (SSE_PUSH_NOTIFY_KEYS, --notify-keys): missing; "
        "the keys that may notify, comma-separated, or `none`: anyone\n"
        "sse-push: redis_url (SSE_PUSH_REDIS_URL, --redis-url): missing; "
        "the URL of a Redis; --embedded starts a private server instead\n"
    )


def test_serve_does_not_start_without_a_redis() -> None:
    done = run("serve", "--subscribe-auth", "none", "--notify-keys", "none")

    assert done.returncode == 2
    assert done.stderr.startswith("sse-push: redis_url (SSE_PUSH_REDIS_URL, --redis-url): missing")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"SSE_PUSH_HEARBEAT_S": "3"}, "did you mean SSE_PUSH_HEARTBEAT_S?"),
        ({"SSE_PUSH_HEARTBEAT_S": "0"}, "SSE_PUSH_HEARTBEAT_S): input should be greater"),
        ({"SSE_PUSH_PORT": "http"}, "got 'http'"),
        ({"SSE_PUSH_NOTIFY_KEYS": "secret!"}, "at least 32"),
        ({"SSE_PUSH_NOTIFY_KEYS": f"{KEY} 42, merchant-1000000001"}, "name of a merchant"),
        ({"SSE_PUSH_MAX_CONNECTION_AGE_S": "20"}, "must be at least two heartbeats"),
        ({"SSE_PUSH_TOKEN_KEYS": "x" * 32}, "subscribe_auth (none) must be token"),
    ],
)
def test_a_wrong_setting_is_named_and_the_service_does_not_start(
    environ: dict[str, str], text: str
) -> None:
    done = run("serve", "--embedded", "--subscribe-auth", "none", **environ)

    assert done.returncode == 2
    assert text in done.stderr
    assert not re.search("secret|merchant-1000000001", done.stderr)
    assert "Traceback" not in done.stderr


def test_check_prints_a_verdict_first_and_last_and_the_settings_without_secrets_on_request(
    redis: Redis,
) -> None:
    url = redis.url.replace("redis://", "redis://:hidden@")
    auth = ("--subscribe-auth", "none", "--notify-keys", KEY)
    plain = run("check", "--redis-url", redis.url, *auth)
    good = run("check", "--redis-url", redis.url, *auth, "--settings")
    wrong = run("check", "--redis-url", url, *auth, "--settings")

    first, *_, last = plain.stdout.splitlines()
    assert first == last
    assert first.startswith("OK: serve would start and deliver (")
    assert "heartbeat_s" not in plain.stdout
    assert (plain.returncode, good.returncode) == (0, 0), good.stderr
    assert re.search(r"^setting +heartbeat_s +15\.0$", good.stdout, re.MULTILINE)
    assert re.search(r"^ok +a change is announced and read, [0-9.]+ ms$", good.stdout, re.MULTILINE)
    assert re.search(r"^warning +appendonly is off", good.stdout, re.MULTILINE)
    assert KEY not in good.stdout
    assert "hidden" not in wrong.stdout + wrong.stderr


def test_a_server_without_replicas_is_not_to_be_waited_for() -> None:
    serve = ("serve", "--embedded", "--subscribe-auth", "none", "--notify-keys", KEY)
    done = run(*serve, SSE_PUSH_WAIT_REPLICAS="1")
    bad = run(*serve, SSE_PUSH_WAIT_REPLICAS="17")

    assert done.returncode == bad.returncode == 2
    assert "wait_replicas needs a Redis with replicas: --embedded has none" in done.stderr
    assert "wait_replicas (SSE_PUSH_WAIT_REPLICAS): input should be less than or" in bad.stderr


def test_a_secret_in_a_flag_is_warned_of_and_not_shown(redis: Redis) -> None:
    url = redis.url.replace("redis://", "redis://:hidden@")
    serve = ("serve", "--redis-url", url, "--notify-keys", KEY, "--embedded")
    served = run(*serve, "--subscribe-auth", "none")
    check = ("check", "--redis-url", redis.url, "--notify-keys", KEY)
    checked = run(*check, SSE_PUSH_SWOOLE_COMPAT="on")
    by_variables = run(
        *("check", "--redis-url", redis.url, "--notify-keys", "none", "--uds", "/tmp/push.sock"),
        SSE_PUSH_TOKEN_KEYS=SECRET,
        SSE_PUSH_SUBSCRIBE_AUTH="token",
        SSE_PUSH_TRUSTED_PROXIES="::/0",
        SSE_PUSH_KEY_PREFIX="shop",
    )

    assert redis.cli("EXISTS", "shop:{~check}") == "1"
    assert "flags=--notify-keys,--redis-url\n" in served.stderr
    for text in ("--notify-keys has a secret", "swoole_compat is on: a program at 127.0.0.0/8, "):
        assert re.search(f"^warning +{text}", checked.stdout, re.MULTILINE)
    assert "has a secret" not in by_variables.stdout
    for text in ("uds /tmp/push.sock: every user of this", "trusted_proxies has nearly all"):
        assert re.search(f"^warning +{text}", by_variables.stdout, re.MULTILINE)
    assert not re.search(f"{KEY}|hidden", served.stderr + checked.stdout + checked.stderr)


def test_check_names_each_cause_in_the_settings_and_examines_redis_beside(redis: Redis) -> None:
    keys = f"{KEY} 42, merchant-1000000001"
    wrong = run("check", "--redis-url", redis.url, SSE_PUSH_NOTIFY_KEYS=keys)
    missing = run("check", "--redis-url", redis.url)
    unreachable = run("check", "--redis-url", "redis://127.0.0.1:1/0", "--json")
    none = run("check", "--notify-keys", "none", "--subscribe-auth", "none", "--host", "::")

    assert [done.returncode for done in (wrong, missing, unreachable, none)] == [1, 1, 1, 1]
    assert [done.stderr for done in (wrong, missing, unreachable, none)] == [""] * 4
    assert re.search(
        "^failure  notify_keys .* looks like the name of a merchant", wrong.stdout, re.MULTILINE
    )
    assert "merchant-1000000001" not in wrong.stdout
    for cause in ("failure  subscribe_auth ", "failure  notify_keys ", "ok       a change is ann"):
        assert f"\n{cause}" in missing.stdout
    causes = {each["name"]: each for each in json.loads(unreachable.stdout)["findings"]}
    assert causes["refused"]["text"].startswith("127.0.0.1:1: nothing listens there: is Redis")
    assert re.search("^failure  redis_url .*: missing; ", none.stdout, re.MULTILINE)
    assert re.search(
        r"^failure  host \(::\) is not this machine alone, so anyone", none.stdout, re.MULTILINE
    )


async def test_notify_prints_the_id_of_the_event_that_arrives(
    service: Service, merchant: str
) -> None:
    async with open_stream(service.url, merchant) as stream:
        await stream.next("refresh")
        more = ["--url", service.url, "--key", KEY]
        run("notify", merchant, *more)
        await stream.next("refresh", 2)

        done = run(
            "notify", merchant, "--topic", "seats", "--data", '{"a": [1]}', "--by", "me", *more
        )
        event = await stream.next("refresh", 3)

    assert done.stdout == f"{event.id}\n"
    assert event.data == (
        f'{{"merchant_id":"{merchant}","topic":"seats","data":{{"a":[1]}},"by":"me"}}'
    )


def test_notify_fails_in_one_line(service: Service) -> None:
    refused = run("notify", "42", "--url", service.url, "--key", "another-key-0123456789")
    down = run("notify", "42", "--url", "http://127.0.0.1:1")
    no_json = run("notify", "42", "--data", "{nonsense")

    elsewhere = run("notify", "42", "--url", f"{service.url}/x")
    no_service = run("notify", "42", "--url", f"{service.url}/metrics?", "--key", KEY)

    assert (refused.returncode, down.returncode, no_json.returncode) == (1, 1, 2)
    assert "answered 401" in refused.stderr
    assert refused.stderr.endswith("; expected one of its notify_keys in SSE_PUSH_NOTIFY_KEY\n")
    for done in (elsewhere, no_service):
        assert done.stderr.endswith("; expected the address of the service in SSE_PUSH_URL\n")
    assert "expected the service at http://127.0.0.1:1" in down.stderr
    assert "expected JSON" in no_json.stderr
    assert [len(done.stderr.splitlines()) for done in (refused, down)] == [1, 1]


async def test_a_terminal_does_not_obey_what_a_server_answers() -> None:
    async with recording() as (recorder, address):
        outs = []
        for status, body in (
            ("400 No", "\x1b[31m\x9b31m\u202e"),
            ("200 OK", '{"id": "\\u001b[31m\\u009b31m\\u202e"}'),
        ):
            raw = body.encode()
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(raw)}\r\n\r\n"
            recorder.answer = head.encode() + raw
            (notified,) = await run_all(("notify", "42", "--url", f"http://{address}"))
            outs.append(notified.stderr + notified.stdout)
        recorder.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
        (no_id,) = await run_all(("notify", "42", "--url", f"http://{address}"))
        (tail,) = await run_all(("tail", "42", "--url", f"http://{address}"))
        recorder.answer = b""

    assert no_id.stderr.startswith(f"sse-push: expected the ID of a record from http://{address}, ")
    for out in (*outs, tail.stderr):
        assert out.endswith("\n")
        assert out[:-1].isprintable(), out
    for out in outs:
        assert r"\u001b[31m\u009b31m\u202e" in out


def test_a_process_without_a_standard_error_works() -> None:
    command = f"exec {sys.executable} -m sse_push docs 2>&-"

    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, run("docs").stdout)


def test_the_key_and_the_url_of_notify_may_be_variables(service: Service, merchant: str) -> None:
    environ = {"SSE_PUSH_URL": service.url, "SSE_PUSH_NOTIFY_KEY": KEY}
    done = run("notify", merchant, **environ)
    for_script = run("notify", merchant, "--json", **environ)

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d{13}-\d+\.[0-9a-f]{8}\n", done.stdout)
    assert re.fullmatch(r'\{"id": "\d{13}-\d+\.[0-9a-f]{8}"\}\n', for_script.stdout)


def test_tail_gives_up_when_a_browser_would_and_prints_one_line(service: Service) -> None:
    refused = run("tail", "no such merchant", "--url", service.url)
    another = run("tail", "42", "--url", f"{service.url}/healthz?")

    assert (refused.returncode, another.returncode) == (1, 1)
    assert refused.stderr.startswith("sse-push: expected 200 text/event-stream, got 400 ")
    assert another.stderr.startswith("sse-push: expected 200 text/event-stream, got 200 ")
    assert [len(done.stderr.splitlines()) for done in (refused, another)] == [1, 1]


async def test_a_command_that_is_interrupted_exits_with_130(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        running = Running.start(tmp_path, "notify", "42", "--url", url)
        connection, _ = await asyncio.to_thread(silent.accept)
        with connection:
            await asyncio.to_thread(connection.recv, 1)  # the command waits for the answer now
            status = await asyncio.to_thread(running.press_ctrl_c)

    assert status == 130, running.log
    assert running.log.strip() == "sse-push: interrupted"


async def test_tail_prints_each_event_with_its_age_and_resumes_after_a_restart(
    redis: Redis, tmp_path: Path, merchant: str
) -> None:
    again = tmp_path / "again"
    again.mkdir()
    # A client that reconnects during the drain gets the soft answer: its retry is short too.
    first = Service.start(
        tmp_path,
        redis.url,
        drain_s=0,
        retry_ms=100,
        soft_retry_min_ms=100,
        soft_retry_max_ms=200,
    )
    run("notify", merchant, "--url", first.url, "--key", KEY)
    tail = Running.start(tmp_path, "tail", merchant, "--url", first.url)
    try:
        await until(lambda: "refresh" in tail.out, "the first refresh")
        run("notify", merchant, "--url", first.url, "--key", KEY, "--topic", "seats")
        await until(lambda: '"seats"' in tail.out, "the second")
        hostile = '"\\u009b31m\\u202e\\u001b"'
        run("notify", merchant, "--url", first.url, "--key", KEY, "--data", hostile)
        await until(lambda: r"\u009b31m\u202e" in tail.out, "what a terminal does not obey")
        first.stop()
        await until(lambda: "again in" in tail.out, "a reconnection")
        port = str(first.port)
        second = Running.start(
            again,
            *("serve", "--port", port, "--redis-url", redis.url),
            *("--subscribe-auth", "none", "--notify-keys", KEY),
        )
        try:
            await until(lambda: tail.out.count("ready") >= 2, "the second ready", START_S)
            tail.process.send_signal(signal.SIGINT)
            status = tail.process.wait(STOP_S)
        finally:
            second.process.terminate()
            second.process.wait(STOP_S)
    finally:
        tail.process.kill()
        tail.process.wait()

    lines = tail.out.splitlines()
    assert status == 0
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} ", line) for line in lines), lines
    assert re.search(r" refresh +\d+ ms +\d{13}-\d+\.[0-9a-f]{8} +\{.*\"seats\"", tail.out)
    assert "goodbye" in tail.out
    assert lines[-1].split()[1] == "ready"  # nothing was missed, so nothing is owed


@pytest.mark.parametrize(
    "command", ["serve", "demo", "check", "notify", "revoke", "tail", "token", "docs"]
)
def test_help_has_an_example(command: str) -> None:
    done = run(command, "--help")

    assert done.returncode == 0
    assert f"sse-push {command}" in done.stdout.partition("Example:")[2]


def test_the_command_prints_the_version_of_the_package() -> None:
    assert run("--version").stdout == f"sse-push, version {__version__}\n"


def test_an_unknown_command_is_a_usage_error() -> None:
    began = time.monotonic()
    done = run("sevre")

    assert done.returncode == 2
    assert "No such command 'sevre'. Did you mean 'serve'?" in done.stderr
    assert run("xyz").stderr.endswith("No such command 'xyz'.\n")
    assert time.monotonic() - began < STOP_S


def test_demo_on_a_port_in_use_prints_one_line(service: Service) -> None:
    done = run("demo", "--port", str(service.port))

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        f"sse-push: expected to listen on 127.0.0.1:{service.port}: Address already in use; `ss "
    )
    wait_for(service.is_ready, "the service, untouched")


def test_docs_prints_the_folder_and_the_title_of_each_file() -> None:
    done = run("docs")

    folder, *lines = done.stdout.splitlines()
    files = {path.name: path.read_text().splitlines()[0] for path in Path(folder).iterdir()}
    assert done.returncode == 0
    assert "reference.md" in files
    assert {line.split(None, 1)[0]: f"# {line.split(None, 1)[1]}" for line in lines} == files


# -- tokens


@pytest.fixture(scope="module")
def guarded(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    with serving(
        tmp_path_factory.mktemp("guarded"),
        redis.url,
        *("--subscribe-auth", "token"),
        *("--notify-keys", f"{KEY},{LIMITED_KEY} 42 shop-*"),
        token_keys=f"kid={SECRET}",
        token_audience="push",
        token_issuer="shop",
        heartbeat_s=0.5,
        drain_s=0,
    ) as started:
        yield started


def test_a_token_is_signed_with_the_first_key_and_has_the_claims_that_the_service_expects() -> None:
    environ = {
        "SSE_PUSH_TOKEN_KEYS": f"kid={SECRET},{SECRET[::-1]}",
        "SSE_PUSH_TOKEN_AUDIENCE": "push",
        "SSE_PUSH_TOKEN_ISSUER": "shop",
    }
    done = run("token", "42", "--expires-in", "90s", "--sub", "u", "--jti", "t", **environ)
    many = run("token", "42", "43", **environ)

    claims, others = (
        jwt.decode(text.strip(), SECRET, ["HS256"], audience="push", issuer="shop")
        for text in (done.stdout, many.stdout)
    )
    assert jwt.get_unverified_header(done.stdout.strip())["kid"] == "kid"
    assert (claims["merchant_id"], claims["sub"], claims["jti"]) == ("42", "u", "t")
    assert claims["exp"] - claims["iat"] == 90
    assert others["merchant_id"] == ["42", "43"]
    assert others["exp"] - others["iat"] == 15 * 60
    assert re.fullmatch(r"[0-9a-f-]{36}", others["jti"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["4 2"], "merchant_id: expected 1 to 64 characters"),
        (["42", "--expires-in", "0s"], "expected 1 s to 3600 s (token_max_lifetime_s), got '0s'"),
        (["42", "--expires-in", "2h"], "expected 1 s to 3600 s (token_max_lifetime_s), got '2h'"),
        (["42", "--expires-in", "900"], "expected a time as in 90s, 15m or 1h, got '900'"),
        (["42", "--expires-in", "-5m"], "expected a time as in 90s, 15m or 1h, got '-5m'"),
        ([], "Missing argument"),
    ],
)
def test_a_token_that_the_service_would_refuse_is_not_signed(
    arguments: list[str], text: str
) -> None:
    done = run("token", *arguments, SSE_PUSH_TOKEN_KEYS=SECRET)

    assert done.returncode != 0
    assert text in done.stderr
    assert done.stdout == ""
    assert SECRET not in done.stderr


def test_a_token_is_not_signed_without_a_secret() -> None:
    done = run("token", "42")

    assert done.returncode == 2
    assert done.stderr == (
        "sse-push: token_keys (SSE_PUSH_TOKEN_KEYS): expected an HMAC secret to sign with, "
        "got none\n"
    )


async def test_revoke_ends_a_stream_and_prints_the_id(
    guarded: Service, redis: Redis, merchant: str
) -> None:
    token = token_of(merchant, jti="t", iat=int(time.time()) - 10, aud="push", iss="shop")
    async with open_stream(guarded.url, query=f"token={token}") as stream:
        await stream.next("ready")
        done = await asyncio.to_thread(
            run,
            *("revoke", merchant, "--jti", "t", "--sub", "u", "--url", guarded.url),
            SSE_PUSH_NOTIFY_KEY=KEY,
        )
        await stream.next("goodbye")

    assert done.returncode == 0, done.stderr
    lines = redis.cli("XRANGE", "sse_push:revocations", done.stdout.strip(), "+").splitlines()
    assert lines[1:7] == [
        *("merchant_id", merchant, "jti_hash", hash_claim("t").hex()),
        *("sub_hash", hash_claim("u").hex()),
    ]


def test_revoke_prints_a_refusal(guarded: Service) -> None:
    done = run("revoke", "43", "--url", guarded.url, SSE_PUSH_NOTIFY_KEY=LIMITED_KEY)

    assert done.returncode == 1
    assert "answered 403" in done.stderr
    assert LIMITED_KEY not in done.stderr


async def test_tail_listens_with_a_token_and_prints_heartbeats_on_request(
    guarded: Service, tmp_path: Path
) -> None:
    token = run(
        "token",
        "42",
        SSE_PUSH_TOKEN_KEYS=f"kid={SECRET}",
        SSE_PUSH_TOKEN_AUDIENCE="push",
        SSE_PUSH_TOKEN_ISSUER="shop",
    ).stdout.strip()
    without = run("tail", "42", "--url", guarded.url)
    folders = [tmp_path / "flag", tmp_path / "variable"]
    for folder in folders:
        folder.mkdir()
    command = ("tail", "42", "--url", guarded.url)
    flag = Running.start(folders[0], *command, "--token", token, "--heartbeats")
    variable = Running.start(folders[1], *command, SSE_PUSH_TOKEN=token)
    try:
        await until(lambda: "ready" in variable.out, "the stream")
        seen = flag.out.count(" heartbeat ")
        await until(lambda: flag.out.count(" heartbeat ") >= seen + 2, "heartbeats for both")
        statuses = [await asyncio.to_thread(tail.press_ctrl_c) for tail in (flag, variable)]
    finally:
        flag.kill()
        variable.kill()

    assert statuses == [0, 0]
    assert " heartbeat " not in variable.out
    assert without.returncode == 1
    assert "got 401 application/json" in without.stderr


def test_check_counts_the_keys_of_tokens_and_shows_none(redis: Redis, tmp_path: Path) -> None:
    path = jwk_set(tmp_path / "keys.json", public_jwk("ES256", kid="2026"), public_jwk("EdDSA"))
    environ = {
        "SSE_PUSH_SUBSCRIBE_AUTH": "token",
        "SSE_PUSH_TOKEN_KEYS": f"old={SECRET}",
        "SSE_PUSH_TOKEN_ALGORITHMS": "HS256,ES256,EdDSA",
        "SSE_PUSH_TRUSTED_PROXIES": "10.0.0.0/8",
        "SSE_PUSH_NOTIFY_KEYS": "none",
    }
    check = ("check", "--redis-url", redis.url, "--settings")
    good = run(*check, SSE_PUSH_TOKEN_KEYS_FILE=str(path), **environ)
    path.write_text("hunter2")
    broken = [
        run(*command, SSE_PUSH_TOKEN_KEYS_FILE=str(path), **environ)
        for command in (check, ("serve", "--redis-url", redis.url))
    ]

    assert good.returncode == 0, good.stderr
    for setting in (
        ["token_keys", "1 key(s), not shown"],
        ["token_keys_file", str(path)],
        ["trusted_proxies", "10.0.0.0/8"],
        ["keys of HS256", "1, 1 with a kid"],
        ["keys of ES256", "1, kid 2026"],
        ["keys of EdDSA", "1"],
    ):
        assert ["setting", *setting] in [re.split("  +", line) for line in good.stdout.splitlines()]
    text = (
        f"token_keys_file {path}: expected a JWK Set (JSON) or public keys (PEM), got neither; a "
        "file of HMAC secrets is SSE_PUSH_TOKEN_SECRETS_FILE"
    )
    checked, served = broken
    assert checked.returncode == 1
    assert f"\nfailure  {text}\n" in checked.stdout
    assert (served.returncode, served.stderr) == (2, f"sse-push: {text}\n")
    assert not any(SECRET in done.stdout + done.stderr for done in (good, *broken))
