# What an operator installs, linted by tools that are not ours: templates, modules, rules, units. The linters live in the cache, pinned; what
# cannot be had here is said aloud. Sourced by `dev`.
# shellcheck shell=bash

cfn_lint_version=1.58.0
checkov_version=3.3.30
localstack_version=2026.3.0
moto_version=5.2.0
awscli_version=1.46.2

operations() {
    local failed=0 step
    install_operations
    for step in operations_cloudformation operations_terraform operations_packer operations_prometheus operations_grafana operations_nats operations_systemd operations_scripts; do
        "$step" || failed=1
    done
    return "$failed"
}

# install_operations: linters, and the emulators of AWS that the tests of operations speak to, each in a folder of its own because they pin
# each other's libraries. Sets operations_lint, and CASEMATE_EMULATORS and CASEMATE_AWS_CLI for tests.
install_operations() {
    if ! have promtool && have apt-get && ((EUID == 0)); then (install_packages "testing Prometheus rules" prometheus) || true; fi
    if ! have systemd-nspawn && have apt-get && ((EUID == 0)); then (install_packages "starting the units under systemd" systemd systemd-container) || true; fi
    python_folder linters "cfn-lint==$cfn_lint_version" "checkov==$checkov_version" && operations_lint=$python_bin
    install_emulators
}

install_emulators() {
    local python
    # LocalStack starts with Python 3.13 and newer, whatever its package says; the pins beside it are those with which it does.
    if ! python=$(python_at_least 3.13); then
        warn "skipped: no Python 3.13 or newer is here; tests that need emulators of AWS will say that they are skipped"
    elif python=$python python_folder emulators "localstack-core[base-runtime]==$localstack_version" "moto[server]==$moto_version" cbor2==5.8.0 pyopenssl==25.1.0 cryptography==45.0.7 service-identity==24.2.0; then
        export CASEMATE_EMULATORS=$python_bin
    fi
    if python_folder awscli "awscli==$awscli_version"; then export CASEMATE_AWS_CLI=$python_bin/aws; fi
}

