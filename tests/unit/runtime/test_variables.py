"""The names of variables, and those that Kubernetes sets."""

from __future__ import annotations

import pytest

from sse_push.runtime.variables import of_kubernetes

SERVICE = {
    "SSE_PUSH_SERVICE_HOST": "10.96.0.12",
    "SSE_PUSH_SERVICE_PORT": "8000",
    "SSE_PUSH_SERVICE_PORT_HTTP": "8000",
    "SSE_PUSH_PORT": "tcp://10.96.0.12:8000",
    "SSE_PUSH_PORT_8000_TCP": "tcp://10.96.0.12:8000",
    "SSE_PUSH_PORT_8000_TCP_PROTO": "tcp",
    "SSE_PUSH_PORT_8000_TCP_PORT": "8000",
    "SSE_PUSH_PORT_8000_TCP_ADDR": "10.96.0.12",
}
"""What a pod gets that starts after a Service `sse-push` with a port `http`."""
INTERNAL = {name.replace("SSE_PUSH_", "SSE_PUSH_INTERNAL_"): text for name, text in SERVICE.items()}


@pytest.mark.parametrize("environ", [SERVICE, INTERNAL, {**SERVICE, **INTERNAL}])
def test_the_variables_of_a_service_of_kubernetes_are_recognized(environ: dict[str, str]) -> None:
    assert of_kubernetes({**environ, "SSE_PUSH_HOST": "::", "PATH": "/bin"}) == environ.keys()


def test_a_port_that_is_no_link_is_a_setting() -> None:
    assert "SSE_PUSH_PORT" not in of_kubernetes({**SERVICE, "SSE_PUSH_PORT": "8000"})


@pytest.mark.parametrize("missing", ["SSE_PUSH_SERVICE_HOST", "SSE_PUSH_SERVICE_PORT"])
def test_a_variable_that_kubernetes_never_sets_alone_is_not_recognized(missing: str) -> None:
    rest = {name: text for name, text in SERVICE.items() if name != missing}

    assert of_kubernetes(rest) == frozenset()


@pytest.mark.parametrize(
    "name", ["SSE_PUSH_SERVICE_HOSTS", "SSE_PUSH_PORT_HTTP_TCP", "SSE_PUSH_OTHER_PORT", "A_PORT"]
)
def test_another_variable_is_not_recognized_beside_those(name: str) -> None:
    assert of_kubernetes({**SERVICE, name: "tcp://10.96.0.12:8000"}) == SERVICE.keys()
