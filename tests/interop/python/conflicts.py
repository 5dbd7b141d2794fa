"""Two sides wrote the same field while the line between them was cut. Both values stand until somebody decides.

tests/tests/interop_clients.rs cuts the line: the township says green of the case's risk, the county red.
"""

import grpc
from guantong.v1 import case_pb2, conflict_service_pb2, conflict_service_pb2_grpc

from client import refused
from scene import COUNTY, TOWNSHIP, step

CASE = f"divisions/{TOWNSHIP}/cases/two-minds"
CONFLICT = f"{CASE}/conflicts/risk"


def listed(conflicts, **conditions):
    """Names of the county's conflicts."""
    request = conflict_service_pb2.ListConflictsRequest(parent=f"divisions/{COUNTY}", **conditions)
    return [conflict.name for conflict in conflicts.ListConflicts(request).conflicts]


def story(scene):
    """Somebody at the county looks at both values, and decides."""
    with scene.at_county("operator") as channel:
        conflicts = conflict_service_pb2_grpc.ConflictServiceStub(channel)
        assert CONFLICT in listed(conflicts)
        found = conflicts.GetConflict(conflict_service_pb2.GetConflictRequest(name=CONFLICT))
        sides = {}
        for value in found.values:
            risk = case_pb2.CaseRisk.Name(case_pb2.Case.FromString(value.fields).risk)
            sides[value.writer_division] = (risk, value.shown)
            time = value.write_time.ToDatetime().isoformat(" ", "seconds")
            step(f"{value.writer_division} wrote {risk} at {time} UTC{', which is shown meanwhile' * value.shown}")
        assert sides == {COUNTY: ("CASE_RISK_RED", True), TOWNSHIP: ("CASE_RISK_GREEN", False)}, sides

        request = conflict_service_pb2.ResolveConflictRequest(name=CONFLICT, keep=1, etag="another")
        with refused(grpc.StatusCode.ABORTED) as problem:
            conflicts.ResolveConflict(request)
        step(f"whoever decides must have seen all values: {problem.message}")

        request.etag = found.etag
        conflicts.ResolveConflict(request)
        assert CONFLICT not in listed(conflicts) and CONFLICT in listed(conflicts, resolved=True)
        step("decided for the township's; the conflict is in the history")

        with refused(grpc.StatusCode.ABORTED):
            conflicts.ResolveConflict(request)
        step("it cannot be decided twice")
