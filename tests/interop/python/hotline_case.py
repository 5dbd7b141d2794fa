"""A 12345 hotline files a case by its own work-order number, follows it, and gets the reply.

The hotline knows its own number and nothing of this system's. Each write carries a request id, so that it may be sent
again whenever the line broke before the answer came.
"""

import datetime

import grpc
from guantong.v1 import case_pb2, case_service_pb2, case_service_pb2_grpc, common_pb2, partner_pb2

from client import refused
from scene import COUNTY, step, until

ORDER = "2026112100017"
BEIJING = datetime.timezone(datetime.timedelta(hours=8))


def today():
    """Days are those of Beijing."""
    return datetime.datetime.now(BEIJING).date()


def date(day):
    """A day as the contract writes it."""
    return common_pb2.Date(year=day.year, month=day.month, day=day.day)


def work_order(number, title):
    """A work order of the hotline as a case."""
    return case_pb2.Case(
        case_kind=case_pb2.CASE_KIND_INCIDENT,
        category="property_management",
        channel=case_pb2.CASE_CHANNEL_HOTLINE_12345,
        division=COUNTY,
        received_on=date(today()),
        due_on=date(today() + datetime.timedelta(days=15)),
        title=title,
        narrative="小区电梯停运三天，老人上下楼不便。",
        parties=[case_pb2.Party(role=case_pb2.PARTY_ROLE_REPORTER, name="张三", telephone="13900000000")],
        external_refs=[common_pb2.ExternalRef(system="12345", number=number)],
    )


def file(cases, number, title):
    """Files a work order with the county. The work-order number makes a good request id: it is never used twice."""
    request = case_service_pb2.CreateCaseRequest(
        parent=f"divisions/{COUNTY}", case=work_order(number, title), request_id=f"12345-{number}"
    )
    return cases.CreateCase(request)


def find(cases, number):
    """The cases that carry one of the hotline's numbers."""
    request = case_service_pb2.ListCasesRequest(
        parent=f"divisions/{COUNTY}",
        external_number=partner_pb2.ExternalNumber(system="12345", number=number),
    )
    return list(cases.ListCases(request).cases)


def story(scene):
    """The hotline's side, and what the county's desk does meanwhile."""
    with scene.at_county("hotline") as channel:
        cases = case_service_pb2_grpc.CaseServiceStub(channel)

        filed = file(cases, ORDER, "电梯停运")
        assert filed.lifecycle.state == case_pb2.CASE_STATE_REPORTED, filed
        assert filed.lifecycle.holder == COUNTY, filed
        step(f"filed work order {ORDER} as {filed.name}")

        again = file(cases, ORDER, "电梯停运")
        assert (again.name, again.etag) == (filed.name, filed.etag), again
        step("the same request again gives the same case")

        with refused(grpc.StatusCode.INVALID_ARGUMENT) as problem:
            file(cases, ORDER, "水管破裂")
        assert "request_id" in problem.fields, problem
        step(f"another content under the same request id is refused: {problem.message}")

        with refused(grpc.StatusCode.PERMISSION_DENIED) as problem:
            cases.AcceptCase(case_service_pb2.AcceptCaseRequest(name=filed.name))
        assert problem.reason == "UNIT_NOT_GRANTED" and problem.metadata["unit"] == "division", problem
        step(f"working on it is for whoever holds it: {problem.message}")

        twice = file(cases, "2026112100018", "电梯停运（重复）")
        cancel = case_service_pb2.CancelCaseRequest(name=twice.name, reason="重复工单")
        assert cases.CancelCase(cancel).lifecycle.state == case_pb2.CASE_STATE_CANCELLED
        step("what it filed itself, it takes back as long as nobody has moved it")

        assert [case.name for case in find(cases, ORDER)] == [filed.name]
        assert find(cases, "no such order") == []
        step("it is found by the hotline's own number")

        etag = filed.etag
        for case in the_county_works(scene, filed.name):
            seen = until(f"the hotline sees {case}", lambda: news(cases, filed.name, etag))
            etag = seen.etag
            step(f"the hotline sees: {case_pb2.CaseState.Name(seen.lifecycle.state)}")

        answered = cases.GetCase(case_service_pb2.GetCaseRequest(name=filed.name))
        assert answered.reply.text == "电梯已于当日修复。", answered
        moves = [case_pb2.Move.Name(taken.move) for taken in answered.steps]
        assert moves == ["MOVE_REPORT", "MOVE_ACCEPT", "MOVE_CONCLUDE", "MOVE_VERIFY"], moves
        step(f"the reply for the caller: {answered.reply.text}")


def news(cases, name, etag):
    """The case, if it is no longer the one that was seen."""
    case = cases.GetCase(case_service_pb2.GetCaseRequest(name=name))
    return case if case.etag != etag else None


def the_county_works(scene, name):
    """Accepts, concludes, answers and closes the case, one step each time the next is asked for."""
    with scene.at_county("operator") as channel:
        desk = case_service_pb2_grpc.CaseServiceStub(channel)
        yield desk.AcceptCase(case_service_pb2.AcceptCaseRequest(name=name, to_unit="housing"))
        outcome = case_pb2.Outcome(method=case_pb2.MEDIATION_METHOD_ADMINISTRATIVE, succeeded=True)
        yield desk.ConcludeCase(case_service_pb2.ConcludeCaseRequest(name=name, outcome=outcome))
        reply = case_pb2.Reply(text="电梯已于当日修复。", satisfaction=case_pb2.SATISFACTION_SATISFIED)
        yield desk.ReplyCase(case_service_pb2.ReplyCaseRequest(name=name, reply=reply))
        yield desk.VerifyCase(case_service_pb2.VerifyCaseRequest(name=name))
