"""The names of variables: those of a backend and a command line, and those that others set.

Knows which names are whose. Does not know the settings. Reads no environment: ``settings`` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

PREFIX = "SSE_PUSH_"

HOST, PORT = "127.0.0.1", 8000
"""Where a service listens, unless its settings say otherwise."""

URL_VARIABLE = f"{PREFIX}URL"
KEY_VARIABLE = f"{PREFIX}NOTIFY_KEY"
TOKEN_VARIABLE = f"{PREFIX}TOKEN"

OF_CLIENTS = {
    URL_VARIABLE: "URL of the service, for `sse-push notify`, `revoke`, `tail` and `doctor`; "
    f"unset: `http://{HOST}:{PORT}`",
    KEY_VARIABLE: "one key of `notify_keys`, which `sse-push notify`, `revoke` and `doctor` send",
    f"{KEY_VARIABLE}_FILE": "file that holds this key, instead",
    TOKEN_VARIABLE: "token, as `sse-push token` prints, which `sse-push tail` and `doctor` send",
    f"{TOKEN_VARIABLE}_FILE": "file that holds this token, instead",
}
"""What a backend and the command line read, and what that means; a service leaves them alone."""

SECRETS_DIR = f"{PREFIX}SECRETS_DIR"

FILES_OF_SECRETS = {
    "redis_url": f"{PREFIX}REDIS_URL_FILE",
    "sentinel_password": f"{PREFIX}SENTINEL_PASSWORD_FILE",
    "notify_keys": f"{PREFIX}NOTIFY_KEYS_FILE",
    "token_keys": f"{PREFIX}TOKEN_SECRETS_FILE",
}
"""The settings that are secrets, and the variable that names a file with each.

``SSE_PUSH_TOKEN_KEYS_FILE`` is a setting: a file of keys that are public, or of a JWK Set.
"""

_HOST_OF_A_SERVICE = re.compile(rf"({PREFIX}(?:[A-Z0-9_]+_)?)SERVICE_HOST")
_OF_A_PORT = r"PORT_[0-9]{1,5}_(?:TCP|UDP|SCTP)(?:_PROTO|_PORT|_ADDR)?"
_LINK = re.compile(r"(?:tcp|udp|sctp)://")


def of_kubernetes(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the names that Kubernetes has set for a Service called ``sse-push`` or ``sse-push-…``.

    Each pod that starts after such a Service gets them, wanted or not. ``SSE_PUSH_PORT`` is one of
    them only as a link, ``tcp://…``: otherwise it is a setting.

    https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    found: set[str] = set()
    for match in map(_HOST_OF_A_SERVICE.fullmatch, environ):
        if match is None or f"{match[1]}SERVICE_PORT" not in environ:
            continue  # Kubernetes sets both
        link = f"{match[1]}PORT"
        of_this = re.compile(
            rf"{match[1]}(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|{_OF_A_PORT})"
        )
        found |= {name for name in environ if of_this.fullmatch(name)}
        if _LINK.match(environ.get(link, "")):
            found.add(link)
    return frozenset(found)
