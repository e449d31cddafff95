"""The scripts of ``benchmarks`` import each other by name, as Python lets scripts of one folder do."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
