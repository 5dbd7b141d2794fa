"""Is the node there, and what does it speak? Health and reflection answer everybody whom the authority knows."""

from pathlib import Path

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from client import refused
from scene import step


def story(scene):
    """Asks for health and for the contract, with a certificate that was granted nothing."""
    with scene.at_county("stranger") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, answer
        step("the node is serving")

        reflection = ProtoReflectionDescriptorDatabase(channel)
        services = reflection.get_services()
        assert "guantong.v1.RecordService" in services, services
        case = DescriptorPool(reflection).FindMessageTypeByName("guantong.v1.Case")
        assert case.fields_by_name["title"].number == 12
        step(f"it describes itself: {len(services)} services")

    # Who shows no certificate does not even learn why: the connection is closed before any call.
    authority = Path(scene.stranger, "authority.pem").read_bytes()
    with grpc.secure_channel(scene.county, grpc.ssl_channel_credentials(authority)) as channel:
        with refused(grpc.StatusCode.UNAVAILABLE):
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        step("without a certificate nothing answers")
