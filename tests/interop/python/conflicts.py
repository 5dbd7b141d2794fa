"""What a person must decide: two values of one field, and records that are likely the same twice.

Two sides wrote the same field while the line between them was cut; both values stand until somebody decides.
tests/tests/interop_clients.rs cuts the line: the township says green of the case's risk, the county red.
"""

import grpc
from guantong.v1 import (
    camera_pb2,
    camera_service_pb2,
    camera_service_pb2_grpc,
    case_pb2,
    conflict_service_pb2,
    conflict_service_pb2_grpc,
)

from client import refused
from registers import camera
from scene import COUNTY, NODELESS, TOWNSHIP, step

CASE = f"divisions/{TOWNSHIP}/cases/two-minds"
CONFLICT = f"{CASE}/conflicts/risk"


def listed(conflicts, **conditions):
    """Names of the county's conflicts."""
    request = conflict_service_pb2.ListConflictsRequest(parent=f"divisions/{COUNTY}", **conditions)
    return [conflict.name for conflict in conflicts.ListConflicts(request).conflicts]


def story(scene):
    """Somebody at the county's desk."""
    with scene.at_county("operator") as channel:
        conflicts = conflict_service_pb2_grpc.ConflictServiceStub(channel)
        both_values(conflicts)
        the_same_twice(conflicts, camera_service_pb2_grpc.CameraServiceStub(channel))


def both_values(conflicts):
    """Looks at both values, and decides."""
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


def the_same_twice(conflicts, cameras):
    """Two programmes registered one device each, a few metres apart. Nothing is merged without a person."""
    names = []
    for serial, network in ((701, camera_pb2.SOURCE_NETWORK_XUELIANG), (702, camera_pb2.SOURCE_NETWORK_TIANWANG)):
        point = camera(serial, functions=[camera_pb2.CAMERA_FUNCTION_VEHICLE])
        point.division, point.source_network = NODELESS, network
        point.location.longitude, point.location.latitude = 123.5 + serial / 1e6, 44.5
        request = camera_service_pb2.CreateCameraRequest(parent=f"divisions/{NODELESS}", camera=point)
        names.append(cameras.CreateCamera(request).name)
    request = conflict_service_pb2.ListDuplicatesRequest(parent=f"divisions/{COUNTY}", kind="camera")
    (found,) = [d for d in conflicts.ListDuplicates(request).duplicates if names[0] in d.records]
    assert sorted(found.records) == names and found.reason == conflict_service_pb2.DUPLICATE_REASON_NEARBY, found
    step(f"likely the same camera twice, {found.distance_m:.2f} m apart: {', '.join(found.records)}")
