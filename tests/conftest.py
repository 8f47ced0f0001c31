"""What every test gets: no network, no hub, one thread for torch, repeatable Hypothesis examples.

Nothing is seeded globally: a test that needs randomness makes its own generator. The environment is set here,
before any test module imports torch or transformers, which read it once; subprocesses inherit it.
"""

import ipaddress
import os
import socket
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.update(
    AANG_AGAINST="none",  # a baseline for every small run would double the time of the suite
    AANG_PAGE="none",  # and drawing would be most of its time; `pages` asks for them
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",  # small tensors: more threads cost more than they bring
)

# First calls import scikit-learn or torch, so a time limit on examples would fail at random; derandomised, the
# gate gives the same answer to everybody.
settings.register_profile("gate", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("gate")

ROOT = Path(__file__).resolve().parent.parent


def _stays_here(address: object) -> bool:
    """Whether an address is on this machine: a Unix socket's path, or a loopback address."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in {"localhost", ""}


@pytest.fixture(autouse=True, scope="session")
def _no_network():
    """Connections that leave the machine fail with a message; gloo and multiprocessing may use loopback."""
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex"):
        original = getattr(socket.socket, name)

        def guarded(self, address, original=original):
            if not _stays_here(address):
                raise ConnectionRefusedError(
                    f"tests reach no network, but {address!r} was asked for"
                )
            return original(self, address)

        patch.setattr(socket.socket, name, guarded)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def pages():
    """Runs of the module leave their page, as they do for users."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AANG_PAGE")
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real tasks that lie beside the checkout (`../shared/data`); skips where they do not."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the task folders of ../shared/data beside the checkout")
    return folder
