# The main job, as a user would do it: each step is a line that can be typed after `. target/dev/env`. Sourced by `dev`.
# shellcheck shell=bash
# shellcheck disable=SC2016 # the steps' own shell expands them

demonstration_failures=0

demonstrate() {
    local here=target/dev/demo vault
    demonstration_failures=0
    head -c 65536 /dev/urandom >"$here/report"
    printf 'Pay the bearer ten ducats.\n' >"$here/message"

    title "A device and its vault"
    step "the device trusts this run's enclave image, and no other" \
        'casemate trust add target/dev/authority/trust.toml'
    step "evidence is verified, then the vault is created" \
        'casemate vault create'

    title "A secret of exactly 64 KiB"
    step "stored: sealed in the enclave, durable before it is acknowledged" \
        "casemate secret put report --file $here/report"
    step "read back, byte for byte" \
        "casemate secret get report > $here/report.1 && cmp $here/report $here/report.1"

    title "A key that never leaves the vault"
    step "generated inside the enclave" \
        'casemate key generate signing --algorithm ed25519'
    step "a message is signed" \
        "casemate key sign signing --file $here/message > $here/signature"
    step "openssl, which knows nothing of Casemate, verifies the signature" \
        "casemate key public signing --pem > $here/public.pem && openssl pkeyutl -verify -pubin -inkey $here/public.pem -rawin -in $here/message -sigfile $here/signature"

    title "Cold start"
    vault=$(in_env 'casemate vault status --json' 2>/dev/null | grep -o -E '"[a-z2-7]{32}"' | head -n 1 | tr -d '"' || true)
    step "an operator evicts the vault: its process ends, its keys are wiped" \
        "casemate node evict ${vault:-(unknown)}"
    step "the next request unseals it through attested KMS" \
        "casemate secret get report > $here/report.2 && cmp $here/report $here/report.2"

    title "Everything stops, and starts again"
    stop_node
    good "stopped: parent, enclave, KMS, NATS"
    start_node
    step "the secret is still there" \
        "casemate secret get report > $here/report.3 && cmp $here/report $here/report.3"

    if ((demonstration_failures == 0)); then
        title "${green}Every step was as it should be.${plain}"
    else
        title "${red}$demonstration_failures step(s) were not as they should be.${plain}"
        return 1
    fi
}

# step WHAT COMMAND: runs one line in a shell that has read target/dev/env, and shows both.
step() {
    local output=$state/log/step.log status=0
    in_env "$2" >"$output" 2>&1 </dev/null || status=$?
    if ((status == 0)); then
        good "$1"
    else
        bad "$1 (exit $status)"
        demonstration_failures=$((demonstration_failures + 1))
    fi
    printf '    %s$ %s%s\n' "$dim" "$2" "$plain"
    if ((status == 0)); then head -n 6 "$output" | redact | sed 's/^/      /'; else log_tail "$output" 20; fi
}

# A line as a person at this checkout would type it, with a deadline that a person would lose patience at.
# shellcheck disable=SC1091 # made at run time
in_env() { (source "$state/env" && exec timeout 60 bash -o pipefail -c "$1"); }
