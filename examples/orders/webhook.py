"""What the carrier calls when a parcel has arrived: a web-hook, repeated until the carrier hears that it was taken.

The id of the carrier's notice is the key of the event, so a notice that comes twice is one event, also after days
(`Settings(dedup="1d")` by default). How errors become status codes is the table of docs/errors.md.

Who calls this: `python -m examples.orders.webhook`, and a web framework would call `notify` likewise.
"""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from examples.orders.machine import Order
from fsm import Client, FSMError, FSMFinishedError, MailboxFullError, RefusedError, StoreError, UnknownFSMError

__all__ = ["main", "notify"]


def notify(client: Client, body: bytes) -> tuple[int, dict[str, Any]]:  # noqa: PLR0911 - one return a status
    """Take one notice: `{"id": "evt_7", "order": "order-42"}`.

    Args:
        client: Of the Redis where orders live.
        body: As it came.

    Returns:
        Status and body of the reply. 200 says that the event is kept; it is applied when its turn comes.
    """
    try:
        notice = json.loads(body)
        notice_id, name = str(notice["id"]), str(notice["order"])
    except (ValueError, KeyError, TypeError):
        return 400, {"error": 'a notice is {"id": …, "order": …}'}
    try:
        job = client.transition(name, "deliver", key=f"carrier:{notice_id}", meta={"actor": "carrier"}, machine=Order)
    except UnknownFSMError as error:
        return 404, {"error": str(error)}
    except (FSMFinishedError, RefusedError) as error:
        return 409, {"error": str(error)}
    except MailboxFullError as error:
        return 429, {"error": str(error)}
    except StoreError as error:
        # Nobody knows whether it was taken: the carrier repeats it, and the key sees to the rest.
        return 503, {"error": str(error)}
    except FSMError as error:
        return 422, {"error": str(error)}
    return 200, {"job": job.id}


def main(arguments: list[str] | None = None) -> None:
    """Listen on a port of this host, until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m examples.orders.webhook", description="Take notices of a carrier.")
    parser.add_argument("--url", metavar="URL", help="Redis; by default FSM_URL, else redis://localhost:6379/0")
    parser.add_argument("--port", type=int, default=8042, metavar="N", help="of 127.0.0.1 (8042); 0 takes a free one")
    options = parser.parse_args(arguments)
    client = Client(options.url)

    class Notices(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name is that of http.server
            size = int(self.headers.get("Content-Length", 0))
            status, reply = notify(client, self.rfile.read(size))
            raw = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    with client, ThreadingHTTPServer(("127.0.0.1", options.port), Notices) as server:
        print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
