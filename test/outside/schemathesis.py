"""What an OpenAPI document cannot say of this API, for Schemathesis."""
import os
import re

import schemathesis
from schemathesis.openapi.checks import RejectedPositiveData

# Long polls are answered after so many ms, or the run would mostly wait.
WAIT_MS_MAX = 20

KEY_MAX = 256


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """The document is written for a server that has keys. One that has none asks for none."""
    if "TOPICS_API_KEYS" in os.environ:
        return
    for path in raw_schema["paths"].values():
        for operation in path.values():
            operation.pop("security", None)


@schemathesis.hook
def before_call(context, case, **kwargs):
    if not isinstance(case.body, dict):
        return
    case.body = spelled(case.body)
    wait_ms = case.body.get("wait_ms")
    if type(wait_ms) is int and WAIT_MS_MAX < wait_ms < 2**32:
        case.body["wait_ms"] = WAIT_MS_MAX
    # Where the body has a key of its own, nobody looks at the header's.
    key = case.body.get("idempotency_key")
    if isinstance(key, str) and len(key) <= KEY_MAX and "Idempotency-Key" in (case.headers or {}):
        del case.body["idempotency_key"]


def spelled(value, name=""):
    """To JSON Schema 5.0 is an integer; the API wants integers spelled as such. Payloads stay as they are."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict) and name in ("", "config", "agent_envelope", "source_agent_card"):
        return {key: spelled(field, key or "?") for key, field in value.items()}
    if isinstance(value, dict) and name == "topics":
        return {key: spelled(field) for key, field in value.items()}
    if isinstance(value, list) and name == "seqs":
        return [spelled(seq, "seq") for seq in value]
    return value


@schemathesis.hook
def filter_failure(context, failure, case, response):
    # The schema is that of all of a stream, as text; its events have theirs in `x-events`.
    if failure.title == "SSE event violates schema":
        return False
    return not (isinstance(failure, RejectedPositiveData) and beyond_schemas(case, response.text))


def beyond_schemas(case, refusal):
    """Whether a refusal is by a rule that JSON Schema has no words for."""
    return (
        # Opaque: which strings are one, only the server knows.
        "cursor: not one" in refusal
        # JSON Schema counts characters.
        or re.search(r"longer than \d+ bytes", refusal) is not None
        # Compares fields with each other.
        or "as many as seqs" in refusal
        or "must be two topics" in refusal
        # Compares the body with the path.
        or "its own dead letter" in refusal
        # Which network an instance is of, only the server knows.
        or "network_id mismatch" in refusal
        # Any case, with spaces in places.
        or "scope_hint invalid" in refusal
        or "swarm_scope mismatch" in refusal
        # Counts all of an event, or looks at numbers as they are printed.
        or "event bytes" in refusal
        or "beyond 2^53-1" in refusal
        # What is needed of a lane goes by its kind.
        or "scope and feed_key are required" in refusal
        # A topic's name; in a write it is looked at only if that creates the topic.
        or "dead_letter is not" in refusal
        # Counts UTF-16 code units.
        or "log_id: 1 to" in refusal
    )
