"""A data centre asks for figures: sums over divisions. It never sees a record."""

import grpc
from guantong.v1 import (
    aggregate_service_pb2,
    aggregate_service_pb2_grpc,
    case_service_pb2,
    case_service_pb2_grpc,
)

from client import refused
from hotline_case import file, today
from scene import COUNTY, PREFECTURE, step, until

YEAR = str(today().year)


def query(**parts):
    """A question about this year, if nothing else is said."""
    return aggregate_service_pb2.AggregateQuery(**{"period": YEAR, **parts})


def story(scene):
    """The data centre at the prefecture; what it counts was filed at a county."""
    with scene.at_prefecture("data_centre") as channel, scene.at_county("hotline") as hotline:
        aggregates = aggregate_service_pb2_grpc.AggregateServiceStub(channel)
        measures(aggregates)
        received_by_county(aggregates, case_service_pb2_grpc.CaseServiceStub(hotline))
        rates(aggregates)
        mistakes(aggregates)
        with refused(grpc.StatusCode.PERMISSION_DENIED) as problem:
            cases = case_service_pb2_grpc.CaseServiceStub(channel)
            cases.ListCases(case_service_pb2.ListCasesRequest(parent=f"divisions/{PREFECTURE}"))
        step(f"records are not for it: {problem.message}")


def ask(aggregates, **parts):
    """The answer to a question."""
    return aggregates.QueryAggregates(aggregate_service_pb2.QueryAggregatesRequest(query=query(**parts)))


def measures(aggregates):
    """What can be asked for."""
    catalogue = aggregates.ListMeasures(aggregate_service_pb2.ListMeasuresRequest()).measures
    received = next(measure for measure in catalogue if measure.name == "cases_received")
    assert "category" in [dimension.name for dimension in received.dimensions], received
    step(f"{len(catalogue)} measures, such as {received.name} {received.label}: {received.meaning}")


def received_by_county(aggregates, cases):
    """The counties of the prefecture, ranked by the cases that they received."""

    def figures():
        answer = ask(aggregates, within=f"divisions/{PREFECTURE}", measures=["cases_received"], rank=True)
        return answer, {figure.division: figure for figure in answer.figures}

    _, before = figures()
    file(cases, "2026112100601", "道路积水")
    more = before[COUNTY].value + 1
    until("the new case is counted at the prefecture", lambda: figures()[1][COUNTY].value >= more)
    answer, after = figures()
    assert after[COUNTY].rank == 1 and not after[COUNTY].period_closed, after[COUNTY]
    for figure in answer.figures:
        step(f"{figure.rank}. {figure.display_name} {figure.value:.0f}")


def rates(aggregates):
    """A rate comes with both its counts, and says what it is a share of."""
    answer = ask(aggregates, divisions=[f"divisions/{COUNTY}"], measures=["success_rate"])
    (rate,) = answer.figures
    assert rate.value == rate.numerator / rate.denominator, rate
    step(f"success rate {rate.value:.0%}: {rate.numerator} of {rate.denominator} {rate.basis}")

    answer = ask(aggregates, divisions=[f"divisions/{COUNTY}"], measures=["cases_received"], dimension="channel")
    by_channel = {figure.class_name: figure.value for figure in answer.figures}
    total = ask(aggregates, divisions=[f"divisions/{COUNTY}"], measures=["cases_received"]).figures[0].value
    assert sum(by_channel.values()) == total, (by_channel, total)
    step(f"by channel: {by_channel}, together {total:.0f}")


def mistakes(aggregates):
    """Each is named by the part of the question that it stands in."""
    wrong = {"measures": ["horses"], "period": "2026-13", "divisions": ["divisions/440000000000"]}
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as problem:
        ask(aggregates, **wrong)
    assert set(problem.fields) == {f"query.{part}" for part in wrong}, problem
    for field, description in problem.fields.items():
        step(f"{field}: {description}")
