//! Stands between enclave and parent and holds up what passes on the connection to the store. It reads nothing but each connection's
//! hello, and changes nothing.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use casemate_protocol::codec;
use casemate_protocol::link::{Class, HELLO_BYTES, Hello};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Calls, to the store.
    ToStore,
    /// Answers, from it.
    FromStore,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Way>,
    /// How long each piece of an answer is held up.
    delay: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The gate. Its threads end with its connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<Shared>);

impl Gate {
    /// An open gate at `front`, before the parent's socket `behind`.
    pub(crate) fn open(front: &Path, behind: &Path) -> Self {
        let gate = Self::default();
        let listener = UnixListener::bind(front).unwrap();
        let (shared, behind) = (Arc::clone(&gate.0), behind.to_owned());
        thread::spawn(move || {
            for enclave in listener.incoming().map_while(Result::ok) {
                let (shared, behind) = (Arc::clone(&shared), behind.clone());
                thread::spawn(move || serve(enclave, &behind, &shared));
            }
        });
        gate
    }

    /// From now on nothing passes this way.
    pub(crate) fn hold(&self, way: Way) {
        self.0.state.lock().unwrap().held = Some(way);
    }

    /// Everything passes, first what was held.
    pub(crate) fn release(&self) {
        self.0.state.lock().unwrap().held = None;
        self.0.changed.notify_all();
    }

    /// Answers come so much later.
    pub(crate) fn delay(&self, delay: Duration) {
        self.0.state.lock().unwrap().delay = delay;
    }
}

fn serve(mut enclave: UnixStream, behind: &Path, shared: &Arc<Shared>) {
    let Some((class, hello)) = hello(&mut enclave) else { return };
    let Ok(mut parent) = UnixStream::connect(behind) else { return };
    if parent.write_all(&hello).is_err() {
        return;
    }
    let gate = (class == Class::Blobs).then(|| Arc::clone(shared));
    let (from_parent, to_enclave) = (parent.try_clone().unwrap(), enclave.try_clone().unwrap());
    let answers = gate.clone();
    thread::spawn(move || pass(from_parent, to_enclave, Way::FromStore, answers.as_deref()));
    pass(enclave, parent, Way::ToStore, gate.as_deref());
}

/// `u32 BE length ‖ CBOR`.
fn hello(enclave: &mut UnixStream) -> Option<(Class, Vec<u8>)> {
    let mut bytes = vec![0; 4];
    enclave.read_exact(&mut bytes).ok()?;
    let len = usize::try_from(u32::from_be_bytes(bytes[..].try_into().ok()?)).ok()?;
    bytes.resize(4 + len.min(HELLO_BYTES), 0);
    enclave.read_exact(&mut bytes[4..]).ok()?;
    let hello: Hello = codec::decode(&bytes[4..], HELLO_BYTES).ok()?;
    Some((hello.class, bytes))
}

fn pass(mut from: UnixStream, mut to: UnixStream, way: Way, gate: Option<&Shared>) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(len @ 1..) = from.read(&mut piece) {
        if let Some(gate) = gate {
            let state = gate.state.lock().unwrap();
            let state = gate.changed.wait_while(state, |state| state.held == Some(way)).unwrap();
            let delay = if way == Way::FromStore { state.delay } else { Duration::ZERO };
            drop(state);
            thread::sleep(delay);
        }
        if to.write_all(&piece[..len]).is_err() {
            break;
        }
    }
    // The end of one way is the end of both.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
