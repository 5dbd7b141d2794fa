"""Follows cases by a subscription: first everything, then each change, until it is acknowledged.

What is not acknowledged is kept for the reader, however long it stays away. So a reader stores a batch for good, and
acknowledges it then.
"""

import contextlib

import grpc
from guantong.v1 import (
    case_pb2,
    case_service_pb2,
    case_service_pb2_grpc,
    subscription_service_pb2,
    subscription_service_pb2_grpc,
)

from client import refused
from hotline_case import file
from scene import step

FEED = "subscriptions/hotline-cases"


class Reader:
    """Keeps a copy of the cases, as a reader's own database would."""

    def __init__(self, channel):
        self.feed = subscription_service_pb2_grpc.SubscriptionServiceStub(channel)
        self.cases = {}

    def read(self, enough):
        """Takes changes in and acknowledges them, until there is enough. Gives back the names that came."""
        came = []
        request = subscription_service_pb2.ReadChangesRequest(name=FEED)
        with contextlib.closing(Stream(self.feed.ReadChanges(request, timeout=60))) as batches:
            for batch in batches:
                for change in batch.changes:
                    came.append(change.name)
                    self.take(change)
                if batch.ack_id:
                    acknowledge = subscription_service_pb2.AcknowledgeChangesRequest(name=FEED, ack_id=batch.ack_id)
                    self.feed.AcknowledgeChanges(acknowledge)
                if enough(batch):
                    break
        return came

    def take(self, change):
        """Puts a record in the place of the one of the same name, or away if it was deleted."""
        assert change.kind == "case", change.kind
        if change.deleted:
            self.cases.pop(change.name, None)
        else:
            self.cases[change.name] = case_pb2.Case.FromString(change.fields)


class Stream:
    """The answers of a call, which ends when nobody wants more."""

    def __init__(self, call):
        self.call = call

    def __iter__(self):
        return self.call

    def __next__(self):
        return next(self.call)

    def close(self):
        """Ends the call."""
        self.call.cancel()


def story(scene):
    """A reader begins, goes away, and comes back."""
    with scene.at_county("hotline") as channel, scene.at_county("operator") as desk_channel:
        cases = case_service_pb2_grpc.CaseServiceStub(channel)
        desk = case_service_pb2_grpc.CaseServiceStub(desk_channel)
        reader = Reader(channel)
        first = file(cases, "2026112100101", "路灯不亮")

        feed = subscription_service_pb2.Subscription(kinds=["case"], personal_data=True)
        request = subscription_service_pb2.CreateSubscriptionRequest(
            subscription_id="hotline-cases", subscription=feed
        )
        made = reader.feed.CreateSubscription(request)
        assert made.name == FEED and made.owner == "partners/hotline-12345", made
        with refused(grpc.StatusCode.ALREADY_EXISTS):
            reader.feed.CreateSubscription(request)
        step(f"{FEED} begins, owned by {made.owner}")

        reader.read(lambda batch: batch.caught_up)
        assert reader.cases[first.name].parties[0].name == "张三", reader.cases
        step(f"first everything: {len(reader.cases)} cases")

        second = file(cases, "2026112100102", "井盖缺失")
        reader.read(lambda batch: second.name in reader.cases)
        step("then a new case, as it happens")

        # The reader is away. What happens meanwhile is kept: the latest form, not each step.
        desk.AcceptCase(case_service_pb2.AcceptCaseRequest(name=first.name))
        reason = "重复工单"
        desk.CancelCase(case_service_pb2.CancelCaseRequest(name=first.name, reason=reason))
        cases.DeleteCase(case_service_pb2.DeleteCaseRequest(name=second.name))

        came = reader.read(lambda batch: batch.caught_up)
        assert sorted(came) == sorted([first.name, second.name]), came
        assert reader.cases[first.name].lifecycle.state == case_pb2.CASE_STATE_CANCELLED, reader.cases
        assert second.name not in reader.cases, "it was deleted"
        step("back again: each case that changed came once, in its latest form, the deleted one as deleted")

        assert reader.read(lambda batch: batch.caught_up) == []
        step("what was acknowledged does not come again")

        reader.feed.DeleteSubscription(subscription_service_pb2.DeleteSubscriptionRequest(name=FEED))
        with refused(grpc.StatusCode.NOT_FOUND):
            reader.feed.GetSubscription(subscription_service_pb2.GetSubscriptionRequest(name=FEED))
        step("the feed is ended")
