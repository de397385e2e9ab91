//! Set-uid bits and file capabilities mean nothing any more, and seccomp may be used without CAP_SYS_ADMIN.

use nix::sys::prctl;

pub(super) fn apply() -> nix::Result<()> {
    prctl::set_no_new_privs()
}

pub(super) fn holds() -> nix::Result<bool> {
    prctl::get_no_new_privs()
}
