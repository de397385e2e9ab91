# The stages of `./dev test`, and the clock that holds each to its budget. Sourced by `dev`.
# shellcheck shell=bash

# Packages that ship. One `cargo build -p` each: cargo unifies features across the packages of one build, and a release binary
# must not carry a feature that only a stand-in asked for.
release_packages=(casemate-enclave casemate-parent casemate-client)
# Binaries of the development packages, which do not ship, come out of the build that makes the tests.
development_binaries='casemate-(dev|dev-authority|enclave-dev|enclave-guest|bench|chaos|soak)|standin-kms'

# What lints is installed by the stage that lints, on its own minutes.
stage_install() {
    install_build
    install_run
    good "nats-server $("$nats_server" --version | sed 's/.*v//'), $(rustc --version | cut -d' ' -f1-2)"
}

# Every crate is compiled once for each release package and once for all tests together: the tests' programs are run by their
# names afterwards, because another `cargo test` with another choice of packages would compile it all again.
stage_build() {
    local package
    for package in "${release_packages[@]}"; do build_package "$package"; done
    build_tests
}

# build_tests: everything of the workspace in one build; development binaries go to target/bin, the list of test programs to
# target/tests (package folder and program, one a line).
build_tests() {
    local messages=$root/target/messages.tests.json
    cargo build --release --locked --workspace --all-targets --message-format=json-render-diagnostics >"$messages" || return
    sed -n -E 's#^.*"manifest_path":"([^"]+)/Cargo.toml".*"profile":\{[^}]*"test":true\}.*"executable":"([^"]+)".*$#\1 \2#p' "$messages" | sort -u >"$root/target/tests"
    [[ -s $root/target/tests ]] || fail "the build made no test program"
    sed -n -E 's#^.*"profile":\{[^}]*"test":false\}.*"executable":"([^"]+)".*$#\1#p' "$messages" | grep -E "/($development_binaries)\$" | keep_binaries
    rm -f "$messages"
}

# Copies the binaries that are named on stdin into target/bin: a later build overwrites them in cargo's folder.
keep_binaries() {
    local binary
    mkdir -p "$CASEMATE_BIN_DIR"
    while IFS= read -r binary; do
        cmp -s "$binary" "$CASEMATE_BIN_DIR/${binary##*/}" && continue
        # A running binary cannot be written to, but its name can be given to another.
        cp "$binary" "$CASEMATE_BIN_DIR/.${binary##*/}.new"
        mv -f "$CASEMATE_BIN_DIR/.${binary##*/}.new" "$CASEMATE_BIN_DIR/${binary##*/}"
    done
}

