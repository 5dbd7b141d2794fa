"""What a grant does not cover is absent from answers, and refused where it is asked for by name."""

import grpc
from guantong.v1 import (
    camera_pb2,
    camera_service_pb2,
    camera_service_pb2_grpc,
    case_pb2,
    case_service_pb2,
    case_service_pb2_grpc,
    common_pb2,
    grant_service_pb2,
    grant_service_pb2_grpc,
)

from client import refused
from registers import camera
from scene import COUNTY, NODELESS, TOWNSHIP, step

DENIED = grpc.StatusCode.PERMISSION_DENIED


def story(scene):
    """Partners of four sorts at one node."""
    with scene.at_county("stranger") as channel:
        nothing_granted(channel)
    with scene.at_county("operator") as channel:
        cameras = camera_service_pb2_grpc.CameraServiceStub(channel)
        contact = common_pb2.Contact(name="李四", telephone="13800000000")
        elsewhere, inside = camera(501), camera(502, contact=contact)
        elsewhere.division = NODELESS
        request = camera_service_pb2.CreateCameraRequest
        elsewhere = cameras.CreateCamera(request(parent=f"divisions/{NODELESS}", camera=elsewhere))
        inside = cameras.CreateCamera(request(parent=f"divisions/{TOWNSHIP}", camera=inside))
    with scene.at_county("maker") as channel:
        one_township_only(channel, inside.name, elsewhere.name)
        own_grant(channel)
    with scene.at_county("hotline") as channel:
        cases_only(channel)


def nothing_granted(channel):
    """A certificate alone opens nothing."""
    with refused(DENIED) as problem:
        cases = case_service_pb2_grpc.CaseServiceStub(channel)
        cases.ListCases(case_service_pb2.ListCasesRequest(parent=f"divisions/{COUNTY}"))
    assert "guantong grant set" in problem.message, problem
    step(f"a partner without a grant: {problem.message}")


def one_township_only(channel, inside, elsewhere):
    """The maker may see the cameras of one township, and nothing about persons."""
    cameras = camera_service_pb2_grpc.CameraServiceStub(channel)
    answer = cameras.ListCameras(camera_service_pb2.ListCamerasRequest(parent=f"divisions/{COUNTY}", page_size=1000))
    names = [point.name for point in answer.cameras]
    assert inside in names and elsewhere not in names, names
    step("a list of the county holds the cameras of the township that was granted, and no others")

    with refused(DENIED) as problem:
        cameras.GetCamera(camera_service_pb2.GetCameraRequest(name=elsewhere))
    with refused(DENIED) as missing:
        cameras.GetCamera(camera_service_pb2.GetCameraRequest(name=elsewhere + "0"))
    step(f"asked for by name: {problem.message}")
    assert missing.message == problem.message, "whether it exists is not told"

    point = cameras.GetCamera(camera_service_pb2.GetCameraRequest(name=inside))
    assert point.display_name and not point.HasField("contact"), point
    contact = common_pb2.Contact(name="王五")
    with refused(DENIED) as problem:
        change = camera_pb2.Camera(name=inside, contact=contact)
        cameras.UpdateCamera(camera_service_pb2.UpdateCameraRequest(camera=change))
    step(f"a person to reach is neither shown nor written: {problem.message}")


def own_grant(channel):
    """A partner may read its own grant, and only that."""
    grants = grant_service_pb2_grpc.GrantServiceStub(channel)
    own = grants.GetGrant(grant_service_pb2.GetGrantRequest(name="grants/camera-maker"))
    assert (own.scope, list(own.kinds)) == (TOWNSHIP, ["camera"]), own
    with refused(DENIED):
        grants.GetGrant(grant_service_pb2.GetGrantRequest(name="grants/hotline-12345"))
    with refused(DENIED):
        own.scope = COUNTY
        grants.UpdateGrant(grant_service_pb2.UpdateGrantRequest(grant=own))
    step("a partner may read its own grant, and change none")


def cases_only(channel):
    """The hotline has cases, and no cameras."""
    with refused(DENIED) as problem:
        cameras = camera_service_pb2_grpc.CameraServiceStub(channel)
        cameras.ListCameras(camera_service_pb2.ListCamerasRequest(parent=f"divisions/{COUNTY}"))
    step(f"another kind: {problem.message}")
    with refused(DENIED) as problem:
        cases = case_service_pb2_grpc.CaseServiceStub(channel)
        elsewhere = case_pb2.Case(title="外县工单")
        request = case_service_pb2.CreateCaseRequest(parent="divisions/220881000000", case=elsewhere)
        cases.CreateCase(request)
    step(f"another county: {problem.message}")
