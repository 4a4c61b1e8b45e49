"""For tests of the mesh: what Engine 20.10 answered on a worker with a task."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from v6fwd.docker.swarm.ingress import Ingress, read_ingress

_RECORDED = json.loads(Path(__file__).with_name("ingress-20.10.json").read_text())

HERE, THERE = "10.0.0.7", "10.0.0.6"
"""The task of the service `pub` on the node that answered, and the one on another node."""
CONTAINER = "9e476f451fd0c6b4fd67e2a0072461b0390963195b53bf890e774ba0b7a28465"
"""The container of the first."""


def recorded() -> dict[str, Any]:
    """A copy of the answer to GET /networks/ingress?verbose=true."""
    answer: dict[str, Any] = copy.deepcopy(_RECORDED)
    return answer


def ingress(*tasks: str, port: int = 8080, more: dict[str, Any] | None = None) -> Ingress:
    """The same with these tasks of the service alone, at a published port, and more services."""
    answer = recorded()
    service = answer["Services"]["pub"]
    service["Tasks"] = [each for each in service["Tasks"] if each["EndpointIP"] in tasks]
    service["Ports"] = [f"Target: 80, Publish: {port}"]
    answer["Services"] |= more or {}
    return read_ingress(answer)
