//! A vault-manager's own uid: another one's memory, signals and `/proc` entries are another user's.

use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

pub(super) fn apply(id: u32) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

pub(super) fn holds(id: u32) -> nix::Result<bool> {
    let (uids, gids) = (getresuid()?, getresgid()?);
    let ids = [uids.real, uids.effective, uids.saved].map(Uid::as_raw);
    let group_ids = [gids.real, gids.effective, gids.saved].map(Gid::as_raw);
    let root = Uid::from_raw(0);
    Ok(ids == [id; 3] && group_ids == [id; 3] && getgroups()?.is_empty() && setresuid(root, root, root).is_err())
}
