"""RQ's records as RQ's own objects, ids of jobs, and snapshots with typed payloads.

Who calls this: the client. One of the few modules that import rq.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from fsm.errors import PayloadError, StoreError

if TYPE_CHECKING:
    import redis
    from rq.job import Job  # noqa: TC004 - for annotations alone, also of who imports it from here

    from fsm.machine import Machine
    from fsm.store.codec import Snapshot

__all__ = ["Job", "checked_id", "rq_job", "typed"]

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def checked_id(job_id: Any, *, ours: bool = False) -> str:
    """Check an id of a job.

    Args:
        job_id: What the caller gave.
        ours: Also accept ids that are derived (with `--`), as those of hard events are.

    Raises:
        PayloadError: RQ does not allow it, or it looks like one of ours.
    """
    if not isinstance(job_id, str) or not _ID.fullmatch(job_id):
        problem = f"a job id is 1 to 128 letters, digits, '_' and '-', not {job_id!r}"
        raise PayloadError(problem, "job_id")
    if not ours and "--" in job_id:
        problem = f"a job id of your own must not contain '--', which marks derived ids: {job_id!r}"
        raise PayloadError(problem, "job_id")
    return job_id


def rq_job(client: redis.Redis, job_id: str) -> Job:
    """Fetch RQ's job.

    Raises:
        StoreError: There is no record of it.
    """
    # Few clients want one, and each would pay for the import of RQ when it starts.
    from rq.exceptions import NoSuchJobError  # noqa: PLC0415 - as above
    from rq.job import Job  # noqa: PLC0415 - as above
    from rq.serializers import JSONSerializer  # noqa: PLC0415 - as above

    try:
        return Job.fetch(job_id, connection=client, serializer=JSONSerializer)
    except NoSuchJobError as error:
        problem = f"job {job_id} has no record: it was deleted, or ended longer ago than result_ttl"
        raise StoreError(problem) from error


def typed(snapshot: Snapshot, machine: type[Machine[Any]] | None) -> Snapshot:
    """Give the snapshot with a payload of the machine's type.

    Raises:
        StoreError: The payload is not of that type.
    """
    if machine is None:
        return snapshot
    try:
        payload = machine.definition.payload.decode(orjson.dumps(snapshot.payload))
    except PayloadError as error:
        problem = f"the payload of FSM {snapshot.name!r} is not of the type of {machine.__qualname__}: {error}"
        ours = machine.definition
        if (version := ours.settings.definition_version) != snapshot.definition_version:
            problem += (
                f"; definition {snapshot.definition} (version {snapshot.definition_version}) wrote it, and this is "
                f"{ours.fingerprint} (version {version}): ask by name alone for what is there"
            )
        raise StoreError(problem) from error
    return replace(snapshot, payload=payload)
