//! A zygote with vault-managers, as the tests hold it.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use casemate_enclave::ipc::{FromManager, ToManager};
use casemate_enclave::sandbox::{Layer, SandboxOptions};
use casemate_enclave::socket::{SocketError, pair};
use casemate_enclave::supervisor_socket::SupervisorSocket;
use casemate_enclave::zygote::{ExitKind, Slot, Zygote, ZygoteError, ZygoteEvent};
use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::geteuid;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const MEMORY_BYTES: u64 = 32 * 1024 * 1024;

pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Layers that only root can put up.
pub(crate) const NEED_ROOT: [Layer; 7] = [
    Layer::Cgroup,
    Layer::NetworkNamespace,
    Layer::IpcNamespace,
    Layer::UtsNamespace,
    Layer::MountNamespace,
    Layer::PidNamespace,
    Layer::Uid,
];

/// Waives these, and without root what needs it.
pub(crate) fn options(waived: &[Layer]) -> SandboxOptions {
    let mut options = SandboxOptions { waived: waived.to_vec(), ..SandboxOptions::default() };
    if !is_root() {
        options.waived.extend(NEED_ROOT.into_iter().filter(|layer| !waived.contains(layer)));
    }
    options
}

pub(crate) struct House {
    pub(crate) zygote: Zygote,
    events: Vec<ZygoteEvent>,
}

pub(crate) struct Tenant {
    pub(crate) slot: Slot,
    pub(crate) pid: i32,
    pub(crate) clone_micros: u32,
    socket: SupervisorSocket,
}

impl House {
    pub(crate) fn open(waived: &[Layer]) -> Self {
        let zygote = Zygote::start(&options(waived)).unwrap();
        Self { zygote, events: Vec::new() }
    }

    /// A vault-manager that has said that it is ready.
    pub(crate) fn tenant(&mut self, slot: u32) -> Tenant {
        let slot = Slot(slot);
        let (ours, theirs) = pair().unwrap();
        self.zygote.spawn(slot, theirs, MEMORY_BYTES).unwrap();
        let mut socket = SupervisorSocket::new(ours);
        let ready = hear(&mut socket).unwrap();
        assert!(matches!(ready, FromManager::Ready { .. }), "{ready:?}");
        let (pid, clone_micros) = self.event(|event| match event {
            ZygoteEvent::Spawned { slot: of, pid, micros } if of == slot => Some((pid, micros)),
            _ => None,
        });
        Tenant { slot, pid, clone_micros, socket }
    }

    /// Asks a vault-manager to do something; what it answers, or nothing when it has ended.
    #[expect(clippy::unused_self, reason = "nobody is asked whose house has fallen")]
    pub(crate) fn ask(&self, tenant: &mut Tenant, deed: &str) -> Option<Vec<u8>> {
        let request = ToManager::Request { id: 7, deadline_ms: 1000, frame: deed.into(), credentials: None };
        tenant.socket.try_send(&request).unwrap();
        match hear(&mut tenant.socket) {
            Ok(FromManager::Reply { id: 7, frame }) => Some(frame),
            Ok(other) => panic!("{other:?}"),
            Err(SocketError::Closed) => None,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn text(&self, tenant: &mut Tenant, deed: &str) -> String {
        String::from_utf8(self.ask(tenant, deed).unwrap_or_else(|| panic!("ended by `{deed}`"))).unwrap()
    }

    /// The first event, past or future, that is looked for.
    pub(crate) fn event<T>(&mut self, look: impl Fn(ZygoteEvent) -> Option<T>) -> T {
        self.try_event(look).unwrap()
    }

    pub(crate) fn try_event<T>(&mut self, look: impl Fn(ZygoteEvent) -> Option<T>) -> Result<T, ZygoteError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(index) = self.events.iter().position(|event| look(*event).is_some()) {
                return Ok(look(self.events.remove(index)).unwrap());
            }
            if let Some(event) = self.zygote.next_event()? {
                self.events.push(event);
                continue;
            }
            assert!(Instant::now() < deadline, "no such event; others: {:?}", self.events);
            poll(&mut [PollFd::new(self.zygote.control_fd(), PollFlags::POLLIN)], 1000_u16).unwrap();
        }
    }

    pub(crate) fn exit_of(&mut self, slot: Slot) -> ExitKind {
        self.event(|event| match event {
            ZygoteEvent::Exited { slot: of, status } if of == slot => Some(status),
            _ => None,
        })
    }
}

/// The next message of a vault-manager, within [`PATIENCE`].
fn hear(socket: &mut SupervisorSocket) -> Result<FromManager, SocketError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(message) = socket.try_recv()? {
            return Ok(message);
        }
        assert!(Instant::now() < deadline, "nothing came");
        poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], 1000_u16).unwrap();
    }
}

/// Whether a process is running; a zombie is not.
pub(crate) fn runs(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with(['Z', 'X']))
}

pub(crate) fn await_end(pids: &[i32]) {
    let deadline = Instant::now() + PATIENCE;
    while pids.iter().any(|pid| runs(*pid)) {
        assert!(
            Instant::now() < deadline,
            "still there: {:?}",
            pids.iter().filter(|pid| runs(**pid)).collect::<Vec<_>>()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}
