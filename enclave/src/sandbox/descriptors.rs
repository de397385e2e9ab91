//! A vault-manager holds one descriptor: its socket, under number 0, where the zygote's control socket stood. Together with the
//! limit of one descriptor (`rlimits`) there is no free number left under which another could appear.
#![allow(unsafe_code)]

use nix::errno::Errno;

/// The number of a vault-manager's only descriptor.
pub(crate) const SOCKET: i32 = 0;
/// How far [`holds`] looks. The zygote never has more than a handful open.
const LOOK_UP_TO: i32 = 256;

/// Closes everything from `first` on.
pub(crate) fn close_from(first: u32) -> nix::Result<()> {
    // SAFETY: close_range(2) touches no memory of ours. The descriptors that it closes have owners in this process's copied
    // memory, but the callers (a fresh zygote, a fresh child) never come back to those owners.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    Errno::result(result).map(drop)
}

pub(super) fn apply() -> nix::Result<()> {
    close_from(1)
}

pub(super) fn holds() -> bool {
    let open = |fd| {
        // SAFETY: F_GETFD on any number reads one flag or fails with EBADF.
        unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
    };
    (0..LOOK_UP_TO).all(|fd| open(fd) == (fd == SOCKET))
}
