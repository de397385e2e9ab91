# A whole node on this machine: nats-server, stand-in KMS, parent, enclave; started in order, awaited, stopped in order.
# Its state lies under target/dev and is made anew by each `./dev run`. Sourced by `dev`.
# shellcheck shell=bash

declare -A pids=()
region=us-east-1
account=111122223333
enclave_role=arn:aws:iam::$account:role/casemate-enclave
admin_role=arn:aws:iam::$account:role/casemate-admin
runner_lock=$root/target/dev.lock

# run [--once | --background]
run() {
    local mode=stay
    case ${1:-} in
        '') ;;
        --once) mode=once ;;
        --background) mode=background ;;
        --detached) mode=detached ;; # what --background starts; not for people
        *) fail "'./dev run' does not know '$1'" "It takes nothing, --once or --background." ;;
    esac
    refuse_second
    if [[ $mode != detached ]]; then
        title "Building"
        install_build
        install_run
        build_all bins
        good "binaries are in target/bin"
    else
        install_nats
    fi
    if [[ $mode == background ]]; then
        run_in_background
        return
    fi
    hold_runner_lock
    stop_strays
    new_state
    trap 'leave $?' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    trap 'exit 141' PIPE
    title "Starting"
    start_node
    case $mode in
        detached) : >"$state/ready" ;;
        *) demonstrate || { ((demonstration_failures > 0)) && [[ $mode == stay ]]; } || exit 1 ;;
    esac
    [[ $mode != once ]] || return 0
    where_things_are
    say "It stays up until Ctrl-C."
    watch_node
}

# Whoever holds the lock runs the node; a dead runner holds nothing, so no pid file can lie about it.
hold_runner_lock() {
    exec 9>>"$runner_lock"
    flock -n 9 || refuse_second
    printf '%d\n' $$ >"$runner_lock"
}

runner_is_up() { [[ -e $runner_lock ]] && ! (exec 8>>"$runner_lock" && flock -n 8); }

refuse_second() {
    ! runner_is_up || fail "a node is already running from this checkout (process $(cat "$runner_lock"))" \
        "Use it:  . target/dev/env" "End it:  ./dev stop"
}

run_in_background() {
    rm -f "$state/ready"
    setsid "$root/dev" run --detached >"$logs/run.log" 2>&1 </dev/null &
    local runner=$! deadline=$((SECONDS + 120))
    until [[ -e $state/ready ]]; do
        if ! kill -0 "$runner" 2>/dev/null; then
            log_tail "$logs/run.log"
            fail "the node did not start" "The whole log: target/log/run.log"
        fi
        if ((SECONDS >= deadline)); then
            kill -TERM "$runner" 2>/dev/null || true
            fail "the node was not ready within 120 s" "The log: target/log/run.log; those of its parts: target/dev/log/"
        fi
        sleep 0.1
    done
    where_things_are
    say "It stays up until ./dev stop."
}

stop() {
    local runner deadline=$((SECONDS + 60))
    if ! runner_is_up; then
        stop_strays
        say "no node is running from this checkout"
        return 0
    fi
    runner=$(cat "$runner_lock")
    kill -TERM "$runner" 2>/dev/null || true
    while runner_is_up; do
        if ((SECONDS >= deadline)); then
            kill -KILL "$runner" 2>/dev/null || true
            break
        fi
        sleep 0.1
    done
    stop_strays
    good "stopped"
}

