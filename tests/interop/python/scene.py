"""What the stories share: where the nodes are, who calls, and how a story says what it does. Only for the tests."""

import time
from dataclasses import dataclass

from client import connect


@dataclass(frozen=True)
class Scene:
    """Nodes as `host:port`, and folders with certificates."""

    county: str
    prefecture: str
    # A 12345 hotline: it may read and write the county's cases, with what they say about persons, and handles none.
    hotline: str
    # The court's own system: it may read and write the county's cases, and handles those that the court has.
    court: str
    # A maker of cameras: it may read and write the cameras of one township.
    maker: str
    # A data centre: sums of the prefecture, never a record.
    data_centre: str
    # A partner that nobody has granted anything.
    stranger: str
    # Somebody at the county's desk.
    operator: str

    def at_county(self, who):
        """A channel to the county's node as one of those above."""
        return connect(self.county, getattr(self, who))

    def at_prefecture(self, who):
        """The same to the prefecture's."""
        return connect(self.prefecture, getattr(self, who))


# The divisions of both, and of two townships of the county: one has a node of its own, the other has none.
PREFECTURE = "220800000000"
COUNTY = "220822000000"
TOWNSHIP = "220822101000"
NODELESS = "220822102000"


def step(text):
    """Says what was done and held."""
    print(f"  {text}", flush=True)


def until(what, look, limit_s=60):
    """Looks until there is something, and gives it back."""
    deadline = time.monotonic() + limit_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"this never came true: {what}"
        time.sleep(0.02)
    return found
