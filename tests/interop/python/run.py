"""Runs the stories against running nodes: `python run.py --county HOST:PORT ... [STORY...]`; see scene.py.

tests/tests/interop_clients.rs starts a tree, issues the certificates, and calls this.
"""

import argparse
import dataclasses
import importlib
import sys
import tempfile
import traceback
from pathlib import Path

from generate import generate
from scene import Scene

STORIES = ["health", "hotline_case", "feed", "writing", "moves", "lists", "registers", "grants", "conflicts", "aggregates"]


def arguments():
    """The scene, and which stories to run."""
    parser = argparse.ArgumentParser(description=__doc__)
    for place in dataclasses.fields(Scene):
        parser.add_argument("--" + place.name.replace("_", "-"), required=True)
    parser.add_argument("--proto", default=Path(__file__).parents[3] / "proto")
    parser.add_argument("stories", nargs="*", metavar="STORY", help=" ".join(STORIES))
    args = vars(parser.parse_args())
    proto, stories = args.pop("proto"), args.pop("stories") or STORIES
    return Scene(**args), proto, stories


def main():
    """Runs each story; says which failed, and where."""
    scene, proto, stories = arguments()
    failed = []
    with tempfile.TemporaryDirectory() as generated:
        generate(proto, generated)
        sys.path.insert(0, generated)
        for name in stories:
            print(name, flush=True)
            try:
                importlib.import_module(name).story(scene)
            except Exception:  # Whatever it is, the other stories are told too.
                traceback.print_exc()
                failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
    print(f"{len(stories)} stories, all as told")


if __name__ == "__main__":
    main()
