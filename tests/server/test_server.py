"""``python -m casdk.server`` in a process of its own: its options, its lines, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from casdk.server import ServerDiedError, serve


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(number):
    with serve() as served:
        os.kill(served.pid, number)
        assert served.stop() == 0
        assert served.log().endswith("finishing what was asked\n")


def test_it_ends_with_a_killed_parent(raw):
    script = """
import signal
from casdk.server import serve
with serve() as served:
    print(served.pid, served.ca, flush=True)
    signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        pid, certificate = parent.stdout.readline().split()
        parent.kill()
        parent.wait()
    assert raw.ended(int(pid))
    assert not Path(certificate).parent.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schemes": ["ftp"]}, "no scheme 'ftp'"),
        ({"schemes": ["http"], "ports": {"grpc": 1}}, "not among those served"),
        ({"cert": "/nowhere/cert.pem", "key": "/nowhere/key.pem"}, "No such file"),
        ({"encoder": "onnx:/nowhere"}, "/nowhere"),
        ({"grace": float("nan")}, "grace must be a number of seconds from 0 to 86400"),
        ({"token": " s3cret"}, "no client can send a token with white space"),
    ],
)
def test_what_cannot_be_served_is_said(options, words):
    """The other options that `test_settings.py` has refused come the same way."""
    with pytest.raises(ServerDiedError, match=words) as death:
        serve(**options).__enter__()
    assert "Traceback" not in str(death.value)


def test_a_terminal_that_is_closed_ends_it_cleanly():
    """It left a directory behind, with a key in it."""
    with serve(schemes=["https"]) as served:
        directory = served.ca.parent
        os.kill(served.pid, signal.SIGHUP)
        assert served.stop() == 0
    assert not directory.exists()


@pytest.mark.soak
def test_a_hangup_that_is_ignored_stays_ignored():
    command = ["nohup", sys.executable, "-m", "casdk.server", "--free-ports", "--schemes=http", "--ready-json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        address = json.loads(process.stdout.readline())["addresses"]["http"]
        process.send_signal(signal.SIGHUP)
        assert httpx.get(address).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--encoder", "onnx"], "--encoder onnx and --model DIR come together"),
        (["--model", "models"], "--encoder onnx and --model DIR come together"),
        (["--port", "http=²"], "'http=²' is not of the form SCHEME=PORT"),
        (["--port", "http=٣"], "'http=٣' is not of the form SCHEME=PORT"),
    ],
)
def test_options_that_say_nothing_are_refused(options, words):
    command = [sys.executable, "-m", "casdk.server", "--free-ports", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_address_of_ipv6_may_stand_in_brackets():
    command = [sys.executable, "-m", "casdk.server", "--free-ports", "--schemes=http", "--ready-json", "--host=[::1]"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        address = json.loads(process.stdout.readline())["addresses"]["http"]
        assert address.startswith("http://[::1]:")
        assert httpx.get(address).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_help_and_versions_of_the_command():
    command = [sys.executable, "-m", "casdk.server"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    assert "it is not CLIP" in " ".join(shown.split())
    assert "51443" in shown
    wrong = subprocess.run([*command, "--port", "grpc"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "SCHEME=PORT" in wrong.stderr


def test_the_ready_line_is_all_that_stdout_gets():
    command = [sys.executable, "-m", "casdk.server", "--free-ports", "--schemes=http", "--ready-json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        ready = json.loads(process.stdout.readline())
        assert ready["pid"] == process.pid
        assert httpx.get(ready["addresses"]["http"]).status_code == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
    assert (out, process.returncode) == ("", 0)
    assert ready["addresses"]["http"] in err
