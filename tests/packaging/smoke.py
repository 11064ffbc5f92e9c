"""Run by an interpreter of its own: what was installed works, and holds what it should. Prints one line of JSON."""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import casdk
import numpy as np

SCHEMES = ("grpc", "grpcs", "http", "https", "websocket", "websockets")


def main() -> None:
    """Check the installation; with the extras also encode on every scheme."""
    site = Path(sysconfig.get_path("platlib"))
    assert Path(casdk.__file__).is_relative_to(site), casdk.__file__
    assert importlib.metadata.version("casdk") == casdk.__version__
    assert (site / "casdk" / "py.typed").exists()
    requires = importlib.metadata.requires("casdk") or []
    core = {re.split(r"[^A-Za-z0-9_-]", line)[0] for line in requires if "extra ==" not in line}
    assert core == {"numpy", "msgspec", "grpcio", "httpx", "websockets", "rich"}, core
    if importlib.util.find_spec("cyclopts") is None:
        run = subprocess.run([sys.executable, "-m", "casdk"], capture_output=True, text=True, check=False)
        assert run.returncode == 2, run
        assert 'pip install "casdk[cli]"' in run.stderr, run
    else:
        encode()
    print(json.dumps({"casdk": size(site / "casdk"), "all": size(site)}))


def encode() -> None:
    """Encode over six schemes against the embedded server, and let the doctor look at it."""
    from casdk.server import serve

    with serve() as served:
        for scheme in SCHEMES:
            tls = casdk.TLS(ca=served.ca) if scheme.endswith("s") else None
            with casdk.Client(served.address(scheme), tls=tls) as client:
                rows = client.encode(["she smiled, with pain", "another"])
            assert rows.shape == (2, 512), rows.shape
            assert np.isfinite(rows).all()
        command = Path(sys.executable).with_name("casdk")
        subprocess.run([command, "doctor", served.address("grpc")], check=True, stdout=sys.stderr)


def size(folder: Path) -> int:
    """Count the bytes that files take, without what Python made of them, and without pip."""
    kept = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(os.stat(path).st_size for path in kept if not {"__pycache__", "pip", "setuptools"} & set(path.parts))


if __name__ == "__main__":
    main()
