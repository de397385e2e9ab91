# Single packages of Debian's archive, fetched into the cache whatever release this machine runs: apt checks Debian's signature, a pinned
# hash is checked here. Nothing of the machine's own package lists is touched, and no right of root is needed. Sourced by `dev`.
# shellcheck shell=bash

debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# own_apt SUITE TOOL ARGUMENT...: apt with lists of its own, which hold this suite and no other.
own_apt() {
    local suite=$1 tool=$2 folder=$CASEMATE_CACHE/debian/$1
    shift 2
    "$tool" -q -o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$folder/lists" \
        -o Dir::Cache="$folder" -o Dir::State::status=/dev/null -o APT::Sandbox::User="$(id -un)" "$@"
}

# debian_suite SUITE: makes its lists, from the archive that this machine's own packages come from; whether it could.
debian_suite() {
    local suite=$1 folder=$CASEMATE_CACHE/debian/$1 archive
    have apt-get || fail "this is not Debian" "The kernel and the emulator are built from Debian's source packages: build on Debian, or in a container of it."
    [[ -r $debian_keyring ]] || install_packages "checking Debian's signatures" debian-archive-keyring
    archive=$(apt-get --print-uris update 2>/dev/null | sed -n -E "s#^'([^']+/debian/?)/dists/.*#\1#p" | head -n 1)
    [[ -n $archive ]] || fail "apt names no archive of Debian" "See /etc/apt/sources.list."
    mkdir -p "$folder/lists/partial" "$folder/archives/partial"
    printf "%s [signed-by=$debian_keyring] $archive $suite main\n" deb deb-src >"$folder/sources.list"
    own_apt "$suite" apt-get update >"$logs/apt.log" 2>&1 || { log_tail "$logs/apt.log" 10 | redact_addresses >&2; return 1; }
}

# fetch_debian KIND SUITE PACKAGE VERSION SHA256: sets debian_file and debian_version. KIND `binary` is a package, `source` the upstream
# archive of a source package. An archive keeps one version of each: when the pinned one is gone, the newest stands in for it, and that
# is said aloud.
fetch_debian() {
    local kind=$1 suite=$2 package=$3 version=$4 sha256=$5 newest
    debian_version=$version debian_file=$CASEMATE_CACHE/debian/$kind-${package}_$version
    if is_intact "$debian_file" "$sha256"; then return; fi
    say "fetching the $kind package $package $version"
    if debian_suite "$suite"; then
        if download_debian "$kind" "$suite" "$package" "$version" "$debian_file"; then
            is_intact "$debian_file" "$sha256" || fail "$package $version is not the one whose hash is pinned: $(sha256sum "$debian_file" | cut -d' ' -f1)"
            return
        fi
        newest=$(newest_debian "$kind" "$suite" "$package")
    else
        newest=$(find "$CASEMATE_CACHE/debian" -maxdepth 1 -name "$kind-${package}_*" -printf '%f\n' | sed "s/^.*_//" | sort -V | tail -n 1)
    fi
    [[ -n $newest ]] || fail "$package cannot be fetched" "Put $package $version where it is looked for: (cache)${debian_file#"$CASEMATE_CACHE"}"
    warn "skipped: $package $version, which is pinned, is gone from Debian's archive. $newest stands in for it: what is measured differs from a release"
    debian_version=$newest debian_file=$CASEMATE_CACHE/debian/$kind-${package}_$newest
    [[ -s $debian_file ]] || download_debian "$kind" "$suite" "$package" "$newest" "$debian_file" || fail "$package $newest cannot be fetched"
}

newest_debian() {
    case $1 in
        binary) own_apt "$2" apt-cache policy "$3" 2>/dev/null | sed -n 's/^ *Candidate: //p' | grep -v none ;;
        source) own_apt "$2" apt-cache showsrc "$3" 2>/dev/null | sed -n 's/^Version: //p' | sort -V | tail -n 1 ;;
    esac
}

# download_debian KIND SUITE PACKAGE VERSION FILE
download_debian() {
    local folder=$CASEMATE_CACHE/debian/fetch.$$ fetched=1 fetch=(download)
    [[ $1 == binary ]] || fetch=(source --download-only --tar-only)
    rm -rf "$folder" && mkdir -p "$folder"
    if (cd "$folder" && own_apt "$2" apt-get "${fetch[@]}" "$3=$4") >"$logs/apt.log" 2>&1; then
        mv -f "$folder"/*_* "$5" && fetched=0
    fi
    rm -rf "$folder"
    return "$fetched"
}

is_intact() { [[ -s $1 ]] && sha256sum --check --status <<<"$2  $1"; }