# run_programs FOLDER NAME ARGUMENT...: runs the test programs whose package folder and own name match, each in that folder as cargo
# would.
run_programs() {
    local in_folder=$1 named=$2 folder program failed=0 name
    shift 2
    [[ -s $root/target/tests ]] || fail "there are no test programs" "./dev test build makes them."
    while read -r folder program; do
        name=${program##*/} name=${name%-*}
        [[ ${folder#"$root"} =~ $in_folder && $name =~ $named ]] || continue
        printf '     Running %s (%s)\n' "${folder#"$root"/}" "${program##*/}"
        (cd "$folder" && CARGO_MANIFEST_DIR=$folder "$program" "$@") </dev/null || failed=1
    done <"$root/target/tests"
    return "$failed"
}

# build_package PACKAGE: builds it alone and puts its binaries into target/bin.
build_package() {
    local messages=$root/target/messages.$1.json
    cargo build --release --locked -p "$1" --message-format=json-render-diagnostics >"$messages" || return
    # Cargo names what it built, one JSON message a line; `sed` reads the one field.
    sed -n -E 's#^.*"executable":"([^"]+)".*$#\1#p' "$messages" | keep_binaries
    rm -f "$messages"
}

# build_bins: the programs of a local run in one build, which is the quickest. What ships is built by build_package alone.
build_bins() {
    local messages=$root/target/messages.bins.json
    cargo build --release --locked --workspace --bins --message-format=json-render-diagnostics >"$messages" || return
    sed -n -E 's#^.*"executable":"([^"]+)".*$#\1#p' "$messages" | keep_binaries
    rm -f "$messages"
}

# build_all PART...: packages to build alone, `bins` or `tests`; for a person, who sees one line that moves and, when it fails,
# the compiler's words.
build_all() {
    local part
    for part in "$@"; do
        say "building $part"
        case $part in
            tests) build_tests ;;
            bins) build_bins ;;
            *) build_package "$part" ;;
        esac 2>&1 | redact | redact_addresses | tee "$logs/build.log" | progress && continue
        log_tail "$logs/build.log" 60
        fail "$part could not be built" "The whole log: target/log/build.log"
    done
}

stage_lint() {
    local failed=0 manifest
    install_lint
    cargo fmt --all --check || { bad "format: cargo fmt --all mends it" && failed=1; }
    for manifest in */fuzz/Cargo.toml; do
        [[ -e $manifest ]] || continue
        cargo fmt --manifest-path "$manifest" --check || { bad "format: cargo fmt --manifest-path $manifest mends it" && failed=1; }
    done
    "$deny" --log-level error check --allow unused-wrapper bans licenses sources || { bad "cargo deny: bans, licenses, sources" && failed=1; }
    lint_release_trees || failed=1
    lint_advisories || failed=1
    lint_scripts || failed=1
    lint_phones || failed=1
    cargo clippy --release --locked --workspace --all-targets -- -D warnings || { bad "clippy" && failed=1; }
    return "$failed"
}

# What devices need builds for phones without a C compiler: the verifier with its pure-Rust back end.
lint_phones() {
    local phone
    for phone in aarch64-linux-android aarch64-apple-ios; do
        if ! rustup target list --installed 2>/dev/null | grep -q -x "$phone" && ! rustup target add "$phone" >/dev/null 2>&1; then
            warn "skipped: the Rust target $phone cannot be installed; the verifier was not checked for it"
            continue
        fi
        cargo check --release --locked --package casemate-attestation --no-default-features --features rust-crypto --target "$phone" ||
            { bad "the verifier does not build for $phone" && return 1; }
    done
}

# What ships depends on no stand-in: neither the binaries nor what builds them.
lint_release_trees() {
    local package tree found=0
    for package in "${release_packages[@]}" casemate-init casemate-eif; do
        tree=$(cargo tree --locked --edges normal,build --prefix none --package "$package") || { bad "the dependency tree of $package cannot be read" && return 1; }
        if grep -q -E '^(casemate-(standins|standin-kms|dev|e2e|simulation|model)|stateright) ' <<<"$tree"; then
            bad "$package depends on a stand-in or on what only tests use, or cargo is told to unify features over the whole workspace"
            found=1
        fi
    done
    return "$found"
}

# The advisory database is a git repository; where it cannot be reached, an older copy serves, and no copy is said aloud.
lint_advisories() {
    local database
    if timeout 60 "$deny" --log-level off fetch db >/dev/null 2>&1; then
        "$deny" --log-level error check --disable-fetch advisories || { bad "cargo deny: advisories" && return 1; }
        return 0
    fi
    database=$(compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/.git" | head -n 1 || true)
    if [[ -z $database ]]; then
        warn "skipped: advisories were not checked; the advisory database cannot be reached from here and there is no copy of it"
        return 0
    fi
    warn "the advisory database cannot be reached: checking against the copy of $(git -C "${database%/.git}" log -1 --format=%cs)"
    "$deny" --log-level error check --disable-fetch advisories || { bad "cargo deny: advisories" && return 1; }
}

lint_scripts() {
    if ! have shellcheck; then
        warn "skipped: shellcheck is not installed; the scripts were only parsed"
        local script
        for script in dev .ci/run scripts/*.sh; do bash -n "$script" || return 1; done
        return 0
    fi
    # Through `dev`, which sources the others.
    shellcheck --external-sources --check-sourced dev .ci/run || { bad "shellcheck" && return 1; }
}

# The harness that judges the running system is itself under test.
stage_unit() {
    local failed=0
    run_programs '^/(tests/(standins|kms|dev|simulation|model|fuzzing)$|[a-z]+$)' . || failed=1
    run_programs '^/tests/e2e$' '^casemate_e2e$' || failed=1
    return "$failed"
}

stage_e2e() { run_programs '^/tests/e2e$' '^(promises|hostile)$'; }

# Rounds of the fault harness beside the tests of single faults, and the seed from which they follow.
chaos_rounds=60
chaos_seed=1

stage_faults() {
    local failed=0
    run_programs '^/tests/e2e$' '^faults$' || failed=1
    printf '     Running %s rounds of faults\n' "$chaos_rounds"
    "$CASEMATE_BIN_DIR/casemate-chaos" --rounds "$chaos_rounds" --seed "$chaos_seed" || { bad "faults: a promise did not hold" && failed=1; }
    return "$failed"
}

# The long run's length here, minutes; `./dev soak` has an hour.
soak_minutes=2

# What measures has the machine to itself: one test after the other, then the long run.
stage_load() {
    local failed=0
    run_programs '^/tests/e2e$' '^load$' --test-threads=1 || failed=1
    printf '     Running %s minutes at half load\n' "$soak_minutes"
    "$CASEMATE_BIN_DIR/casemate-soak" --minutes "$soak_minutes" || { bad "load: something grew" && failed=1; }
    return "$failed"
}

# How long it takes when nothing is in the cache: kernel, emulator, programs, and the tests.
image_seconds=1200

# The image on an emulated machine, and in it the main job and what a restart must not lose. `./dev test-image` runs all of the
# end-to-end tests in it.
stage_image() {
    local failed=0
    if ! has_emulator && ((${STAGE_SECONDS:-image_seconds} < image_seconds)); then
        warn "skipped: the image was not booted; its emulator is not in the cache, and building it does not fit into $(clock "$STAGE_SECONDS"). ./dev test-image does it"
        return 0
    fi
    # Their sources come from an archive that may be out of reach; ./dev test-image and ./dev nightly fail then.
    if ! (build_emulator && build_kernel); then
        warn "skipped: the image was not booted; its emulator or its kernel could not be built here"
        return 0
    fi
    has_emulator
    build_image
    build_test_image
    on_emulator run_programs '^/tests/e2e$' '^image$' --test-threads=1 --nocapture || failed=1
    in_guest '^promises$' main_job restarts kms_is_called_once || failed=1
    return "$failed"
}

# on_emulator COMMAND...: runs it where tests find emulator and images.
on_emulator() {
    CASEMATE_EMULATOR=$emulator CASEMATE_IMAGE=$image_folder/casemate.eif CASEMATE_TEST_IMAGE=$image_folder/casemate-test.eif "$@"
}

# in_guest NAME TEST...: test programs of the running system with every enclave in an emulated machine; all tests, or those named. One at a
# time: a machine emulates two processors, and tests have deadlines.
in_guest() {
    local named=$1
    shift
    CASEMATE_IN_GUEST=1 on_emulator run_programs '^/tests/e2e$' "$named" --test-threads=1 "$@"
}

all_stages=(install build lint unit e2e faults load image)

# Which line of the budget a stage draws on.
budget_of() { if [[ $1 == install ]]; then echo build; else echo "$1"; fi; }

# budget_seconds KEY: what the budget's file gives it.
budget_seconds() {
    local minutes
    minutes=$(sed -n -E "s/^$1 *= *([0-9]+(\.[0-9]+)?) *(#.*)?\$/\1/p" "$budget_file")
    [[ -n $minutes ]] || fail "$budget_file has no minutes for '$1'" "Add a line such as: $1 = 5"
    awk -v minutes="$minutes" 'BEGIN { printf "%d\n", minutes * 60 }'
}

check_budget() {
    local sum
    sum=$(sed -n -E 's/^[a-z0-9]+ *= *([0-9.]+).*/\1/p' "$budget_file" | awk '{ sum += $1 } END { printf "%d\n", sum * 60 }')
    ((sum <= 3600)) || fail "$budget_file gives away $(clock "$sum"), more than 60 minutes" "Take from one stage what another needs."
}

# run_stages STAGE...: each in turn, beside its budget; ends with one line of sums and fails if anything did. The image has, beside its
# own minutes, what the stages before it have left: its kernel and its emulator are built once, and then kept.
run_stages() {
    local stage key rc started took budget limit passed=0 failed=0 verdict reserve line left=0
    local -A used=()
    local -a rows=() reasons=() waiting=("$@")
    check_budget
    reserve=$(budget_seconds reserve)
    for stage in "$@"; do
        waiting=("${waiting[@]:1}")
        key=$(budget_of "$stage")
        budget=$(($(budget_seconds "$key") - ${used[$key]:-0}))
        ((budget > 0)) || budget=1
        [[ $stage != image ]] || budget=$((budget + left))
        limit=$((budget + reserve))
        title "$stage (budget $(clock "$budget"))"
        started=$SECONDS rc=0
        STAGE_SECONDS=$budget run_stage "$stage" "$limit" || rc=$?
        took=$((SECONDS - started))
        # Installing and building share one line: what the first leaves, the second has.
        [[ $stage == install ]] || left=$((left + (budget > took ? budget - took : 0)))
        used[$key]=$((${used[$key]:-0} + took))
        line=$(sum_results "$logs/$stage.log")
        passed=$((passed + ${line% *})) failed=$((failed + ${line#* }))
        verdict="${green}✓${plain}"
        if ((took > budget)); then
            reserve=$((reserve > took - budget ? reserve - (took - budget) : 0))
            verdict="${red}✗ overran${plain}"
            reasons+=("$stage took $(clock "$took"), its budget is $(clock "$budget") ($budget_file)")
        fi
        if ((rc != 0)); then
            verdict="${red}✗ failed${plain}"
            if ((rc == 124 || rc == 137)); then
                reasons+=("$stage was stopped after $(clock "$took"): its budget and the reserve were gone")
            else
                reasons+=("$stage failed (exit $rc)")
            fi
            bad "$stage failed; the end of its log:"
            log_tail "$logs/$stage.log" 40
            say "the whole log: target/log/$stage.log"
        fi
        # What failed without a failing test (a lint, a compiler error, a time-out) counts as one.
        if { ((rc != 0)) || ((took > budget)); } && ((${line#* } == 0)); then failed=$((failed + 1)); fi
        rows+=("$(printf '%-9s %6s of %6s  %s' "$stage" "$(clock "$took")" "$(clock "$budget")" "$verdict")")
        # Nothing after it means anything when these fail.
        if ((rc != 0)) && [[ $stage == install || $stage == build ]]; then break; fi
    done
    title "Stages"
    for line in "${rows[@]}"; do say "$line"; done
    if ((failed != 0)) && ((${#waiting[@]} != 0)); then say "${dim}not run: ${waiting[*]}${plain}"; fi
    for line in "${reasons[@]}"; do bad "$line"; done
    printf '\n%d passed, %d failed\n' "$passed" "$failed"
    ((failed == 0 && ${#reasons[@]} == 0))
}

# run_stage STAGE LIMIT: runs it in a process group of its own, so that its end is the end of all it started.
run_stage() {
    local log=$logs/$1.log rc=0 reader
    : >"$log"
    timeout --kill-after=10 "$2" "$root/dev" stage "$1" >"$log" 2>&1 </dev/null &
    stage_pid=$!
    tail -n +1 -s 0.2 --pid="$stage_pid" -f "$log" 2>/dev/null | progress &
    reader=$!
    wait "$stage_pid" || rc=$?
    stage_pid=
    wait "$reader" || true
    return "$rc"
}

# Shows of a stage's output what a person needs: on a terminal one line that moves, and above it the results; elsewhere the
# results and a sign of life.
progress() {
    local line crate='' width shown=$SECONDS lines=0
    width=$(tput cols 2>/dev/null || echo 100)
    while IFS= read -r line; do
        lines=$((lines + 1))
        case $line in
            *Running\ *\(*-*\)) crate=${line##*/} crate=${crate%-*} ;;
            *Doc-tests\ *) crate="${line##* } (documentation)" ;;
        esac
        case $line in
            test\ result:\ ok.\ 0\ passed\;\ 0\ failed\;\ 0\ ignored*) ;;
            test\ result:*) line=${line#test result: } && keep "$crate: ${line%%; 0 measured*}" ;;
            test\ *FAILED | error* | *panicked\ at* | *✓* | *✗* | *!\ *skipped:* | *!\ the\ advisory* | *:\ skipped* | *SKIPPED* | *installing\ * | *fetching\ * | *adding\ * | *building\ *) keep "$line" ;;
            *)
                if [[ -n $plain ]]; then
                    printf '\r\e[K  %s%s%s' "$dim" "${line:0:width-4}" "$plain"
                elif ((SECONDS - shown >= 60)); then
                    shown=$SECONDS
                    say "… still at it, $lines lines: ${line:0:90}"
                fi
                ;;
        esac
    done
    if [[ -n $plain ]]; then printf '\r\e[K'; fi
}
keep() { if [[ -n $plain ]]; then printf '\r\e[K  %s\n' "$1"; else printf '  %s\n' "$1"; fi; }

# sum_results LOG: "passed failed" over the lines in which cargo's tests give their result.
sum_results() {
    awk '/^test result: / { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) passed += $(i - 1); if ($i ~ /^failed/) failed += $(i - 1) } }
         END { printf "%d %d\n", passed, failed }' "$1"
}