# python_at_least VERSION: the first interpreter that is new enough, on stdout.
python_at_least() {
    local candidate
    for candidate in python3 python3.13 python3.14 "$HOME"/.pyenv/versions/3.1[3-9]*/bin/python3; do
        if have "$candidate" && at_least "$("$candidate" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo 0)" "$1"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# python_folder NAME PACKAGE...: a virtual environment with exactly these; sets python_bin. Whether it is there.
python_folder() {
    local name=$1 key folder interpreter=${python:-python3}
    shift
    key=$(printf '%s\n' "$interpreter" "$@" | sha256sum | cut -c -16)
    folder=$CASEMATE_CACHE/python/$name-$key python_bin=$CASEMATE_CACHE/python/$name-$key/bin
    [[ ! -e $folder/complete ]] || return 0
    if ! "$interpreter" -m ensurepip --version >/dev/null 2>&1 && have apt-get && ((EUID == 0)); then (install_packages "linting for operations" python3-venv) || true; fi
    say "fetching $name into the cache: $*"
    rm -rf "$folder" && mkdir -p "${folder%/*}"
    # An environment knows its own path: it is made where it stays, and complete when this file says so.
    if "$interpreter" -m venv "$folder" >"$logs/python-$name.log" 2>&1 && "$python_bin/pip" install --quiet --disable-pip-version-check --no-input "$@" >>"$logs/python-$name.log" 2>&1; then
        : >"$folder/complete"
        return 0
    fi
    log_tail "$logs/python-$name.log" 8 | redact_addresses | redact
    warn "skipped: $name could not be fetched; what it checks was not checked"
    python_bin=
    return 1
}

operations_cloudformation() {
    [[ -n ${operations_lint:-} ]] || { warn "skipped: CloudFormation was not linted"; return 0; }
    "$operations_lint/cfn-lint" deploy/cloudformation/*.yaml || { bad "cfn-lint" && return 1; }
    checkov cloudformation deploy/cloudformation || return 1
    good "CloudFormation: cfn-lint $cfn_lint_version, checkov $checkov_version"
}

# checkov FRAMEWORK FOLDER: it would ask its maker's service for texts, and says at length when it cannot.
checkov() {
    "$operations_lint/checkov" --directory "$2" --framework "$1" --compact --quiet --skip-download >"$logs/checkov.log" 2>"$logs/checkov.err" && return
    log_tail "$logs/checkov.log" 40
    bad "checkov: $2"
    return 1
}

operations_terraform() {
    if [[ -n ${operations_lint:-} ]]; then checkov terraform deploy/terraform || return 1; else warn "skipped: the Terraform module was not linted"; fi
    if ! have terraform; then
        warn "skipped: terraform is not installed; its format was not checked"
        return 0
    fi
    terraform fmt -check -diff -recursive -no-color deploy/terraform 2>/dev/null || { bad "terraform fmt: terraform fmt deploy/terraform mends it" && return 1; }
    local folder=$CASEMATE_CACHE/terraform.$$
    cp -r deploy/terraform "$folder"
    if ! (cd "$folder" && timeout 60 terraform init -backend=false -input=false -no-color) >"$logs/terraform.log" 2>&1; then
        rm -rf "$folder"
        warn "skipped: terraform validate needs the AWS provider, which cannot be fetched here; the module was formatted and scanned only"
        return 0
    fi
    (cd "$folder" && terraform validate -no-color) || { rm -rf "$folder"; bad "terraform validate" && return 1; }
    rm -rf "$folder"
    good "Terraform: fmt, validate, checkov"
}

operations_packer() {
    [[ -z ${operations_lint:-} ]] || "$operations_lint/python" -c 'import hcl2, sys; hcl2.load(open(sys.argv[1]))' deploy/packer/casemate.pkr.hcl || { bad "deploy/packer: it does not parse" && return 1; }
    if have packer && at_least "$(packer version | sed -n 's/^Packer v//p')" 1.9; then
        packer validate -syntax-only deploy/packer/casemate.pkr.hcl || { bad "packer validate" && return 1; }
    else
        warn "skipped: packer 1.9 or newer is not installed; its template was only parsed"
    fi
}

operations_prometheus() {
    have promtool || { warn "skipped: promtool is not installed; the rules were not tested"; return 0; }
    if ! { promtool check config deploy/prometheus/prometheus.yml && promtool test rules deploy/prometheus/casemate.test.yml; } >"$logs/promtool.log" 2>&1; then
        log_tail "$logs/promtool.log" 40
        bad "promtool"
        return 1
    fi
    good "Prometheus: configuration and rules checked, rules tested"
}

# Every metric that a panel or a rule asks for is one that the parent describes.
operations_grafana() {
    local metric unwritten=0
    python3 -m json.tool deploy/grafana/casemate.json >/dev/null || { bad "deploy/grafana/casemate.json is not JSON" && return 1; }
    while read -r metric; do
        grep -q -r "\"$metric\"" parent/src || { bad "no part writes the metric $metric" && unwritten=1; }
    done < <(grep -h -o -E 'casemate_[a-z_]+' deploy/grafana/casemate.json deploy/prometheus/casemate.rules.yml | sed -E 's/_(bucket|sum|count)$//' | sort -u)
    ((unwritten == 0)) && good "Grafana: every metric of dashboard and rules is written by the parent"
}

operations_nats() {
    [[ -n ${CASEMATE_NATS_SERVER:-} && -x $CASEMATE_BIN_DIR/casemate-parent ]] || { warn "skipped: the NATS configuration is checked where nats-server and casemate-parent are (./dev build)"; return 0; }
    local folder=$CASEMATE_CACHE/nats-check.$$ checked=0
    mkdir -p "$folder"
    sed -E "/^tls \{/,/^\}/d" deploy/nats/nats-server.conf >"$folder/nats-server.conf"
    "$CASEMATE_BIN_DIR/casemate-parent" nats init --dir "$folder/keys" >/dev/null && cp "$folder/keys/resolver.conf" "$folder/" &&
        "$CASEMATE_NATS_SERVER" -t -c "$folder/nats-server.conf" >"$logs/nats-check.log" 2>&1 || checked=1
    rm -rf "$folder"
    ((checked == 0)) || { log_tail "$logs/nats-check.log"; bad "nats-server refuses deploy/nats/nats-server.conf" && return 1; }
    good "NATS: nats-server takes the configuration with issued keys"
}

operations_systemd() {
    local said unit folder=$CASEMATE_CACHE/systemd.$$
    have systemd-analyze || { warn "skipped: systemd-analyze is not installed; the units were not verified"; return 0; }
    mkdir -p "$folder/usr/bin" "$folder/usr/lib/systemd/system"
    printf '#!/bin/sh\n' >"$folder/usr/bin/casemate-parent" && chmod +x "$folder/usr/bin/casemate-parent"
    cp -r systemd/*.service systemd/*.service.d "$folder/usr/lib/systemd/system/"
    cp /usr/lib/systemd/system/*.target "$folder/usr/lib/systemd/system/"
    said=$(systemd-analyze verify --man=no --root="$folder" casemate-parent.service nitro-enclave.service 2>&1)
    rm -rf "$folder"
    [[ -z $said ]] || { say "$said"; bad "systemd-analyze verify" && return 1; }
    for unit in casemate-parent:20 nitro-enclave:25; do
        systemd-analyze security --offline=true --threshold="${unit#*:}" "systemd/${unit%:*}.service" >"$logs/security.log" 2>&1 || { log_tail "$logs/security.log" 90; bad "${unit%:*}.service is exposed above ${unit#*:}/10" && return 1; }
        say "$(tail -n 1 "$logs/security.log" | sed 's/→ //')"
    done
    good "systemd: units verified"
}

operations_scripts() {
    have shellcheck || { warn "skipped: shellcheck is not installed"; return 0; }
    shellcheck deploy/packer/install.sh || { bad "shellcheck" && return 1; }
}
