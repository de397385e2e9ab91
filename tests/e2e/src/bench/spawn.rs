//! How long the zygote takes to make a vault-manager, from the order until it is ready, its walls included, beside a child that has nothing
//! to do.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use casemate_enclave::ipc::FromManager;
use casemate_enclave::sandbox::SandboxOptions;
use casemate_enclave::socket;
use casemate_enclave::supervisor_socket::SupervisorSocket;
use casemate_enclave::zygote::{Slot, Zygote, ZygoteEvent};
use nix::poll::{PollFd, PollFlags, poll};

use super::Result;
use super::brood::Brood;
use super::row::{Row, Samples};

/// Vault-managers that are made, one after the other; all live until the last is ready.
const SPAWNS: u32 = 1000;
/// What each may have.
const MEMORY_BYTES: u64 = 64 * 1024 * 1024;
/// Longest wait for one of them, and for one look.
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_MS: u16 = 1000;
/// Beside the uids of the nodes (`crate::node`).
const UID_BASE: u32 = 0x6000_0000;

/// Measures with this program as its own zygote, which its `main` is made for.
pub(super) fn measure() -> Result<Option<Row>> {
    let options = SandboxOptions { uid_base: UID_BASE, ..SandboxOptions::default() };
    let zygote = Zygote::start(&options)?;
    let mut brood = Brood::start()?;
    let (mut samples, mut bare) = (Samples::default(), Samples::default());
    let mut tenants = Vec::new();
    for slot in 0..SPAWNS {
        let (ours, theirs) = socket::pair()?;
        let mut ours = SupervisorSocket::new(ours);
        let start = Instant::now();
        zygote.spawn(Slot(slot), theirs, MEMORY_BYTES)?;
        let said = loop {
            poll(&mut [PollFd::new(ours.as_fd(), PollFlags::POLLIN)], PATIENCE_MS)?;
            if let Some(said) = ours.try_recv()? {
                break said;
            }
            if start.elapsed() > PATIENCE {
                return Err("a vault-manager is not ready after 10 s".into());
            }
        };
        samples.add(start.elapsed());
        if !matches!(said, FromManager::Ready { .. }) {
            return Err(format!("{said:?} instead of being ready").into());
        }
        tenants.push(ours);
        bare.add(brood.bear()?);
        // Each order has its event, and is only followed by the next when that was taken.
        while let Some(event) = zygote.next_event()? {
            if let ZygoteEvent::SpawnFailed { errno, .. } = event {
                return Err(errno.into());
            }
        }
    }
    Ok(Row::time("spawn", &samples, Some(&bare)))
}
