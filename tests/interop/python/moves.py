"""A case goes its way by moves. One that its state does not allow is refused, and those that it does are named."""

import grpc
from guantong.v1 import case_pb2, case_service_pb2, case_service_pb2_grpc

from client import refused
from hotline_case import file
from scene import COUNTY, TOWNSHIP, step


def story(scene):
    """The desk makes one move too early, and then those that are legal."""
    with scene.at_county("hotline") as channel, scene.at_county("operator") as desk_channel:
        filed = file(case_service_pb2_grpc.CaseServiceStub(channel), "2026112100301", "欠薪投诉")
        desk = case_service_pb2_grpc.CaseServiceStub(desk_channel)

        outcome = case_pb2.Outcome(succeeded=True)
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as problem:
            desk.ConcludeCase(case_service_pb2.ConcludeCaseRequest(name=filed.name, outcome=outcome))
        assert problem.reason == "ILLEGAL_MOVE", problem
        legal = problem.metadata["legal_moves"].split(",")
        assert "MOVE_ACCEPT" in legal and "MOVE_CONCLUDE" not in legal, legal
        step(f"a case cannot be concluded before it was accepted; legal are {', '.join(legal)}")

        with refused(grpc.StatusCode.FAILED_PRECONDITION) as problem:
            desk.CancelCase(case_service_pb2.CancelCaseRequest(name=filed.name))
        step(f"a move without its reason: {problem.message}")

        accepted = desk.AcceptCase(case_service_pb2.AcceptCaseRequest(name=filed.name, request_id="accept-301"))
        again = desk.AcceptCase(case_service_pb2.AcceptCaseRequest(name=filed.name, request_id="accept-301"))
        assert accepted.etag == again.etag and len(again.steps) == len(filed.steps) + 1, again
        step("a move that is sent twice is made once")

        with refused(grpc.StatusCode.ABORTED):
            stale = case_service_pb2.AssignCaseRequest(name=filed.name, etag=filed.etag, to_division=TOWNSHIP)
            desk.AssignCase(stale)
        assign = case_service_pb2.AssignCaseRequest(
            name=filed.name, etag=accepted.etag, to_division=TOWNSHIP, to_unit="labour"
        )
        assigned = desk.AssignCase(assign).lifecycle
        assert (assigned.holder, assigned.unit) == (TOWNSHIP, "labour"), assigned
        step("handed down to a township and a unit there")

        press = case_service_pb2.SuperviseCaseRequest(
            name=filed.name, level=case_pb2.SUPERVISION_LEVEL_YELLOW, reason="临近期限"
        )
        assert desk.SuperviseCase(press).supervision.by == COUNTY
        step("the county presses for it")
        the_court_has_its_own(scene, desk)


def the_court_has_its_own(scene, desk):
    """A unit's own system: it handles the cases that its unit holds, and no others."""
    with scene.at_county("hotline") as channel:
        filed = file(case_service_pb2_grpc.CaseServiceStub(channel), "2026112100302", "相邻权纠纷")
    outcome = case_pb2.Outcome(method=case_pb2.MEDIATION_METHOD_JUDICIAL, succeeded=True)
    conclude = case_service_pb2.ConcludeCaseRequest(name=filed.name, outcome=outcome)
    with scene.at_county("court") as channel:
        court = case_service_pb2_grpc.CaseServiceStub(channel)
        desk.AcceptCase(case_service_pb2.AcceptCaseRequest(name=filed.name, to_unit="labour"))
        with refused(grpc.StatusCode.PERMISSION_DENIED) as problem:
            court.ConcludeCase(conclude)
        assert (problem.reason, problem.metadata["unit"]) == ("UNIT_NOT_GRANTED", "labour"), problem
        step(f"not the court's: {problem.message}")
        desk.TransferCase(case_service_pb2.TransferCaseRequest(name=filed.name, to_unit="court"))
        assert court.ConcludeCase(conclude).lifecycle.unit == "court"
        step("handed to the court, its own system concludes it")
