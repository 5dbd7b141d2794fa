"""How a partner system connects to a Guantong node, and how it reads what the node refuses.

Copy this file. It needs `grpcio`, `grpcio-status` and `googleapis-common-protos`, and knows nothing of this project.
"""

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# Every call ends within half a minute. A node that cannot be reached for a moment is asked again: with a request id,
# which every write takes, that is safe. Streams that go on without end have no limit of time.
ENDLESS = [
    {"service": "guantong.v1.SubscriptionService", "method": "ReadChanges"},
    {"service": "guantong.v1.AggregateService", "method": "StreamAggregates"},
]
AGAIN = {
    "maxAttempts": 4,
    "initialBackoff": "0.5s",
    "maxBackoff": "10s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
MANNERS = {"methodConfig": [{"name": ENDLESS}, {"name": [{}], "timeout": "30s", "retryPolicy": AGAIN}]}


def connect(address, folder):
    """A channel to a node, `host:port`, with the certificate that `guantong pki issue partner` wrote into a folder.

    Both sides show a certificate. The node's must name the host that is dialled: nothing here overrides that.
    """
    folder = Path(folder)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=(folder / "authority.pem").read_bytes(),
        private_key=(folder / "key.pem").read_bytes(),
        certificate_chain=(folder / "certificate.pem").read_bytes(),
    )
    return grpc.secure_channel(address, credentials, options=[("grpc.service_config", json.dumps(MANNERS))])


@dataclass
class Problem:
    """What a node refused, and why."""

    code: grpc.StatusCode
    # For people: what is wrong and what to do.
    message: str
    # For programs, such as `STALE`, with what belongs to it.
    reason: str = ""
    metadata: dict = field(default_factory=dict)
    # What is wrong with which field, by the field's name in the caller's words.
    fields: dict = field(default_factory=dict)
    # Ask again after so many seconds; none where the node does not say.
    retry_after_s: float | None = None


def problem_of(error):
    """Reads a `grpc.RpcError`: its code and text, and the details of Google's API guide that come with it."""
    problem = Problem(error.code(), error.details())
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            problem.reason, problem.metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad_request):
            problem.fields = {wrong.field: wrong.description for wrong in bad_request.field_violations}
        elif detail.Unpack(retry):
            problem.retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    return problem


@contextlib.contextmanager
def refused(code):
    """Wants what is inside to be refused with this code, and gives the details: `with refused(...) as problem:`."""
    problem = Problem(code, "")
    try:
        yield problem
    except grpc.RpcError as error:
        problem.__dict__.update(problem_of(error).__dict__)
        assert problem.code == code, f"refused with {problem}"
    else:
        raise AssertionError(f"this should have been refused with {code}")
