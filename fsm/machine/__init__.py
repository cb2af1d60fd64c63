"""Machines: diagrams, graphs, settings, handlers, types of payloads. PURE: knows neither Redis nor RQ.

Reading order: `graph` (what a diagram means), `labels` and `names` (its grammar), `durations`, `draft` (a diagram while
it is read), `ornaments` (what stands beside the machine), `mermaid`, `flowchart`, `plantuml` (the syntaxes), `validate`
(the checks), `parse` (all together), `render`, `paths`; then `settings`, `decorators`, `signatures`, `marks`,
`definition`, `machine` (the class that users derive from), and `json_values` and `values` (the codecs of payloads and
data).

Who calls this: engine, store, client and users, by way of `fsm`.
"""

from fsm.machine.decorators import enter, guard, leave, on
from fsm.machine.definition import HOOKS, Definition, Handler
from fsm.machine.durations import Duration, duration_ms, duration_text, span_text
from fsm.machine.graph import END, Edge, Format, Graph, Guard
from fsm.machine.machine import Machine
from fsm.machine.marks import DefinitionMark, mark_of, read_mark
from fsm.machine.names import did_you_mean
from fsm.machine.parse import parse
from fsm.machine.settings import RetryPolicy, Settings
from fsm.machine.values import JSON, Codec, codec_for

__all__ = [
    "END",
    "HOOKS",
    "JSON",
    "Codec",
    "Definition",
    "DefinitionMark",
    "Duration",
    "Edge",
    "Format",
    "Graph",
    "Guard",
    "Handler",
    "Machine",
    "RetryPolicy",
    "Settings",
    "codec_for",
    "did_you_mean",
    "duration_ms",
    "duration_text",
    "enter",
    "guard",
    "leave",
    "mark_of",
    "on",
    "parse",
    "read_mark",
    "span_text",
]
