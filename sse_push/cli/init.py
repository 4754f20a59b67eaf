"""``sse-push init``: files to run the service with, from this version of the package."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from sse_push.errors import ConfigError

_KIT = Path(__file__).parents[1] / "kit"
_NGINX = Path(__file__).parents[2] / "nginx"
"""In a checkout; a wheel has these files with the others."""

_MADE_BY_NGINX = ("run", "run.pid", "tls")
"""What nginx makes in its folder, and the certificate for trying out."""

_KITS = {
    "nginx": (("nginx", "."),),
    "systemd": (("systemd", "."),),
    "container": (("container", "."),),
    "compose": (("compose", "."), ("container", "."), ("nginx", "nginx")),
    "kubernetes": (("kubernetes", "."),),
    "grafana": (("grafana", "."),),
    "alerts": (("alerts", "."),),
}
"""Each kit: folders of files, and where they go."""

_NEXT = {
    "nginx": "nginx -t -p {folder}/ -c nginx.conf",
    "systemd": "systemd-analyze verify {folder}/sse-push.service {folder}/sse-push.socket",
    "container": "put the wheel into {folder}, and: docker build -t sse-push -f "
    "{folder}/Containerfile {folder}",
    "compose": "put the wheel into {folder}; sse-push keys > {folder}/.env; docker compose -f "
    "{folder}/compose.yaml up --build",
    "kubernetes": "kubectl apply -k {folder}",
    "grafana": "import {folder}/sse-push.json in Grafana: Dashboards, New, Import",
    "alerts": "promtool test rules {folder}/sse-push.tests.yml",
}


@click.command()
@click.argument("kit", metavar="KIT", type=click.Choice(tuple(_KITS)))
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="overwrite files that are there")
def init(*, kit: str, folder: Path | None, force: bool) -> int:
    """Write the files of a KIT, to run the service with.

    KIT is nginx, systemd, container, compose, kubernetes, grafana or alerts.

    DIR is a folder, by default one with the name of the kit, here. Nothing is overwritten without
    --force. The page `deploy.md` says what to do with the files (`sse-push docs` prints where).

    \b
    Example:
      sse-push init systemd
      sse-push init nginx /etc/sse-push/nginx
    """
    folder = Path(kit) if folder is None else folder
    files = {folder / target: source for target, source in _files(kit)}
    there = [str(path) for path in files if path.exists() or path.is_symlink()]
    if there and not force:
        raise ConfigError(
            f"expected none of these files, got {', '.join(there)}: choose another DIR, or "
            "overwrite them with --force"
        )
    _write(files)
    for path in files:
        click.echo(path)
    click.echo(f"next: {_NEXT[kit].format(folder=folder)}", err=True)
    return 0


def _files(kit: str) -> Iterator[tuple[Path, Path]]:
    """Yield each file of a kit, by its place in the folder, and where it is now."""
    for name, target in _KITS[kit]:
        source = _NGINX if name == "nginx" and not (_KIT / name).exists() else _KIT / name
        for path in sorted(source.rglob("*")):
            place = path.relative_to(source)
            if path.is_file() and place.parts[0] not in _MADE_BY_NGINX:
                yield Path(target) / place, path


def _write(files: Mapping[Path, Path]) -> None:
    """Copy files, with their modes.

    Raises:
        ConfigError: a file can't be written; the text names it.
    """
    for target, source in files.items():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            content = source.read_bytes()
            target.unlink(missing_ok=True)  # a link is replaced, not followed
            target.write_bytes(content)
            shutil.copymode(source, target)
        except OSError as exc:
            raise ConfigError(f"expected to write {target}, got: {exc.strerror}") from exc