# Everything from an earlier run goes, so that no run depends on one before it.
new_state() {
    rm -rf "$state"
    mkdir -p "$state"/{authority,bin,demo,home,log,nats,pid,run,store}
    chmod 0700 "$state" "$state/run" "$state/home"
    ln -s "$CASEMATE_BIN_DIR/casemate-dev" "$state/bin/casemate"
    link=$state/run/link.sock admin=$state/run/admin.sock
    # sun_path holds 108 bytes with the zero at its end.
    ((${#admin} < 107)) || fail "the path of this checkout is too long for a Unix socket (${#admin} bytes)" "Move the checkout to a shorter path."
    access_key=AKIA$(openssl rand -hex 8 | tr 'a-f' 'A-F') secret_key=$(openssl rand -hex 20) session_token=$(openssl rand -hex 32)
    nats_port=-1 health_port=$(free_port)
}

# start_node: all parts in order, each awaited; ends with /health answering 200. State that is there is kept.
start_node() {
    start_nats
    make_authority
    start_kms
    write_parent_config >"$state/parent.toml"
    chmod 0600 "$state/parent.toml"
    rm -f "$link" "$admin"
    start_process parent "$CASEMATE_BIN_DIR/casemate-parent" --config "$state/parent.toml"
    await parent 20 "it listened for the enclave" test -S "$link"
    start_process enclave "$CASEMATE_BIN_DIR/casemate-enclave-dev" --link "unix:$link" --authority "$state/authority" --kms-endpoint "$kms_listen" --kms-ca "$kms_ca"
    await enclave 60 "/health said 200" is_healthy
    write_env >"$state/env"
    good "healthy: $health_url"
}

# The parent drains while the enclave still answers; what both stand on ends last.
stop_node() {
    local name
    rm -f "$state/env" "$state/ready"
    for name in parent enclave kms nats; do stop_process "$name" 10; done
}

start_nats() {
    # The first start takes any free port, a later one the same again. A record of the port appears when the server listens.
    cat >"$state/nats/nats.conf" <<EOF
listen: "127.0.0.1:$nats_port"
max_payload: 1MB
ports_file_dir: "$state/nats"
EOF
    rm -f "$state"/nats/*.ports
    start_process nats "$nats_server" --config "$state/nats/nats.conf"
    await nats 10 "it listened" test -s "$state/nats/nats-server_${pids[nats]}.ports"
    nats_port=$(sed -n -E 's/.*:([0-9]+)".*/\1/p' "$state/nats/nats-server_${pids[nats]}.ports")
    nats_url=nats://127.0.0.1:$nats_port
    good "nats-server: $nats_url"
}

# The root of this run's evidence, the measurements it vouches for, and the release file that a device trusts.
make_authority() {
    [[ -e $state/authority/measurements.json ]] && return 0
    "$CASEMATE_BIN_DIR/casemate-dev-authority" make --dir "$state/authority" --measurements-from "$CASEMATE_BIN_DIR/casemate-enclave-dev" >"$state/log/authority.log" 2>&1 ||
        { log_tail "$state/log/authority.log"; fail "the development authority could not be made"; }
    good "development evidence: its root is in target/dev/authority"
}

start_kms() {
    local measurements=$state/authority/measurements.json
    # Its first line on stdout says where it listens; earlier starts of this run stay in the log.
    kms_said=$(stat -c %s "$state/log/kms.log" 2>/dev/null || echo 0)
    # In the environment, not in argv, which every user of the machine can read.
    export STANDIN_KMS_ACCESS_KEY=$access_key STANDIN_KMS_SECRET_KEY=$secret_key STANDIN_KMS_SESSION_TOKEN=$session_token
    start_process kms "$CASEMATE_BIN_DIR/standin-kms" serve --state "$state/kms" --listen 127.0.0.1:0 --region "$region" --account "$account" \
        --name "kms.$region.amazonaws.com" --key-policy deploy/kms-key-policy.json --anchor "$state/authority/root.der" \
        --set "PCR0=$(json_field pcr0 <"$measurements")" --set "PCR1=$(json_field pcr1 <"$measurements")" --set "PCR2=$(json_field pcr2 <"$measurements")" \
        --set "ENCLAVE_ROLE_ARN=$enclave_role" --set "ADMIN_ROLE_ARN=$admin_role" --set "ACCOUNT=$account"
    unset STANDIN_KMS_ACCESS_KEY STANDIN_KMS_SECRET_KEY STANDIN_KMS_SESSION_TOKEN
    await kms 20 "it said where it listens" kms_is_ready
    good "stand-in KMS: $kms_listen, enforcing deploy/kms-key-policy.json"
    # The cluster's name follows from the key, which the stand-in made.
    "$CASEMATE_BIN_DIR/casemate-dev-authority" trust --dir "$state/authority" --kms-key-arn "$kms_key" --region "$region"
}

kms_is_ready() {
    local line
    line=$(tail -c "+$((kms_said + 1))" "$state/log/kms.log" | grep -m 1 '"listen"') || return 1
    kms_listen=$(json_field listen <<<"$line") kms_key=$(json_field key_arn <<<"$line") kms_ca=$(json_field ca <<<"$line")
}

# The parent's configuration for this run, on stdout.
write_parent_config() {
    cat <<EOF
# Made by ./dev run; overwritten at every start.
[node]
name = "dev"

[nats]
url = "$nats_url"

[link]
listen = "unix:$link"

[store]
url = "file://$state/store"

[trust]
kms_key_arn = "$kms_key"
region = "$region"

[kms]
allow = ["$kms_listen"]

[aws]
source = "static"
access_key_id = "$access_key"
secret_access_key = "$secret_key"
session_token = "$session_token"

[http]
listen = "127.0.0.1:$health_port"

[admin]
socket = "$admin"

[log]
target = "terminal"
EOF
}

# What another shell needs to use this node, on stdout.
write_env() {
    printf 'export CASEMATE_HOME=%q\n' "$state/home"
    printf 'export CASEMATE_NATS_URL=%q\n' "$nats_url"
    printf 'export CASEMATE_ADMIN_SOCKET=%q\n' "$admin"
    printf 'export CASEMATE_HEALTH_URL=%q\n' "$health_url"
    printf 'export CASEMATE_DEV_ROOT=%q\n' "$state/authority/root.der"
    # shellcheck disable=SC2016 # the shell that reads the file expands these
    printf 'case ":$PATH:" in *:%q:*) ;; *) export PATH=%q:"$PATH" ;; esac\n' "$state/bin" "$state/bin"
}

is_healthy() {
    health_url=http://127.0.0.1:$health_port/health
    [[ $(curl --silent --noproxy '*' --max-time 2 --output "$state/health.json" --write-out '%{http_code}' "$health_url") == 200 ]]
}

where_things_are() {
    title "A node is up"
    say "use it:     . target/dev/env && casemate --help"
    say "health:     $(sed -n 's/^export CASEMATE_HEALTH_URL=//p' "$state/env")"
    say "NATS:       $(sed -n 's/^export CASEMATE_NATS_URL=//p' "$state/env")"
    say "operators:  casemate node status (admin socket target/dev/run/admin.sock)"
    say "logs:       target/dev/log/   sealed objects: target/dev/store/"
}

# Waits until any part ends: that is a failure, and its log says why.
watch_node() {
    local name
    wait -n "${pids[@]}" 2>/dev/null || true
    for name in "${!pids[@]}"; do
        is_alive "${pids[$name]}" && continue
        bad "$name has ended by itself; the end of its log:"
        log_tail "$state/log/$name.log"
    done
    exit 1
}

# leave STATUS: the runner's end, however it comes.
leave() {
    trap - EXIT
    trap '' INT TERM HUP PIPE
    # Nobody may be reading any more; what runs is ended all the same.
    ((${#pids[@]} == 0)) || { printf '\n'; say "stopping"; } 2>/dev/null || true
    stop_node 2>/dev/null || true
    exit "$1"
}

# start_process NAME COMMAND...: in a session of its own, so that Ctrl-C reaches only this script, which stops in order.
start_process() {
    local name=$1
    shift
    setsid "$@" >>"$state/log/$name.log" 2>&1 </dev/null 9>&- &
    pids[$name]=$!
    printf '%d %s\n' "$!" "$(birth_of "$!")" >"$state/pid/$name"
}

# stop_process NAME SECONDS: asks, waits, then insists; its whole process group ends with it.
stop_process() {
    local pid=${pids[$1]:-} deadline=$((SECONDS + $2))
    [[ -n $pid ]] || return 0
    kill -TERM "$pid" 2>/dev/null || true
    while is_alive "$pid"; do
        if ((SECONDS >= deadline)); then
            warn "$1 did not end within $2 s: killed"
            break
        fi
        sleep 0.05
    done
    kill -KILL -- "-$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    unset "pids[$1]"
    rm -f "$state/pid/$1"
}

# What a runner that was itself killed left behind. A pid counts only with the birth it was noted with: pids come back.
stop_strays() {
    local file pid birth
    for file in "$state"/pid/*; do
        [[ -e $file ]] || continue
        read -r pid birth <"$file" || true
        if [[ -n $birth && $(birth_of "$pid") == "$birth" ]]; then
            warn "ending ${file##*/}, left behind by an earlier run"
            kill -KILL -- "-$pid" 2>/dev/null || true
        fi
        rm -f "$file"
    done
    rm -f "$state/env" "$state/ready"
}

# The time a process was started, in the kernel's ticks; nothing if there is none. The name in the second field may hold
# anything, so fields are counted from its closing parenthesis.
birth_of() { sed -E 's/^.*\) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

is_alive() { kill -0 "$1" 2>/dev/null; }

# await NAME SECONDS WHAT CONDITION...: polls until it holds; the process ending or the deadline passing is a failure.
await() {
    local name=$1 deadline=$((SECONDS + $2)) seconds=$2 what=$3
    shift 3
    until "$@"; do
        if ! is_alive "${pids[$name]}"; then
            log_tail "$state/log/$name.log"
            fail "$name ended before $what" "Its whole log: target/dev/log/$name.log"
        fi
        if ((SECONDS >= deadline)); then
            log_tail "$state/log/$name.log"
            fail "$name: $seconds s went by before $what" "Its whole log: target/dev/log/$name.log"
        fi
        sleep 0.05
    done
}

# json_field NAME: a string field of a flat JSON object on stdin; the first one found.
json_field() { sed -n -E "s/.*\"$1\" *: *\"([^\"]*)\".*/\1/p" | head -n 1; }

# A loopback port that nobody listens on now.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    printf '%d\n' "$port"
}
