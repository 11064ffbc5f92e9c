"""Run by an interpreter of its own: what was installed works, and holds what it should. Prints one line of JSON.

Its argument is what a server says when it is ready; where there is none, it runs a server itself.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import casdk
import numpy as np


def main() -> None:
    """Check the installation, and encode on every scheme."""
    site = Path(sysconfig.get_path("platlib"))
    assert Path(casdk.__file__).is_relative_to(site), casdk.__file__
    assert importlib.metadata.version("casdk") == casdk.__version__
    assert (site / "casdk" / "py.typed").exists()
    requires = importlib.metadata.requires("casdk") or []
    core = {re.split(r"[^A-Za-z0-9_-]", line)[0] for line in requires if "extra ==" not in line}
    assert core == {"numpy", "msgspec", "httpx", "rich"}, core
    if len(sys.argv) > 1:
        without_extras(json.loads(sys.argv[1]))
    else:
        with_extras()
    print(json.dumps({"casdk": size(site / "casdk"), "all": size(site)}))


def without_extras(ready: dict[str, Any]) -> None:
    """Encode on every scheme against a server that runs elsewhere, and see that what needs an extra says so."""
    for library in ("grpc", "websockets"):
        assert importlib.util.find_spec(library) is None, library
    addresses = ready["addresses"]
    encode(addresses, ready["ca"])
    for scheme in ("grpc", "websocket"):
        said = refusal(addresses[scheme], transport="libraries")
        assert 'pip install "casdk[libraries]"' in said, said
    run = subprocess.run([sys.executable, "-m", "casdk"], capture_output=True, text=True, check=False)
    assert run.returncode == 2, run
    assert 'pip install "casdk[cli]"' in run.stderr, run


def with_extras() -> None:
    """Encode on every scheme against the embedded server, by either kind of channel; let the doctor look at it."""
    from casdk.server import serve

    with serve() as served:
        encode(served.addresses, served.ca)
        encode(served.addresses, served.ca, transport="libraries")
        command = Path(sys.executable).with_name("casdk")
        subprocess.run([command, "doctor", served.address("grpc")], check=True, stdout=sys.stderr)


def refusal(address: str, **options: Any) -> str:
    """Return why there is no client of an address."""
    try:
        casdk.Client(address, **options)
    except casdk.ConfigError as error:
        return str(error)
    raise AssertionError(address)


def encode(addresses: Mapping[str, str], ca: Path | str, **options: Any) -> None:
    """Encode on every scheme."""
    assert len(addresses) == 6, addresses
    for scheme, address in addresses.items():
        tls = casdk.TLS(ca=ca) if scheme.endswith("s") else None
        with casdk.Client(address, tls=tls, **options) as client:
            rows = client.encode(["she smiled, with pain", "another"])
        assert rows.shape == (2, 512), rows.shape
        assert np.isfinite(rows).all()


def size(folder: Path) -> int:
    """Count the bytes that files take, without what Python made of them, and without pip."""
    kept = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(os.stat(path).st_size for path in kept if not {"__pycache__", "pip", "setuptools"} & set(path.parts))


if __name__ == "__main__":
    main()
