"""For all tests and the processes they start: no network. A user without it must not notice."""

import os
import runpy
from pathlib import Path

OFFLINE = Path(__file__).with_name("offline")

# Python loads ``sitecustomize`` from the first folder of its path that has one: this blocks child processes.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [
        str(OFFLINE),
        *(p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != str(OFFLINE)),
    ]
)
runpy.run_path(str(OFFLINE / "sitecustomize.py"))
