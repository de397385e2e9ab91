# What the enclave's image is made of: the kernel, built from Debian's source, and our own programs. Sourced by `dev`.
# shellcheck shell=bash

kernel_folder=$root/eif/kernel
# What a kernel may say of its making; it says nothing else.
kernel_maker=(KBUILD_BUILD_USER=casemate KBUILD_BUILD_HOST=casemate KBUILD_BUILD_VERSION=1 "KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970")

# What is compiled from crates says where their sources lay, in panics and in AWS-LC's errors: then a program, and the image, would
# depend on whose machine built it. Sources of this checkout are named relative to it already.
crates=${CARGO_HOME:-$HOME/.cargo}/registry/src
image_flags=(
    "CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS=--remap-path-prefix=$crates=crates"
    "CFLAGS_x86_64_unknown_linux_musl=-ffile-prefix-map=$crates=crates"
)

image_folder=$root/target/image
image_packages=(casemate-enclave casemate-init)
# How the image's crates are listed, for its bill of materials.
list_crates=(cargo tree --locked --target "$musl_target" --edges normal --prefix none --format '{p}|{l}' -p casemate-enclave -p casemate-init)

# build_image [--json]: the enclave's image of this checkout, its measurements and its bill of materials, in target/image. Its programs
# have a folder of their own in the cache: other flags than elsewhere would compile everything anew each time.
build_image() {
    local programs=$CASEMATE_CACHE/image-programs package log=$logs/image-programs.log
    build_kernel
    mkdir -p "$image_folder"
    for package in casemate-eif "${image_packages[@]}"; do
        say "building $package"
        env "${image_flags[@]}" CARGO_TARGET_DIR="$programs" cargo build --release --locked -p "$package" >"$log" 2>&1 && continue
        log_tail "$log" 30 | redact >&2
        fail "$package could not be built" "The whole log: target/log/image-programs.log"
    done
    programs=$programs/$musl_target/release
    pack casemate.eif "$programs/casemate-enclave" "$@"
    "${list_crates[@]}" >"$image_folder/crates" 2>"$log" || fail "the image's crates cannot be listed" "The whole log: target/log/image-programs.log"
    "$programs/casemate-eif" sbom --pcrs "$image_folder/casemate.eif.pcrs.json" --tree "$image_folder/crates" --lock "$root/Cargo.lock" \
        --kernel "$kernel_source $kernel_sha256" --compiler "$(rustc --version | cut -d' ' -f2)" >"$image_folder/casemate.eif.cdx.json"
    rm -f "$image_folder/crates"
}

# build_test_image: the same with a development enclave, after the image and the binaries were built. Nobody's trust file names it.
build_test_image() { pack casemate-test.eif "$CASEMATE_BIN_DIR/casemate-enclave-guest" --name casemate-test --json >/dev/null; }

# pack NAME ENCLAVE ARGUMENT...: an image of the kernel, our init and this enclave.
pack() {
    local name=$1 enclave=$2 programs=$CASEMATE_CACHE/image-programs/$musl_target/release
    shift 2
    "$programs/casemate-eif" build --kernel "$kernel" --cmdline-file "$root/eif/kernel/cmdline" \
        --ramdisk "$root/eif/ramdisks/boot.list" --set INIT="$programs/casemate-init" \
        --ramdisk "$root/eif/ramdisks/application.list" --set ENCLAVE="$enclave" \
        --output "$image_folder/$name" "$@"
}

# compare_image: builds the image a second time, from a copy of this checkout in another folder and with a kernel and programs of its
# own; whether both are the same.
compare_image() {
    local elsewhere one two
    one=$(build_image --json | tee >(cat >&2) | tail -n 1)
    elsewhere=$(mktemp -d)
    mkdir -p "$elsewhere/another/checkout" "$elsewhere/cache"
    ln -s "$CASEMATE_CACHE/debian" "$elsewhere/cache/debian"
    git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$elsewhere/another/checkout"
    say "building it again in another folder"
    two=$(env -u CARGO_TARGET_DIR CASEMATE_CACHE="$elsewhere/cache" "$elsewhere/another/checkout/dev" image --json | tee >(cat >&2) | tail -n 1)
    if [[ $one == "$two" ]] && cmp "$image_folder/casemate.eif" "$elsewhere/another/checkout/target/image/casemate.eif" &&
        cmp "$image_folder/casemate.eif.cdx.json" "$elsewhere/another/checkout/target/image/casemate.eif.cdx.json"; then
        rm -rf "$elsewhere"
        good "two folders, one image: $one"
    else
        rm -rf "$elsewhere"
        fail "two builds of one checkout differ" "here:      $one" "elsewhere: $two"
    fi
}

