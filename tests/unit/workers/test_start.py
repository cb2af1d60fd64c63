"""What each start of a worker is spared: it is paid for by everybody who runs one, in tests a thousand times."""

from __future__ import annotations

import json
import subprocess
import sys

SPARED = {
    "fsm.backup.directory",
    "fsm.backup.restoring",
    "fsm.client",
    "fsm.machine.flowchart",
    "fsm.machine.plantuml",
    "fsm.registry",
    "rich",
    "sqlalchemy",
}
LOADED = """
import json, sys
from fsm import Machine
import workers.command, workers.worker

class Door(Machine):
    diagram = "stateDiagram-v2\\n[*] --> open\\nopen --> [*] : shut"

workers.command.log_to_stderr("info")
print(json.dumps(sorted(sys.modules)))
"""


def test_a_worker_imports_nothing_that_it_does_not_need() -> None:
    # Seen to fail with `fsm.client`, `fsm.backup` and rich imported at the top of what imports them.
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, check=True)

    loaded = set(json.loads(done.stdout))
    assert {"fsm.machine.mermaid", "rq", "workers.worker"} <= loaded
    assert not SPARED & loaded
