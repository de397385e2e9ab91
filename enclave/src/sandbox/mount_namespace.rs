//! An empty, read-only root, made once in the zygote's own mount namespace and shared by all its children: no file, no device and
//! no `/proc` is there to be opened, and nothing can be written.
//!
//! The zygote is one static executable and needs no file any more once it is running.

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, chroot, pivot_root};

/// The one directory that is surely there: the zygote was started from it.
const STAGE: &str = "/proc";
/// The root's own inode: there is none for anything else.
const INODES: u64 = 1;
const EMPTY: &str = "mode=555,size=4k,nr_inodes=1";
const NOTHING: Option<&str> = None;

pub(super) fn enter() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Or the supervisor, and the whole machine, would get this root as well.
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("none"), STAGE, Some("tmpfs"), flags, Some(EMPTY))?;
    chdir(STAGE)?;
    match pivot_root(".", ".") {
        // Both stand at `/` now, the old one on top.
        Ok(()) => umount2(".", MntFlags::MNT_DETACH)?,
        // The kernel's first root (an initramfs, as in an enclave) can be covered but not exchanged. What it covers is out of reach
        // for whoever has no CAP_SYS_CHROOT and no descriptor of a directory.
        Err(Errno::EINVAL) => {
            mount(Some("."), "/", NOTHING, MsFlags::MS_MOVE, NOTHING)?;
            chroot(".")?;
        }
        Err(errno) => return Err(errno),
    }
    chdir("/")
}

pub(super) fn holds() -> nix::Result<bool> {
    let wanted = FsFlags::ST_RDONLY | FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC;
    let root = statvfs("/")?;
    // Not by reading the directory, for which the C library would begin a heap of its own, in the zygote and in all its children.
    Ok(root.files() == INODES && root.flags().contains(wanted))
}
