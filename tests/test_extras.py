"""Whatever of casdk needs an extra says which one, in one sentence."""

import subprocess
import sys

import pytest
from casdk._extras import missing_extra
from casdk.server import ServerDiedError, serve

WITHOUT = "import sys; sys.modules.update(dict.fromkeys({libraries!r})); "


def run(libraries, program, *arguments):
    """Run a program where these libraries are not installed."""
    program = WITHOUT.format(libraries=libraries) + program
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)


MODULE = "import runpy; runpy.run_module('casdk.server', run_name='__main__', alter_sys=True)"
COMMAND = "from casdk.cli import main; sys.exit(main())"
ONNX = ("--encoder", "onnx", "--model", ".")


@pytest.mark.parametrize(
    ("program", "library", "arguments", "extra"),
    [
        *((MODULE, library, (), "server") for library in ("PIL", "grpc", "uvicorn", "sqlite_vec")),
        (COMMAND, "PIL", ("serve",), "server"),
        (COMMAND, "apsw", ("serve",), "server"),
        (MODULE, "onnxruntime", ONNX, "onnx"),
        (COMMAND, "ftfy", ("serve", *ONNX), "onnx"),
    ],
)
def test_the_server_without_its_extra(program, library, arguments, extra):
    ran = run([library], program, *arguments, "--free-ports", "--schemes", "http")
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert f'needs {library}: pip install "casdk[{extra}]"' in ran.stderr


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [
        ("casdk.testing", "h2", "testing"),
        ("casdk.testing", "cryptography", "testing"),
        ("casdk.testing", "websockets", "testing"),
        ("casdk.interop.langchain", "langchain_core", "langchain"),
        ("casdk.interop.llamaindex", "llama_index", "llamaindex"),
    ],
)
def test_a_module_without_its_extra(module, library, extra):
    ran = run([library], f"import {module}")
    assert ran.stderr.splitlines()[-1].startswith(f"ImportError: {module} needs {library}")
    assert ran.stderr.rstrip().endswith(f': pip install "casdk[{extra}]"')


@pytest.mark.parametrize(
    ("address", "library"),
    [
        ("grpc://host:1", "grpc"),
        ("grpcs://host:1", "grpc"),
        ("ws://host:1", "websockets"),
        ("wss://host:1", "websockets"),
    ],
)
def test_a_client_on_the_libraries_without_their_extra(address, library):
    ran = run([library], "import casdk; casdk.Client(sys.argv[1], transport='libraries')", address)
    said = ran.stderr.splitlines()[-1]
    assert said.startswith("casdk.errors.ConfigError: ")
    assert f'with transport="libraries" needs {library}' in said
    assert said.endswith('pip install "casdk[libraries]"')


def test_testing_needs_nothing_of_the_servers_extra():
    """It shares what the server answers, and neither its images nor its index."""
    program = "import casdk; from casdk.testing import FaultServer\n"
    program += "with FaultServer(width=4) as server, casdk.Client(server.address('grpc')) as client:\n"
    program += "    client.index(['a', 'b'])\n"
    program += "    print(client.search(['b'], limit=1)[0].matches[0].text)"
    ran = run(["PIL", "uvicorn", "apsw", "sqlite_vec"], program)
    assert (ran.returncode, ran.stdout) == (0, "b\n"), ran.stderr


def test_a_function_without_its_extra():
    ran = run(["pyspark"], "import casdk; from casdk.interop.spark import udf; udf(casdk.Client('grpc://there:1'))")
    assert "casdk.interop.spark needs pyspark" in ran.stderr.splitlines()[-1]


def test_a_program_that_serves_says_the_same(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['uvicorn'] = None")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ServerDiedError, match=r'needs uvicorn: pip install "casdk\[server\]"'), serve():
        raise AssertionError("it was served")


def test_what_is_not_missing_is_told_as_it_is():
    error = ImportError("cannot import name 'x' from 'casdk.y'", name="casdk.y")
    assert missing_extra("z", "server", error) is error
