"""The listening sockets that are taken over from an instance, whatever else it listens at."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from snaptx.apps import sockets


def test_a_socket_without_a_name_keeps_no_other_from_being_handed_on() -> None:
    with socket.socket(socket.AF_UNIX) as nameless, socket.create_server(("127.0.0.1", 0)) as public:
        nameless.bind(b"\0")  # an abstract name of no length
        nameless.listen()
        host, port = public.getsockname()
        with sockets.listening((f"{host}:{port}",), os.getpid()) as (given,):
            assert given.getsockname() == (host, port)


def test_a_file_that_is_named_as_an_address_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as one:
        address = "{}:{}".format(*one.getsockname())
    with socket.socket(socket.AF_UNIX) as local:
        local.bind(address)
        local.listen()
        with sockets.listening((address,), os.getpid()) as (given,):
            assert given.family == socket.AF_INET


def test_of_one_that_has_ended_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = os.fork()
    if not ended:
        os._exit(0)
    process = os.pidfd_open(ended)
    os.waitpid(ended, 0)
    monkeypatch.setattr(os, "pidfd_open", lambda _: process)
    with sockets.listening(("127.0.0.1:0",), ended) as given:
        assert len(given) == 1


@pytest.mark.parametrize("mode", [0o666, 0o600])
def test_who_may_connect_is_the_settings_choice_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "app.sock"
    before = os.umask(0o077)
    try:
        with sockets.listening((str(place),), 0, mode=mode):
            assert stat.S_IMODE(place.stat().st_mode) == mode
    finally:
        assert os.umask(before) == 0o077
