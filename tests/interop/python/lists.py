"""Lists: conditions, and pages that cost the same at any depth."""

import grpc
from guantong.v1 import case_pb2, case_service_pb2, case_service_pb2_grpc, common_pb2, partner_pb2

from client import refused
from hotline_case import work_order
from scene import COUNTY, step

COUNT = 7


def pages(cases, request):
    """All pages of a list, one case after the other. Only an empty token ends it: a page may be short, or empty."""
    while True:
        answer = cases.ListCases(request)
        yield from answer.cases
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def story(scene):
    """Seven cases of two sorts, told apart."""
    with scene.at_county("hotline") as channel:
        cases = case_service_pb2_grpc.CaseServiceStub(channel)
        parent = f"divisions/{COUNTY}"
        names = fill(cases, parent)

        def listed(**conditions):
            request = case_service_pb2.ListCasesRequest(parent=parent, page_size=3, **conditions)
            return [case.name for case in pages(cases, request)]

        assert [name for name in listed() if name in names] == names
        step(f"{COUNT} cases in pages of three, in the order of their names, none twice")

        assert listed(categories=["medical"]) == names[:4]
        assert listed(categories=["medical", "traffic"]) == names
        step("by category; of several, one is enough")

        assert listed(states=[case_pb2.CASE_STATE_VERIFIED], categories=["medical"]) == []
        reported = case_pb2.CASE_STATE_REPORTED
        assert listed(states=[reported], categories=["medical"], holder=COUNTY) == names[:4]
        step("by state and holder, together with others")

        second, fourth = (common_pb2.Date(year=2025, month=11, day=day) for day in (2, 4))
        days = partner_pb2.DateRange(since=second, before=fourth)
        assert listed(categories=["medical", "traffic"], received=days) == names[1:3]
        step("by the day on which they were received: since the second, before the fourth")

        changed = cases.GetCase(case_service_pb2.GetCaseRequest(name=names[-1]))
        assert names[-1] in listed(updated_since=changed.update_time)
        step("by when this node took a change in")

        first = case_service_pb2.ListCasesRequest(parent=parent, page_size=3)
        token = cases.ListCases(first).next_page_token
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as problem:
            other = case_service_pb2.ListCasesRequest(parent=parent, categories=["medical"], page_token=token)
            cases.ListCases(other)
        assert "page_token" in problem.fields, problem
        step(f"a token of another list: {problem.message}")


def fill(cases, parent):
    """Cases received on the first days of a November, the first four medical, the others of traffic."""
    items = []
    for serial in range(COUNT):
        case = work_order(f"202611210040{serial}", f"列表工单 {serial}")
        case.name = f"{parent}/cases/listed-{serial}"
        case.category = "medical" if serial < 4 else "traffic"
        case.received_on.CopyFrom(common_pb2.Date(year=2025, month=11, day=serial + 1))
        items.append(case_service_pb2.UpdateCaseRequest(case=case, allow_missing=True))
    results = cases.BatchWriteCases(case_service_pb2.BatchWriteCasesRequest(parent=parent, requests=items)).results
    assert all(not result.HasField("problem") for result in results), results
    return [result.name for result in results]
