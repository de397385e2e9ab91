# How `./dev` talks: colours only on a terminal, one line a fact. Sourced by `dev`.
# shellcheck shell=bash

bold='' dim='' red='' green='' yellow='' plain=''
if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' yellow=$'\e[33m' plain=$'\e[0m'
fi

title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
say() { printf '  %s\n' "$*"; }
note() { printf '  %s%s%s\n' "$dim" "$*" "$plain"; }
good() { printf '  %s✓%s %s\n' "$green" "$plain" "$*"; }
bad() { printf '  %s✗%s %s\n' "$red" "$plain" "$*"; }
warn() { printf '  %s!%s %s\n' "$yellow" "$plain" "$*"; }

# fail MESSAGE [WHAT TO DO]: ends the script.
fail() {
    printf '%s✗ %s%s\n' "$red" "$1" "$plain" >&2
    if (($# > 1)); then printf '  %s\n' "${@:2}" >&2; fi
    exit 1
}

# Seconds as m:ss.
clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# What other people's output says about this machine stays here: paths become relative, addresses of registries go.
redact() {
    sed -u -E -e "s#${root}/#./#g" -e "s#${CARGO_TARGET_DIR}#(target)#g" -e "s#${CASEMATE_CACHE}#(cache)#g" -e "s#${HOME}/#~/#g"
}
redact_addresses() {
    sed -u -E -e 's#(sparse\+|registry\+|git\+)?(https?|git|ssh)://[^[:space:]"'"'"'>)]+#(address)#g'
}

# The end of a log, indented, for a failure's report.
log_tail() {
    [[ -s $1 ]] || return 0
    tail -n "${2:-30}" "$1" | sed 's/^/    │ /'
}
