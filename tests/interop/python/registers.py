"""The registers: a maker of cameras keeps its points up to date, the county its grids."""

import grpc
from guantong.v1 import (
    camera_pb2,
    camera_service_pb2,
    camera_service_pb2_grpc,
    common_pb2,
    grid_pb2,
    grid_service_pb2,
    grid_service_pb2_grpc,
)

from client import refused
from scene import TOWNSHIP, step

PARENT = f"divisions/{TOWNSHIP}"


def camera(serial, **fields):
    """A point on a pole, as the maker's system knows it."""
    return camera_pb2.Camera(
        device_id=f"22082200001320{serial:06}",
        division=TOWNSHIP,
        ownership=camera_pb2.CAMERA_OWNERSHIP_PUBLIC,
        point_class=camera_pb2.POINT_CLASS_FIRST,
        source_network=camera_pb2.SOURCE_NETWORK_XUELIANG,
        display_name=f"路口 {serial}",
        address="人民路与建设街路口",
        location=common_pb2.LngLat(longitude=123.0 + serial / 100, latitude=44.8),
        management_unit="公安局",
        connected=True,
        **fields,
    )


def create(cameras, point):
    """Registers a point. Its device_id is its only possible id."""
    return cameras.CreateCamera(camera_service_pb2.CreateCameraRequest(parent=PARENT, camera=point))


def story(scene):
    """Cameras by the pole they hang on, and grids."""
    with scene.at_county("maker") as channel:
        cameras_by_pole(camera_service_pb2_grpc.CameraServiceStub(channel))
    with scene.at_county("operator") as channel:
        grids(grid_service_pb2_grpc.GridServiceStub(channel))


def cameras_by_pole(cameras):
    """A service engineer reads the code on a pole, and asks what hangs there."""
    made = [create(cameras, camera(serial, pole_code="LD-0042")) for serial in (1, 2)]
    create(cameras, camera(3, pole_code="LD-0043"))
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        create(cameras, camera(1))
    step("three cameras are registered, none of them twice")

    request = camera_service_pb2.ListCamerasRequest(parent=PARENT, pole_code="LD-0042")
    found = list(cameras.ListCameras(request).cameras)
    assert [point.name for point in found] == [point.name for point in made], found
    step(f"on pole LD-0042: {', '.join(point.display_name for point in found)}")

    status = camera_pb2.CameraStatus(state=camera_pb2.CAMERA_STATE_DEFECT)
    status.observe_time.GetCurrentTime()
    seen = camera_pb2.Camera(name=made[0].name, status=status)
    cameras.UpdateCamera(camera_service_pb2.UpdateCameraRequest(camera=seen))
    broken = [camera_pb2.CAMERA_STATE_DEFECT]
    request = camera_service_pb2.ListCamerasRequest(parent=PARENT, states=broken)
    assert [point.name for point in cameras.ListCameras(request).cameras] == [made[0].name]
    step("one of them is seen to be broken, and listed as such")

    with refused(grpc.StatusCode.INVALID_ARGUMENT) as problem:
        create(cameras, camera_pb2.Camera(device_id="123", division=TOWNSHIP))
    assert list(problem.fields) == ["camera.device_id"], problem
    step(f"camera.device_id: {problem.fields['camera.device_id']}")


def grids(service):
    """A grid is known by its code of 15 digits."""
    grid = grid_pb2.Grid(
        grid_code=f"{TOWNSHIP}901",
        division=TOWNSHIP,
        display_name="人民路网格",
        grid_type=grid_pb2.GRID_TYPE_COMPREHENSIVE,
        state=common_pb2.ACTIVE_STATE_ACTIVE,
        households=321,
        staffing=grid_pb2.Staffing(chiefs=1, full_time_members=2),
    )
    made = service.CreateGrid(grid_service_pb2.CreateGridRequest(parent=PARENT, grid=grid))
    assert made.name == f"{PARENT}/grids/{TOWNSHIP}901", made
    request = grid_service_pb2.ListGridsRequest(parent=PARENT, grid_types=[grid_pb2.GRID_TYPE_COMPREHENSIVE])
    assert made.name in [grid.name for grid in service.ListGrids(request).grids]
    again = service.GetGrid(grid_service_pb2.GetGridRequest(name=made.name))
    assert again.etag == made.etag and again.staffing.full_time_members == 2, again
    step(f"a grid is registered as {made.name}")
