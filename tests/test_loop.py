"""The engine's loop runs every job of a process, and refuses to wait for itself."""

import asyncio
import sys
import threading

import pytest
from casdk._engine.process import engine
from casdk._engine.waiting import run
from casdk.errors import ClosedError


def test_a_job_runs_on_the_one_engine():
    async def job(caller):
        return where(), asyncio.get_running_loop()

    (name, loop), (_, again) = run(job), run(job)
    assert name == "casdk-engine"
    assert loop is again is engine().loop


def test_a_call_does_not_walk_through_the_modules_of_its_process(monkeypatch):
    class Modules(dict):
        """What a large program has thousands of."""

        walks = 0

        def __iter__(self):
            Modules.walks += 1
            return super().__iter__()

    async def job(caller):
        return where()

    monkeypatch.setattr(sys, "modules", Modules(sys.modules))
    assert run(job) == "casdk-engine"
    assert Modules.walks == 0


def test_the_engine_refuses_to_wait_for_itself():
    async def inner(caller):
        return None

    async def job(caller):
        run(inner)

    with pytest.raises(ClosedError, match="own engine thread"):
        run(job)


def where():
    return threading.current_thread().name
