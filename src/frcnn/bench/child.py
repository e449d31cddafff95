"""A fresh process that measures how much memory one contender takes: ``python -m frcnn.bench.child``.

It reads an order as JSON from stdin and answers ``{"bytes": growth or null}`` on stdout. Orders:
``{"workload": {...}, "contender": {...}}`` for steps, ``{"matching": side, "objects": n, "threads": t}`` for
anchor matching.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import torch

from frcnn.bench.memory import resident_growth
from frcnn.bench.operators import matching_call
from frcnn.bench.steps import make_steps
from frcnn.bench.workload import Contender, Workload


def answer(order: Mapping[str, Any]) -> dict[str, int | None]:
    """Measure in this process."""
    if "matching" in order:
        call = matching_call(order["matching"], order["objects"], torch.device("cpu"))
        return {"bytes": resident_growth(call, 1)}
    contender = Contender(**order["contender"])
    step = make_steps(Workload(**order["workload"]), [contender])[contender.name]
    return {"bytes": resident_growth(step)}


def main() -> None:
    """Read, measure, answer."""
    order = json.load(sys.stdin)
    threads = order.get("threads") or order.get("workload", {}).get("threads", 0)
    if threads:
        torch.set_num_threads(threads)
    print(json.dumps(answer(order)))


if __name__ == "__main__":
    main()
