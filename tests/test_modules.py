"""The first client imports everything that its calls need, so that no call imports anything."""

import subprocess
import sys

import pytest
from casdk import _modules
from casdk._modules import Late, load
from casdk._transport.address import module_of, parse_address
from casdk.errors import ConfigError

ADDRESSES = {"grpc": "grpc://127.0.0.1:1", "http": "http://127.0.0.1:1", "websocket": "ws://127.0.0.1:1"}
NEW = """
import sys
import casdk
before = set(sys.modules)
with casdk.Client({address!r}) as client:
    made = set(sys.modules)
    try:
        client.encode(["a"])
    except casdk.TransportError:
        pass
print(*sorted(name for name in made - before if name.startswith("casdk.")))
print(*sorted(name for name in set(sys.modules) - made if name.startswith("casdk.")))
"""


@pytest.mark.parametrize("channel", ADDRESSES)
def test_the_first_client_imports_what_its_calls_need_and_of_the_channels_its_own(channel):
    script = NEW.format(address=ADDRESSES[channel])
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    by_client, by_call = (line.split() for line in ran.stdout.splitlines())
    every = [module_of(parse_address(address)) for address in ADDRESSES.values()]
    channels = [module for module in every if module in by_client]
    assert {*_modules.MODULES} <= {*by_client}
    assert channels == [module_of(parse_address(ADDRESSES[channel]))]
    assert by_call == []


def test_a_late_module_is_imported_when_it_is_asked_for_something(monkeypatch):
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    late = Late("wave")
    assert "wave" not in sys.modules
    opened = late.open
    assert sys.modules["wave"].open is opened
    assert vars(late)["open"] is opened
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = late.no_such_name


def test_a_client_in_the_middle_of_the_first_one_is_an_error_and_harms_nothing(monkeypatch):
    """A signal's handler may make one at any line of the other."""
    endpoint = parse_address(ADDRESSES["http"])
    monkeypatch.setattr(_modules, "_loaded", set())
    imported = []

    def import_module(name):
        imported.append(name)
        with pytest.raises(ConfigError, match="makes the first one"):
            load(endpoint)

    monkeypatch.setattr(_modules, "import_module", import_module)
    load(endpoint)
    assert imported == [*_modules.MODULES, "casdk._transport.channels.http1"]
    load(endpoint)
    assert len(imported) == len(_modules.MODULES) + 1


def test_an_import_that_fails_is_tried_again(monkeypatch):
    monkeypatch.setattr(_modules, "_loaded", set())
    monkeypatch.setattr(_modules, "MODULES", ("casdk.no_such_module",))
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            load(parse_address(ADDRESSES["grpc"]))
    assert _modules._loading == set()
