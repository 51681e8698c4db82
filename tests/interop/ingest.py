#!/usr/bin/env python3
"""CloudEvents of the SDK from PyPI, published to the real binary in all three modes and read back.

    tests/interop/run ingest [path of the binary]

Prints `N passed, N failed`; the exit code says the same.
"""

import json
import os
import sys
import tempfile
from datetime import datetime, timezone

from cloudevents.core.bindings.http import HTTPMessage, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from black_box import Daemon

PATH = "/api/v1/events"
EVENTS = 60
AWKWARD = ["æøå 😀 \u2028", '\\ " / % \b\f\n\r\t', "", "100 % of it"]


def event(number):
    text = AWKWARD[number % len(AWKWARD)]
    attributes = {
        "id": f"nr {number} % \"æ\"",
        "source": f"https://claims.example/æ?part={number % 3}",
        "type": "com.example.claim.created",
        "time": datetime(2026, 11, 22, 10, 30, number % 60, 123456, tzinfo=timezone.utc),
        "datacontenttype": "application/json",
        "subject": f"claim/{number} of \"100 %\"",
        "traceparent": f"00-{number:032x}-00f067aa0ba902b7-01",
    }
    return CloudEvent(attributes=attributes, data={"number": number, "text": text, "amount": 1.5})


def modes(numbers):
    """Each mode's messages, and how many events are in each of them."""
    form = JSONFormat()
    structured = [to_structured(event(number), form) for number in numbers[0]]
    binary = [to_binary(event(number), form) for number in numbers[1]]
    members = [to_structured(event(number), form).body for number in numbers[2]]
    batch = HTTPMessage({"Content-Type": "application/cloudevents-batch+json"}, b"[" + b",".join(members) + b"]")
    return [("structured", structured, 1), ("binary", binary, 1), ("batched", [batch], len(members))]


def main():
    binary = os.path.abspath(sys.argv[1])
    passed = failed = 0

    def check(what, holds):
        nonlocal passed, failed
        passed, failed = passed + bool(holds), failed + (not holds)
        if not holds and failed <= 10:
            print(f"FAILED: {what}")

    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(binary, folder)
        try:
            numbers = [range(0, EVENTS), range(EVENTS, 2 * EVENTS), range(2 * EVENTS, 3 * EVENTS)]
            for mode, messages, count in modes(numbers):
                for message in messages:
                    # Twice: the second time it is the same event.
                    first = daemon.send(PATH, message.body, message.headers)
                    again = daemon.send(PATH, message.body, message.headers)
                    check(f"{mode}: {first}", first[0] == (201 if count == 1 else 200))
                    check(f"{mode}, again: {again}", again[0] == 200)
                    receipts = [[answer[1]] if count == 1 else answer[1].get("results", []) for answer in (first, again)]
                    check(f"{mode}: {count} receipts", len(receipts[0]) == count)
                    for one, two in zip(*receipts):
                        check(f"{mode}, again: {two}", two == {**one, "duplicate": True})
            # The other way round: what was structured is the same event in the binary mode.
            swapped = to_binary(event(0), JSONFormat())
            status, answer = daemon.send(PATH, swapped.body, swapped.headers)
            check(f"the same event in another mode: {status} {answer}", status in (200, 409) and answer["id"] == 1)
            kept = json.loads(daemon.get(f"{PATH}?limit=200"))["events"]
            check(f"{len(kept)} events are kept", len(kept) == 3 * EVENTS)
            for number, envelope in enumerate(kept):
                made = event(number)
                metadata = json.loads(envelope["metadata"])
                check(f"{number}: the data", json.loads(envelope["payload"]) == made.get_data())
                check(f"{number}: the type", envelope["type"] == made.get_type())
                check(f"{number}: id and source", (metadata["id"], metadata["source"]) == (made.get_id(), made.get_source()))
                check(f"{number}: the subject", metadata["subject"] == made.get_subject())
                check(f"{number}: the extension", metadata["traceparent"] == made.get_extension("traceparent"))
            text = CloudEvent(attributes={"id": "t", "source": "s", "type": "t", "datacontenttype": "text/plain"}, data="hello")
            for mode, message, expected in [
                ("structured", to_structured(text, JSONFormat()), 400),
                ("binary", to_binary(text, JSONFormat()), 415),
            ]:
                status, answer = daemon.send(PATH, message.body, message.headers)
                check(f"{mode} text is refused: {status} {answer}", status == expected)
        finally:
            daemon.stop()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
