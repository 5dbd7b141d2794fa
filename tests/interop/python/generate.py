"""Makes Python code of the contract: `python generate.py PROTO_FOLDER OUT_FOLDER`.

This is all that a partner needs of the project: the folder `proto/`. `google.api` and `google.rpc` come with the
package `googleapis-common-protos`.
"""

import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc


def generate(proto, out):
    """Writes `guantong/v1/*_pb2.py` and `*_pb2_grpc.py` below `out`."""
    files = sorted(str(file) for file in Path(proto, "guantong", "v1").glob("*.proto"))
    assert files, f"there are no .proto files below {proto}"
    Path(out).mkdir(parents=True, exist_ok=True)
    well_known = Path(grpc_tools.__file__).with_name("_proto")
    places = [f"-I{proto}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main(["protoc", *places, *files]) == 0, "protoc refused the contract"


if __name__ == "__main__":
    generate(sys.argv[1], sys.argv[2])
