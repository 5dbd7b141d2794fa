#!/usr/bin/env bash
# Checks what the compiler does not: which module may import which, where gRPC, the database and statuses may be known,
# how long files get, and that no file names a machine or a package mirror. ARCHITECTURE.md has the same map for readers.
#
# Tests beside code are left out: they may look at anything.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
wrong=0
complain() {
    echo "structure: $*" >&2
    wrong=1
}

LINES_MAX=500

# For each module of the gateway: the modules that it may import. `session::greeting` alone is the values of a greeting
# (tokens), which are stored too.
declare -A MAY_IMPORT=(
    [audit]="division"
    [bundle]="division session"
    [calendar]=""
    [division]=""
    [stamp]="division"
    [step]=""
    [threshold]="division"
    [schema]="division record"
    [record]="division schema stamp"
    [merge]="record stamp"
    [release]="division record schema"
    [access]="division record schema stamp"
    [pace]=""
    [grant]="division pace record schema"
    [invitation]="division pace"
    [period]="calendar"
    [measure]=""
    [duplicates]="calendar facet record"
    [erasure]="record schema stamp"
    [facet]="casework division record schema"
    [aggregate]="casework division measure period record schema"
    [casework]="calendar division"
    [claiming]="division"
    [comparing]="division proof record schema session"
    [completeness]="claiming division"
    [session]="division record"
    [ingest]="access aggregate audit bundle::keeping calendar casework claiming comparing division erasure facet grant invitation measure merge period proof record release schema session::greeting stamp threshold"
    [proof]="division record release schema"
    [peering]="division ingest session::greeting stamp"
    [outgoing]="division ingest proof record release schema"
    [whereabouts]="calendar division erasure ingest proof record release schema stamp"
    [store]="aggregate audit bundle claiming comparing division erasure facet grant ingest invitation measure period proof record schema session::greeting stamp step"
    [engine]="aggregate audit bundle casework claiming comparing completeness division grant ingest invitation measure outgoing peering period proof record schema session::greeting stamp step store threshold"
    [tabular]="calendar"
    [service]="aggregate audit bundle calendar casework claiming comparing completeness division duplicates engine erasure facet grant ingest invitation measure outgoing pace period proof record schema session stamp step store tabular threshold whereabouts"
)

# The project's files that match, new ones included.
files() {
    local file
    while IFS= read -r file; do
        [[ ! -f $file ]] || echo "$file"
    done < <(git ls-files -co --exclude-standard -- "$@")
}

# The code of a file, without comments and without the tests at its end.
code_of() {
    awk '
        /^#\[cfg\(test\)\]/ { held = 1; next }
        held && /^#\[/ { next }
        held && /^(pub(\([a-z]+\))? )?mod [a-z_]+ *\{/ { exit }
        held && /^(pub(\([a-z]+\))? )?mod [a-z_]+;/ { held = 0; next }
        { held = 0; sub(/(^|[ \t])\/\/.*/, ""); print }
    ' "$1"
}

is_test() {
    [[ $1 == */tests.rs || $1 == */tests/* || $1 == *_tests.rs ]]
}

check_imports() {
    local file module import allowed found may
    while IFS= read -r file; do
        module=${file#gateway/src/}
        module=${module%%/*}
        module=${module%.rs}
        [[ $module == lib ]] && continue
        if is_test "$file"; then continue; fi
        if [[ -z ${MAY_IMPORT[$module]+known} ]]; then
            complain "$file: the module $module has no line in tests/structure.sh; say there what it may import"
            continue
        fi
        if code_of "$file" | grep -q 'crate::{'; then
            complain "$file: write one \`use crate::module\` for each module, so that imports can be checked"
        fi
        while IFS= read -r import; do
            [[ ${import%%::*} == "$module" ]] && continue
            found=no
            for allowed in ${MAY_IMPORT[$module]}; do
                may=${import%%::*}
                [[ $allowed == *::* ]] && may=$import
                if [[ $may == "$allowed" ]]; then
                    found=yes
                    break
                fi
            done
            [[ $found == yes ]] || complain "$file: $module must not import $import"
        done < <(code_of "$file" | grep -oE '\bcrate::[a-z_]+(::[a-z_]+)?' | sed 's/^crate:://' | sort -u)
    done < <(files 'gateway/src/*.rs')
}

# knows_only NAME PATTERN ALLOWED_PREFIX...: code that matches PATTERN stands under one of the prefixes.
knows_only() {
    local name=$1 pattern=$2 file prefix ok
    shift 2
    while IFS= read -r file; do
        if is_test "$file"; then continue; fi
        ok=no
        for prefix in "$@"; do
            [[ $file == "$prefix"* ]] && ok=yes
        done
        if [[ $ok == no ]] && code_of "$file" | grep -qE "$pattern"; then
            complain "$file: $name has no place here; it belongs to: $*"
        fi
    done < <(files 'gateway/src/*.rs' 'node/src/*.rs')
}

check_files() {
    local file lines
    while IFS= read -r file; do
        lines=$(wc -l <"$file")
        ((lines <= LINES_MAX)) || complain "$file: $lines lines, more than $LINES_MAX; part it"
    done < <(files '*.rs' '*.sh' '*.md' '*.sql' tests/run .ci/run)
    while IFS= read -r file; do
        head -n 1 "$file" | grep -q '^//!' || complain "$file: open it with //! and what the module is for"
    done < <(files '*.rs')
}

# Nothing may depend on the machine that it was written on, or on a mirror that only that machine can reach.
check_places() {
    local places='(^|[^a-zA-Z0-9_.-])/(work|root|home/[a-z]+|Users/[A-Za-z]+)/' found
    if found=$(git grep -IlE --untracked -e "$places" -- . ':!tests/structure.sh' ':!proto/google'); then
        complain "a path of one machine in: ${found//$'\n'/ }"
    fi
    if found=$(git grep -InE --untracked -e '^(source|resolved) = "|"resolved":' -- Cargo.lock '*.lock' '*package-lock.json' |
        grep -vE 'registry\+https://github.com/rust-lang/crates.io-index"|https://registry.npmjs.org/'); then
        complain "packages from somewhere else than the public registries: ${found%%$'\n'*}"
    fi
    if found=$(files | grep -E '(^|/)(\.npmrc|\.cargo/config(\.toml)?|pip\.conf)$'); then
        complain "registry settings belong to the machine, not here: ${found//$'\n'/ }"
    fi
}

check_imports
knows_only "the database (sqlx)" '\bsqlx\b' gateway/src/store node/src/subscribe/postgres.rs
knows_only "gRPC (tonic)" '\btonic(_types|_health|_reflection)?::' \
    gateway/src/service node/src/identity node/src/links node/src/serve node/src/client node/src/cli node/src/demo node/src/telemetry.rs
knows_only "making a tonic::Status" '(^|[^:A-Za-z]|tonic::)Status::(new|with_[a-z_]+|ok|cancelled|unknown|invalid_argument|deadline_exceeded|not_found|already_exists|permission_denied|resource_exhausted|failed_precondition|aborted|out_of_range|unimplemented|internal|unavailable|data_loss|unauthenticated|from_error)\(' \
    gateway/src/service/status.rs
check_files
check_places

if ((wrong)); then exit 1; fi
echo "structure: imports point one way, and files are short and belong to no machine"
