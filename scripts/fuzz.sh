# Fuzzing: the targets of the packages */fuzz behind libFuzzer, and what a run of them showed. Sourced by `dev`.
#
# libFuzzer is built by the crate libfuzzer-sys; coverage and address sanitizer are rustc's own. That is what cargo-fuzz would
# pass, without cargo-fuzz. RUSTC_BOOTSTRAP lets the stable compiler take the sanitizer's flag.
# shellcheck shell=bash

# Executions of each target in a nightly run.
fuzz_runs=10000000
# A hang, a process, one allocation, an input. What a target may allocate for an input is far less, and asserted by itself.
fuzz_limits=(-timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 -max_len=4096)
fuzz_coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 -Cdebug-assertions -Ccodegen-units=1"

fuzz_help() {
    cat <<HELP
${bold}./dev fuzz${plain} [TARGET...] [--seconds S | --runs N] [--sanitizer address|none]

  Fuzzes each target, or those named, for S seconds (60) or N executions, and ends with a table. What a run finds of interest
  goes to target/fuzz/TARGET/corpus and is where the next begins; an input that breaks a promise lies in target/fuzz/TARGET.
  It belongs into the corpus beside the package, where the tests replay it from then on.

  --list             the targets, the package of each, and how many seeds it has
  --sanitizer none   without the address sanitizer, some times quicker; panics, overflows, hangs and memory are still found

  A number of seconds may also stand last: ./dev fuzz frames 300
HELP
}

# Each target with its package, one a line: a target is a folder of seeds (tests/fuzzing sees to it).
fuzz_targets() {
    local folder
    for folder in */fuzz/corpus/*/; do
        folder=${folder%/}
        printf '%s %s\n' "${folder##*/}" "${folder%%/*}"
    done
}

fuzz_list() {
    local target package
    while read -r target package; do
        printf '  %-22s %-12s %3d seeds\n' "$target" "$package" "$(find "$package/fuzz/corpus/$target" -type f | wc -l)"
    done < <(fuzz_targets)
}

# fuzz_build PACKAGE SANITIZER: builds a package; sets fuzz_binary.
fuzz_build() {
    local host flags=$fuzz_coverage folder=$CARGO_TARGET_DIR/fuzz
    host=$(rustc -vV | sed -n 's/^host: //p')
    if [[ $2 == none ]]; then folder+=-none; else flags+=" -Zsanitizer=$2"; fi
    flags+=" --cfg=fuzzing"
    say "building $1/fuzz"
    RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$folder RUSTFLAGS=$flags \
        cargo build --release --manifest-path "$1/fuzz/Cargo.toml" --target "$host" >"$logs/fuzz-build.log" 2>&1 ||
        { log_tail "$logs/fuzz-build.log" 60 | redact_addresses | redact && fail "$1/fuzz could not be built" "The whole log: target/log/fuzz-build.log"; }
    fuzz_binary=$folder/$host/release/fuzz-$1
}

# fuzz_one TARGET PACKAGE LIMIT: runs it and keeps its row for the table; fails when something was found.
fuzz_one() {
    local target=$1 package=$2 folder=target/fuzz/$1 began=$SECONDS rc=0 took runs peak verdict="${green}✓${plain}"
    mkdir -p "$folder/corpus"
    # The seeds beside the package are read only. Freed memory is kept back for a while by the sanitizer, a little is enough.
    CASEMATE_FUZZ_TARGET=$target ASAN_OPTIONS=quarantine_size_mb=16 "$fuzz_binary" "$folder/corpus" "$package/fuzz/corpus/$target" \
        "$3" "${fuzz_limits[@]}" -print_final_stats=1 -artifact_prefix="$folder/" >"$folder/log" 2>&1 || rc=$?
    took=$((SECONDS - began))
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/log")
    peak=$(sed -n 's/^stat::peak_rss_mb: *//p' "$folder/log")
    if ((rc != 0)); then
        verdict="${red}✗ found: $folder${plain}"
        log_tail "$folder/log" 30 | redact
    fi
    fuzz_rows+=("$(printf '%-22s %11s %8s %8d %6s  %s' "$target" "${runs:-?}" "$(clock "$took")" "$((${runs:-0} / (took > 0 ? took : 1)))" "${peak:-?}" "$verdict")")
    say "${fuzz_rows[-1]}"
    return "$rc"
}

# fuzz ARGUMENT...: see fuzz_help.
fuzz() {
    local limit=-max_total_time=60 sanitizer=address target package built='' status=0 fuzz_binary=''
    local -a wanted=() fuzz_rows=()
    while (($#)); do
        case $1 in
            -h | --help) fuzz_help && return ;;
            --list) fuzz_list && return ;;
            --seconds) limit=-max_total_time=${2:?} && shift ;;
            --runs) limit=-runs=${2:?} && shift ;;
            --sanitizer) sanitizer=${2:?} && shift ;;
            *[!0-9]*) wanted+=("$1") ;;
            *) limit=-max_total_time=$1 ;;
        esac
        shift
    done
    [[ $sanitizer == address || $sanitizer == none ]] || fail "there is no sanitizer '$sanitizer'" "There are address and none."
    for target in "${wanted[@]}"; do
        # Not `grep -q`, which stops reading at the first match: whoever still writes then fails, and with it the pipe.
        fuzz_targets | grep "^$target " >/dev/null || fail "there is no fuzz target '$target'" "./dev fuzz --list lists them."
    done
    have c++ || install_packages "fuzzing" g++
    title "fuzzing (${limit#-}, sanitizer: $sanitizer)"
    while read -r target package; do
        [[ ${#wanted[@]} == 0 || " ${wanted[*]} " == *" $target "* ]] || continue
        [[ $built == "$package" ]] || { fuzz_build "$package" "$sanitizer" && built=$package; }
        fuzz_one "$target" "$package" "$limit" || status=1
    done < <(fuzz_targets)
    title "$(printf '%-22s %11s %8s %8s %6s' target executions time exec/s "MiB")"
    for target in "${fuzz_rows[@]}"; do say "$target"; done
    ((status == 0)) || bad "an input in target/fuzz/TARGET breaks a promise: mend the parser, and add the input to the corpus"
    return "$status"
}
