//! A landlock ruleset that handles everything this kernel's landlock can handle, and allows none of it: no file or directory is
//! opened, no TCP port bound or connected to, no abstract socket and no process outside reached.
//!
//! The ruleset is made once, in the zygote; each child makes a domain of its own out of it, so that no vault-manager is within another's.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;

/// `LANDLOCK_CREATE_RULESET_VERSION`: tell the ABI's version instead of making a ruleset.
const TELL_VERSION: u32 = 1;

/// `struct landlock_ruleset_attr` of linux/landlock.h. An older kernel takes the longer form as long as what it does not know is zero.
#[repr(C)]
#[derive(Debug, Default, PartialEq, Eq)]
struct Attributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

impl Attributes {
    /// All that a kernel of this ABI can take away. What newer ones add is not known here; the other layers stand.
    const fn of(abi: i64) -> Self {
        let file_system_rights = match abi {
            ..2 => 13,
            // Linking and renaming across directories.
            2 => 14,
            // Truncating.
            3 | 4 => 15,
            // ioctl(2) on devices.
            _ => 16,
        };
        Self {
            handled_access_fs: (1 << file_system_rights) - 1,
            // bind(2) and connect(2) of TCP.
            handled_access_net: if abi < 4 { 0 } else { 0b11 },
            // Abstract Unix sockets and signals.
            scoped: if abi < 6 { 0 } else { 0b11 },
        }
    }
}

pub(super) fn ruleset() -> nix::Result<OwnedFd> {
    let none: *const Attributes = ptr::null();
    // SAFETY: with this flag the kernel takes no attributes and makes nothing.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, TELL_VERSION) };
    let attributes = Attributes::of(Errno::result(abi)?);
    let size = size_of::<Attributes>();
    // SAFETY: the attributes are of the kernel's layout, as long as we say, and live through the call.
    let made = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size, 0_u32) };
    let fd = i32::try_from(Errno::result(made)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn apply(ruleset: &OwnedFd) -> nix::Result<()> {
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) };
    Errno::result(result).map(drop)
}

/// To be asked while a descriptor can still be had.
pub(super) fn holds() -> bool {
    File::open("/").is_err_and(|error| error.raw_os_error() == Some(libc::EACCES))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of linux/landlock.h, where each ABI says what it added.
    #[test]
    fn each_abi_is_used_to_its_end() {
        let attributes = |fs, net, scoped| Attributes { handled_access_fs: fs, handled_access_net: net, scoped };
        assert_eq!(Attributes::of(1), attributes(0x1fff, 0, 0));
        assert_eq!(Attributes::of(2), attributes(0x3fff, 0, 0));
        assert_eq!(Attributes::of(3), attributes(0x7fff, 0, 0));
        assert_eq!(Attributes::of(4), attributes(0x7fff, 3, 0));
        assert_eq!(Attributes::of(5), attributes(0xffff, 3, 0));
        assert_eq!(Attributes::of(6), attributes(0xffff, 3, 3));
        assert_eq!(Attributes::of(7), Attributes::of(6));
    }
}
