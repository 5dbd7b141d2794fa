"""Writing: some fields only, never over what was not seen; many at once; deleting; and what a mistake is answered with."""

import grpc
from google.protobuf import field_mask_pb2
from guantong.v1 import case_pb2, case_service_pb2, case_service_pb2_grpc, partner_pb2

from client import refused
from hotline_case import file, find, work_order
from scene import COUNTY, step

UPDATE = case_service_pb2.UpdateCaseRequest


def story(scene):
    """The hotline corrects what it filed."""
    with scene.at_county("hotline") as channel:
        cases = case_service_pb2_grpc.CaseServiceStub(channel)
        filed = file(cases, "2026112100201", "噪声扰民")
        fields_and_etags(cases, filed)
        mistakes(cases, filed)
        many_at_once(cases)
        deleting(cases, filed)


def fields_and_etags(cases, filed):
    """Writes two fields and clears a third; a stale copy is refused."""
    change = case_pb2.Case(name=filed.name, etag=filed.etag, title="夜间施工噪声", involved_count=12)
    mask = field_mask_pb2.FieldMask(paths=["title", "involved_count", "due_on"])
    changed = cases.UpdateCase(UPDATE(case=change, update_mask=mask))
    assert (changed.title, changed.involved_count) == ("夜间施工噪声", 12), changed
    assert not changed.HasField("due_on"), "named in the mask and absent: cleared"
    assert changed.narrative == filed.narrative, "not named: as it was"
    step("a field mask writes what it names, and clears what it names without a value")

    change = case_pb2.Case(name=filed.name, etag=filed.etag, title="迟到的更正")
    with refused(grpc.StatusCode.ABORTED) as problem:
        cases.UpdateCase(UPDATE(case=change))
    assert problem.reason == "STALE", problem
    step(f"a stale etag is refused: {problem.message}")

    change.etag = cases.GetCase(case_service_pb2.GetCaseRequest(name=filed.name)).etag
    assert cases.UpdateCase(UPDATE(case=change)).title == "迟到的更正"
    step("read again, the same change is taken")


def mistakes(cases, filed):
    """Each is answered with the field, in the caller's words, and changes nothing."""
    wrong = case_pb2.Case(name=filed.name, involved_count=-1)
    wrong.received_on.month = 13
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as problem:
        cases.UpdateCase(UPDATE(case=wrong))
    assert {"case.involved_count", "case.received_on"} <= set(problem.fields), problem
    for name, description in problem.fields.items():
        step(f"{name}: {description}")

    mask = field_mask_pb2.FieldMask(paths=["titel"])
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as problem:
        cases.UpdateCase(UPDATE(case=case_pb2.Case(name=filed.name), update_mask=mask))
    assert any("update_mask" in name for name in problem.fields), problem
    step(f"a mask of unknown fields: {problem.message}")

    with refused(grpc.StatusCode.NOT_FOUND):
        missing = f"divisions/{COUNTY}/cases/no-such-case"
        cases.UpdateCase(UPDATE(case=case_pb2.Case(name=missing, title="无此工单")))
    step("what is not there is not made by an update")


def many_at_once(cases):
    """A batch: what is wrong with one item keeps no other from going in."""
    items = []
    for serial in range(3):
        case = work_order(f"202611210021{serial}", f"批量工单 {serial}")
        case.name = f"divisions/{COUNTY}/cases/batch-{serial}"
        items.append(UPDATE(case=case, allow_missing=True, request_id=f"batch-{serial}"))
    items[1].case.involved_count = -1
    request = case_service_pb2.BatchWriteCasesRequest(parent=f"divisions/{COUNTY}", requests=items)
    results = cases.BatchWriteCases(request).results
    outcomes = [result.outcome for result in results]
    created, bad = partner_pb2.BATCH_WRITE_OUTCOME_CREATED, partner_pb2.BATCH_WRITE_OUTCOME_REFUSED
    assert outcomes == [created, bad, created], results
    problem = results[1].problem
    assert problem.code == grpc.StatusCode.INVALID_ARGUMENT.value[0], problem
    assert problem.fields[0].field == "case.involved_count", problem
    step(f"of three, two go in; the other is refused: {problem.message}")

    again = cases.BatchWriteCases(request).results
    unchanged = partner_pb2.BATCH_WRITE_OUTCOME_UNCHANGED
    assert [result.outcome for result in again] == [unchanged, bad, unchanged], again
    assert [result.etag for result in again] == [result.etag for result in results]
    step("sent again, the batch changes nothing")


def deleting(cases, filed):
    """A deleted case leaves the lists, and can be brought back."""
    deleted = cases.DeleteCase(case_service_pb2.DeleteCaseRequest(name=filed.name))
    assert deleted.deleted and find(cases, "2026112100201") == [], deleted
    assert cases.GetCase(case_service_pb2.GetCaseRequest(name=filed.name)).deleted
    cases.DeleteCase(case_service_pb2.DeleteCaseRequest(name=filed.name))
    step("a deleted case is in no list, and still has its name")
    cases.UpdateCase(UPDATE(case=case_pb2.Case(name=filed.name, deleted=False)))
    assert [case.name for case in find(cases, "2026112100201")] == [filed.name]
    step("deleted: false brings it back")
