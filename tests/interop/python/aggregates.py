"""A data centre asks for figures: sums over divisions, and how complete they are. It never sees a record."""

import contextlib
import csv

import grpc
from guantong.v1 import (
    aggregate_service_pb2,
    aggregate_service_pb2_grpc,
    case_pb2,
    case_service_pb2,
    case_service_pb2_grpc,
    completeness_pb2,
)

from client import refused
from feed import Stream
from hotline_case import file, today
from scene import COUNTY, PREFECTURE, step, until

YEAR = str(today().year)


def query(**parts):
    """A question about this year, if nothing else is said."""
    return aggregate_service_pb2.AggregateQuery(**{"period": YEAR, **parts})


def story(scene):
    """The data centre at the prefecture; what it counts is filed and worked on at a county."""
    with contextlib.ExitStack() as open_channels:
        channel = open_channels.enter_context(scene.at_prefecture("data_centre"))
        aggregates = aggregate_service_pb2_grpc.AggregateServiceStub(channel)
        desk = open_channels.enter_context(scene.at_county("operator"))
        at_county = aggregate_service_pb2_grpc.AggregateServiceStub(desk)
        desk = case_service_pb2_grpc.CaseServiceStub(desk)

        measures(aggregates)
        filed = file(desk, "2026112100601", "道路积水")
        desk.AcceptCase(case_service_pb2.AcceptCaseRequest(name=filed.name))
        outcome = case_pb2.Outcome(succeeded=True)
        desk.ConcludeCase(case_service_pb2.ConcludeCaseRequest(name=filed.name, outcome=outcome))
        until("the prefecture counts what the county does", lambda: known(aggregates) == known(at_county))
        by_county(aggregates)
        rates(aggregates)
        as_they_change(aggregates, desk)
        as_a_file(aggregates)
        mistakes(aggregates)

        with refused(grpc.StatusCode.PERMISSION_DENIED) as problem:
            cases = case_service_pb2_grpc.CaseServiceStub(channel)
            cases.ListCases(case_service_pb2.ListCasesRequest(parent=f"divisions/{PREFECTURE}"))
        step(f"records are not for it: {problem.message}")


def ask(aggregates, **parts):
    """The answer to a question."""
    return aggregates.QueryAggregates(aggregate_service_pb2.QueryAggregatesRequest(query=query(**parts)))


def known(aggregates):
    """What a node knows of the county's cases."""
    answer = ask(aggregates, divisions=[f"divisions/{COUNTY}"], measures=["cases_received", "cases_concluded"])
    return [figure.value for figure in answer.figures]


def measures(aggregates):
    """What can be asked for."""
    catalogue = aggregates.ListMeasures(aggregate_service_pb2.ListMeasuresRequest()).measures
    received = next(measure for measure in catalogue if measure.name == "cases_received")
    assert "category" in [dimension.name for dimension in received.dimensions], received
    step(f"{len(catalogue)} measures, such as {received.name} {received.label}: {received.meaning}")


def by_county(aggregates):
    """The counties of the prefecture, ranked by the cases that they received; and how complete that is."""
    answer = ask(aggregates, within=f"divisions/{PREFECTURE}", measures=["cases_received"], rank=True)
    counties = {figure.division: figure for figure in answer.figures}
    assert counties[COUNTY].rank == 1 and not counties[COUNTY].period_closed, counties[COUNTY]
    for figure in sorted(answer.figures, key=lambda figure: figure.rank):
        step(f"{figure.rank}. {figure.display_name} {figure.value:.0f}")

    behind = {below.division: below for below in answer.completeness.incomplete}
    unlinked = [division for division in counties if division != COUNTY]
    for division in unlinked:
        assert behind[division].state == completeness_pb2.COMPLETENESS_STATE_NOT_LINKED, behind
    as_of = answer.completeness.as_of_time.ToDatetime().isoformat(" ", "seconds")
    step(f"as of {as_of} UTC; {len(unlinked)} counties were never linked, so nothing comes from them")


def rates(aggregates):
    """A rate comes with both its counts, and says what it is a share of. A total is the sum of its classes."""
    (rate,) = ask(aggregates, divisions=[f"divisions/{COUNTY}"], measures=["success_rate"]).figures
    assert rate.denominator > 0 and rate.value == rate.numerator / rate.denominator, rate
    step(f"success rate {rate.value:.0%}: {rate.numerator} of {rate.denominator} {rate.basis}")

    answer = ask(aggregates, divisions=[f"divisions/{COUNTY}"], measures=["cases_received"], dimension="channel")
    by_channel = {figure.class_name: figure.value for figure in answer.figures if figure.value}
    assert sum(by_channel.values()) == known(aggregates)[0], by_channel
    step(f"cases received by channel: {by_channel}")


def as_they_change(aggregates, cases):
    """A stream: all figures first, then those that change."""
    question = query(divisions=[f"divisions/{COUNTY}"], measures=["cases_received"], dimension="channel")
    request = aggregate_service_pb2.StreamAggregatesRequest(query=question)
    request.min_interval.FromMilliseconds(100)
    stream = aggregates.StreamAggregates(request, timeout=60)
    with contextlib.closing(Stream(stream)) as answers:
        figures = {figure.class_name: figure.value for figure in next(answers).figures}
        more = figures["hotline_12345"] + 1
        file(cases, "2026112100602", "垃圾清运")
        changed = {}
        while "hotline_12345" not in changed:
            changed = {figure.class_name: figure.value for figure in next(answers).figures}
        assert changed == {"hotline_12345": more}, changed
    step(f"a stream brings the figure that changed, and no other: {changed}")


def as_a_file(aggregates):
    """The same question answered as a table, in pieces."""
    question = query(within=f"divisions/{PREFECTURE}", measures=["cases_received", "success_rate"])
    request = aggregate_service_pb2.ExportAggregatesRequest(
        query=question, format=aggregate_service_pb2.TABLE_FORMAT_CSV
    )
    file_bytes = b"".join(piece.data for piece in aggregates.ExportAggregates(request))
    rows = list(csv.reader(file_bytes.decode("utf-8-sig").splitlines()))
    assert len(rows) == 1 + 2 * 6 and all(len(row) == len(rows[0]) for row in rows), rows
    step(f"as a file: {len(rows) - 1} rows of {', '.join(rows[0][:4])} …")


def mistakes(aggregates):
    """Each is named by the part of the question that it stands in."""
    wrong = {"measures": ["horses"], "period": "2026-13", "divisions": ["divisions/440000000000"]}
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as problem:
        ask(aggregates, **wrong)
    assert set(problem.fields) == {f"query.{part}" for part in wrong}, problem
    for field, description in problem.fields.items():
        step(f"{field}: {description}")
