# The emulator that boots the enclave's image without Nitro hardware: QEMU's nitro-enclave machine and the device that carries its vsock to
# Unix sockets. Built once, from source, into the cache: neither is a package of Debian's. Sourced by `dev`.
# shellcheck shell=bash

emulator_suite=bookworm-backports
qemu_version=1:10.0.2+ds-2+deb13u1~bpo12+1
qemu_source_sha256=0901da33844a331bf8b3602b9c1fbd178e60b737c8e3ade678255bd090c9b9f1
# The firmware (qboot.rom, linuxboot_dma.bin), which Debian builds as a package of its own.
qemu_data_sha256=2d831088187087013b3fcbd19bdfb955b182a2d5a08f6dafa0ad1c6d2007fb4e
# What builds QEMU, in the versions that it asks for and its source package lacks.
meson_wheels=(
    "meson==1.5.0 --hash=sha256:52b34f4903b882df52ad0d533146d4b992c018ea77399f825579737672ae7b20"
    "pycotap==1.3.1 --hash=sha256:1c3a25b3ff89e48f4e00f1f71dbbc1642b4f65c65d416524d07e73492fff25ea"
)
vsock_version=0.3.0
# What its security module does when it finds a request whose response buffer the guest is about to queue: it breaks down, for good. A device
# is looked after once more than its driver asks, when it begins, and the driver asks first of all for random bytes. It is to wait to be asked.
qemu_waits='/"Expected response buffer after request buffer "$/{N;N;s/.*/        virtqueue_unpop(vq, out_elem, 0);\n        return;/}'
# An image's machine and nothing else: no disk, no display, no network, no other board.
qemu_devices=(CONFIG_NITRO_ENCLAVE=y CONFIG_MICROVM=y CONFIG_VHOST_USER_VSOCK=y)
qemu_options=(
    --target-list=x86_64-softmmu --without-default-features --without-default-devices --with-devices-x86_64=casemate
    --enable-system --enable-tcg --enable-gnutls --enable-libcbor --enable-vhost-user --enable-fdt=system
    --disable-docs --disable-tools --disable-guest-agent --disable-install-blobs --disable-werror
)

install_emulator() {
    local missing=() library
    have gcc || missing+=(gcc libc6-dev)
    have ninja || missing+=(ninja-build)
    have pkg-config || missing+=(pkgconf)
    have bzip2 || missing+=(bzip2)
    python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    for library in glib-2.0/glib.h:libglib2.0-dev cbor.h:libcbor-dev gnutls/gnutls.h:libgnutls28-dev libfdt.h:libfdt-dev zlib.h:zlib1g-dev; do
        [[ -e /usr/include/${library%:*} ]] || missing+=("${library#*:}")
    done
    ((${#missing[@]} == 0)) || install_packages "the emulator" "${missing[@]}"
}

# Sets emulator to the folder where it is or will be; whether it is there.
has_emulator() {
    emulator=$CASEMATE_CACHE/emulator-$(printf '%s\n' "$qemu_version" "$vsock_version" "${qemu_devices[@]}" "${qemu_options[@]}" "$qemu_waits" | sha256sum | cut -c 1-16)
    [[ -x $emulator/qemu-system-x86_64 ]]
}

# Sets emulator to the folder with qemu-system-x86_64, qboot.rom and vhost-device-vsock: the one in the cache, or one that is built.
build_emulator() {
    local work log=$logs/emulator.log source data begun=$SECONDS
    has_emulator && return 0
    install_emulator
    mkdir -p "$CASEMATE_CACHE/debian"
    fetch_debian source "$emulator_suite" qemu "$qemu_version" "$qemu_source_sha256"
    source=$debian_file
    fetch_debian binary "$emulator_suite" qemu-system-data "$qemu_version" "$qemu_data_sha256"
    data=$debian_file
    say "building the emulator, QEMU ${qemu_version#*:} (about ten minutes on two cores)"
    work=$emulator.$$
    rm -rf "$work" && mkdir -p "$work/qemu" "$work/fetch/src" "$work/kept"
    if ! { make_qemu "$work" "$source" "$data" && make_vsock "$work"; } >"$log" 2>&1; then
        log_tail "$log" 20 | redact | redact_addresses >&2
        rm -rf "$work"
        fail "the emulator could not be built" "The whole log: target/log/emulator.log"
    fi
    mv -T "$work/kept" "$emulator" 2>/dev/null || true
    rm -rf "$work"
    [[ -x $emulator/qemu-system-x86_64 ]] || fail "the emulator could not be kept in the cache"
    good "built the emulator in $(clock $((SECONDS - begun)))"
}

make_qemu() {
    local work=$1 source=$2 data=$3
    tar -xf "$source" -C "$work/qemu" --strip-components=1 || return
    printf '%s\n' "${meson_wheels[@]}" >"$work/wheels.txt"
    python3 -m pip download --quiet --no-deps --only-binary :all: --require-hashes --dest "$work/qemu/python/wheels" --requirement "$work/wheels.txt" || return
    printf '%s\n' "${qemu_devices[@]}" >"$work/qemu/configs/devices/x86_64-softmmu/casemate.mak"
    # Debian's source has no firmware for other machines, which this would unpack.
    sed -i 's/^    unpack_edk2_blobs = bzip2.found()$/    unpack_edk2_blobs = false/' "$work/qemu/meson.build" || return
    sed -i "$qemu_waits" "$work/qemu/hw/virtio/virtio-nsm.c" || return
    grep -q '^        virtqueue_unpop(vq, out_elem, 0);$' "$work/qemu/hw/virtio/virtio-nsm.c" || return
    mkdir "$work/qemu/build" || return
    (cd "$work/qemu/build" && ../configure "${qemu_options[@]}" && nice ninja qemu-system-x86_64) || return
    cp "$work/qemu/build/qemu-system-x86_64" "$work/kept/" || return
    strip "$work/kept/qemu-system-x86_64" || return
    ar p "$data" data.tar.xz | tar -xJ -C "$work/kept" --strip-components=4 ./usr/share/qemu/qboot.rom ./usr/share/qemu/linuxboot_dma.bin
}

# To a guest, the program behind this device is the host, CID 2. An enclave's parent is CID 3, and the image under test must not know
# that it is emulated: hence the one constant is changed. Cargo checks the source's hash.
make_vsock() {
    local work=$1 manifest
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\nvhost-device-vsock = "=%s"\n' "$vsock_version" >"$work/fetch/Cargo.toml"
    : >"$work/fetch/src/lib.rs"
    # It is a program and no library: cargo warns of that, and fetches it all the same.
    (cd "$work/fetch" && cargo fetch --quiet) || return
    manifest=$(find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -path "*/vhost-device-vsock-$vsock_version/Cargo.toml" | head -n 1)
    cp -r "${manifest%/Cargo.toml}" "$work/vsock" || return
    sed -i 's/^pub(crate) const VSOCK_HOST_CID: u64 = 2;$/pub(crate) const VSOCK_HOST_CID: u64 = 3;/' "$work/vsock/src/vhu_vsock.rs" || return
    grep -q 'VSOCK_HOST_CID: u64 = 3;' "$work/vsock/src/vhu_vsock.rs" || return
    (cd "$work/vsock" && CARGO_TARGET_DIR=$work/vsock-target CARGO_PROFILE_RELEASE_DEBUG=0 nice cargo build --quiet --locked --release) || return
    cp "$work/vsock-target/release/vhost-device-vsock" "$work/kept/"
}
