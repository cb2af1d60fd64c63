"""A document that two of three must approve, in any order, and none of them a text that they have not read.

    fsm worker --app examples.approval                     as many as you like, on any host
    python -m examples.approval [--url URL]                two documents, from the first draft to the last word

Reading order: `machine` (the diagram and its handlers), `desk` (how people are shown a document, and decide on what
they were shown). The page is docs/examples/approval.md.

Who calls this: `make examples`, and readers. It imports what `fsm` offers to everyone.
"""

from examples.approval.machine import Approval, Document

__all__ = ["Approval", "Document"]
