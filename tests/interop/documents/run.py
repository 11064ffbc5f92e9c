"""docarray's own documents against casdk: the suites beside this file, run by the interpreter of each version.

They are named so that an ordinary run of pytest does not collect them; `test_docarray.py` runs them.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from environment import DOCARRAYS, Environment

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SUITES = {
    environment.version: (environment, ["document.py", "document_verbs.py", "drop_in.py"])
    if environment.version.startswith("0.21.")
    else (environment, ["base_doc.py", "base_doc_verbs.py"])
    for environment in DOCARRAYS
}
"""Version of docarray -> where it is, and what is run against it."""


def run(environment: Environment, suites: list[str], urls: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run suites against a server; returns what pytest said.

    Args:
        environment: Whose docarray.
        suites: Names of files beside this one.
        urls: Address of the server's schemes.
    """
    variables = environment.variables | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), str(HERE.parent)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "120",
        "SERVER": json.dumps(urls),
    }
    pytest = [str(environment.python), "-m", "pytest", "-c", str(HERE / "pytest.ini")]
    command = [*pytest, *(str(HERE / suite) for suite in suites)]
    return subprocess.run(command, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
