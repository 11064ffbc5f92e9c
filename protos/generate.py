"""Write python/casdk/wire/ from the .proto files: ``python protos/generate.py [DIRECTORY]``."""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent
WIRE = HERE.parent / "python" / "casdk" / "wire"
SOURCES = ("docarray.proto", "jina.proto")


def generate(target: Path) -> None:
    """Write the modules and their stubs into ``target``.

    Raises:
        RuntimeError: protoc refused a file; it has said why on stderr.
    """
    well_known = files("grpc_tools") / "_proto"
    roots = [f"--proto_path={HERE}", f"--proto_path={well_known}"]
    if protoc.main(["protoc", *roots, f"--python_out={target}", f"--pyi_out={target}", *SOURCES]) != 0:
        raise RuntimeError("protoc failed")
    for path in target.glob("*_pb2.py*"):
        path.write_text(_inside_package(path.read_text()))


def _inside_package(source: str) -> str:
    """Let the modules import each other from the package they lie in; protoc takes them to be top level.

    In the stubs it also leaves open what a mapping of field names holds.
    """
    source = re.sub(r"^import (docarray_pb2)", r"from . import \1", source, flags=re.MULTILINE)
    source = source.replace("from typing import ClassVar as", "from typing import Any as _Any, ClassVar as")
    return re.sub(r"_Mapping(?=\])", "_Mapping[str, _Any]", source)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else WIRE)
