#!/usr/bin/env bash
# Checks the contract with buf: style, and compatibility with the last released form (proto/baseline.binpb).
# Also proves that both checks can fail, on copies that were spoilt on purpose.
#
#   tests/contract.sh            check
#   tests/contract.sh --renew    make the contract as it is now the baseline; only at a release
#
# Needs npm, and the npm registry at the first run only: buf is kept under target/.
set -euo pipefail

BUF_VERSION=1.75.0
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${CARGO_TARGET_DIR:-$root/target}/tools/buf-$BUF_VERSION
buf=$tools/node_modules/.bin/buf

fail() {
    echo "contract: $*" >&2
    exit 1
}

if [[ ! -x $buf ]]; then
    command -v npm >/dev/null || fail "npm is missing, so buf cannot be installed. Install Node.js with npm (Debian: apt-get install npm)."
    mkdir -p "$tools"
    npm install --silent --no-audit --no-fund --no-save --prefix "$tools" "@bufbuild/buf@$BUF_VERSION" ||
        fail "npm could not install @bufbuild/buf $BUF_VERSION. The first run needs the npm registry."
fi

baseline=$root/proto/baseline.binpb
if [[ ${1:-} == --renew ]]; then
    "$buf" build "$root/proto" --exclude-source-info -o "$baseline"
    echo "contract: proto/baseline.binpb is the contract as it is now"
    exit 0
fi
[[ $# -eq 0 ]] || fail "unknown argument $1; the only one is --renew"
[[ -f $baseline ]] || fail "proto/baseline.binpb is missing; tests/contract.sh --renew makes it"

"$buf" lint "$root/proto" || fail "buf lint refused the contract"
"$buf" breaking "$root/proto" --against "$baseline" ||
    fail "the contract no longer fits its last released form. Add fields, never change or remove them."

# expect_refusal WHAT COMMAND RULE SED_SCRIPT FILE: spoils FILE in a copy and wants COMMAND to name RULE.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
expect_refusal() {
    local what=$1 check=$2 rule=$3 script=$4 file=$5 out
    rm -rf "$scratch/proto"
    mkdir "$scratch/proto"
    cp -r "$root/proto/buf.yaml" "$root/proto/google" "$root/proto/guantong" "$scratch/proto/"
    sed -i "$script" "$scratch/proto/guantong/v1/$file"
    cmp -s "$root/proto/guantong/v1/$file" "$scratch/proto/guantong/v1/$file" &&
        fail "the proof for \"$what\" spoils nothing in $file; adapt it"
    local against=()
    [[ $check == breaking ]] && against=(--against "$baseline")
    if out=$("$buf" "$check" "$scratch/proto" "${against[@]}" --error-format json 2>&1); then
        fail "buf $check let through: $what"
    fi
    [[ $out == *"$rule"* ]] || fail "buf $check refused \"$what\" for another reason than $rule: $out"
}
expect_refusal "a badly named field" lint FIELD_LOWER_SNAKE_CASE 's/ grid_code = 2/ gridCode = 2/' grid.proto
expect_refusal "a removed field" breaking FIELD_NO_DELETE '/int32 households = 11/,/}];/d' grid.proto
expect_refusal "a renumbered field" breaking FIELD_NO_DELETE 's/ grid_code = 2 / grid_code = 88 /' grid.proto
expect_refusal "another type" breaking FIELD_SAME_TYPE 's/int32 residents = 12/string residents = 12/' grid.proto
expect_refusal "a removed method" breaking RPC_NO_DELETE '/rpc ListQuarantine(/,/^  }/d' node_service.proto

echo "contract: lint and compatibility hold, and both checks refuse what they should"