install_kernel() {
    local missing=() program
    for program in make gcc bc flex bison gzip xz patch; do
        have "$program" && continue
        [[ $program == xz ]] && program=xz-utils
        missing+=("$program")
    done
    [[ -e /usr/include/gelf.h ]] || missing+=(libelf-dev)
    have cc && [[ ! -e /usr/include/stdio.h ]] && missing+=(libc6-dev)
    ((${#missing[@]} == 0)) || install_packages "the enclave's kernel" "${missing[@]}"
}

# Sets kernel to the bzImage of this checkout's configuration, source and compiler, kernel_source to the source's name and version, and
# kernel_sha256 to its hash: from the cache, or built.
build_kernel() {
    local suite package version sha256 name folder work log=$logs/kernel.log begun=$SECONDS
    install_kernel
    read -r suite package version sha256 < <(grep -v '^#' "$kernel_folder/source")
    fetch_debian binary "$suite" "$package" "$version" "$sha256"
    kernel_source="$package $debian_version" kernel_sha256=$(sha256sum "$debian_file" | cut -d' ' -f1)
    # The compiler's and the linker's versions are part of a kernel's bytes.
    name=kernel-$({ cat "$kernel_folder/config" "$kernel_folder"/patches/*.patch && printf '%s\n' "$kernel_source" "${kernel_maker[@]}" &&
        gcc --version | head -n 1 && ld --version | head -n 1; } | sha256sum | cut -c 1-16)
    folder=$CASEMATE_CACHE/$name
    kernel=$folder/bzImage
    [[ ! -s $kernel ]] || return 0
    say "building the enclave's kernel from $kernel_source (about five minutes on two cores)"
    work=$CASEMATE_CACHE/$name.$$
    rm -rf "$work" && mkdir -p "$work/source" "$work/kept"
    if ! make_kernel "$work" "$debian_file" >"$log" 2>&1; then
        grep '✗' "$log" >&2 || log_tail "$log" 20 | redact >&2
        rm -rf "$work"
        fail "the kernel could not be built" "The whole log: target/log/kernel.log"
    fi
    # Another run may have been quicker; its kernel is the same.
    mv -T "$work/kept" "$folder" 2>/dev/null || true
    rm -rf "$work"
    [[ -s $kernel ]] || fail "the kernel could not be kept in the cache"
    good "built the enclave's kernel in $(clock $((SECONDS - begun))), $(($(stat -c %s "$kernel") / 1024)) KiB"
}

# make_kernel WORK PACKAGE: leaves bzImage and its configuration in WORK/kept.
make_kernel() {
    local work=$1 package=$2 patch
    local make=(nice make -C "$work/source" -j"$(nproc)" "${kernel_maker[@]}" "KCFLAGS=-ffile-prefix-map=$work/source=.")
    ar p "$package" data.tar.xz | tar -xJO --wildcards './usr/src/linux-source-*.tar.xz' | tar -xJ -C "$work/source" --strip-components=1 || return
    for patch in "$kernel_folder"/patches/*.patch; do
        patch --silent -d "$work/source" -p 1 <"$patch" || return
    done
    "${make[@]}" -s tinyconfig || return
    # The last word on an option counts.
    cat "$kernel_folder/config" >>"$work/source/.config"
    "${make[@]}" -s olddefconfig || return
    check_kernel "$work/source/.config" || return
    "${make[@]}" bzImage || return
    cp "$work/source/arch/x86/boot/bzImage" "$work/kept/"
    cp "$work/source/.config" "$work/kept/config"
}

# check_kernel FILE: whether each wanted option survived the kernel's own rules.
check_kernel() {
    local line option failed=0
    while IFS= read -r line; do
        case $line in
            CONFIG_*) grep -qxF "$line" "$1" || { bad "the kernel does not have $line, it has: $(grep -E "^(# )?${line%%=*}[= ]" "$1" || echo nothing)" && failed=1; } ;;
            '# CONFIG_'*' is not set')
                option=${line#\# } option=${option%% *}
                ! grep -q "^$option=" "$1" || { bad "the kernel has $(grep "^$option=" "$1"), which it should not" && failed=1; }
                ;;
        esac
    done <"$kernel_folder/config"
    return "$failed"
}
