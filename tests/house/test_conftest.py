"""The promises of conftest.py: the network is out of reach, loopback is not."""

import socket

import pytest


def test_no_test_reaches_the_network():
    # 192.0.2.0/24 is reserved for documentation: nothing answers there, should the guard fail.
    with (
        socket.socket() as outside,
        pytest.raises(ConnectionRefusedError, match="tests reach no network"),
    ):
        outside.connect(("192.0.2.1", 80))


def test_loopback_stays_open():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())
