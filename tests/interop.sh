#!/usr/bin/env bash
# Prepares what the clients in other languages need (tests/interop): a virtual environment for Python, and packages for
# Node.js. Both are kept under target/, so that later runs need no network. The clients themselves are run by
# `cargo test -p guantong-tests --test interop_clients`.
#
# Needs python3 with venv, npm, and at the first run their registries.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source=$root/tests/interop
tools=${CARGO_TARGET_DIR:-$root/target}/tools/interop

fail() {
    echo "interop: $*" >&2
    exit 1
}

# is_ready FOLDER FILE: what FOLDER was made from is what FILE says now.
is_ready() {
    cmp -s "$2" "$1/$(basename "$2")"
}

python=$tools/python
if ! is_ready "$python" "$source/python/requirements.txt" || ! "$python/bin/python" -c 'import grpc' 2>/dev/null; then
    command -v python3 >/dev/null || fail "python3 is missing. Install it (Debian: apt-get install python3 python3-venv)."
    rm -rf "$python"
    mkdir -p "$tools"
    python3 -m venv "$python" || fail "python3 could not make an environment (Debian: apt-get install python3-venv)."
    "$python/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$source/python/requirements.txt" ||
        fail "pip could not install tests/interop/python/requirements.txt. The first run needs the Python package index."
    cp "$source/python/requirements.txt" "$python/"
fi

node=$tools/node
if ! is_ready "$node" "$source/node/package-lock.json"; then
    command -v npm >/dev/null || fail "npm is missing. Install Node.js with npm (Debian: apt-get install npm)."
    rm -rf "$node"
    mkdir -p "$node/making"
    cp "$source/node/package.json" "$source/node/package-lock.json" "$node/making/"
    npm ci --silent --ignore-scripts --no-audit --no-fund --prefix "$node/making" ||
        fail "npm could not install tests/interop/node/package-lock.json. The first run needs the npm registry."
    mv "$node/making/node_modules" "$node/making/package.json" "$node/"
    mv "$node/making/package-lock.json" "$node/"
    rmdir "$node/making"
fi

echo "interop: the clients in Python and Node.js are ready in ${tools#"$root"/}"
