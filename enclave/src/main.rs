//! `casemate-enclave`: the supervisor in a Nitro enclave, and, under the name `vault-manager`, the zygote and its children.

use std::process::ExitCode;
use std::sync::Arc;

use casemate_enclave::boot::{self, Parts};
use casemate_enclave::keys::connector::Endpoint;
use casemate_enclave::nsm::Nsm;
use casemate_enclave::outside::SecurityModule;
use casemate_enclave::sandbox::SandboxOptions;
use casemate_enclave::system::{OsRandomness, SystemClock};
use casemate_enclave::{vault, zygote};
use casemate_link::Address;
use casemate_memory::Heap;

/// musl's own gives memory back to the kernel so eagerly that a request costs system calls (`docs/decisions/0009`); its copies of memory
/// are replaced with it (`docs/decisions/0022`).
#[global_allocator]
static ALLOCATOR: Heap = Heap;

/// The parent as an enclave sees it, and the port on which it listens.
const PARENT: Address = Address::Vsock { cid: 3, port: 7001 };

fn main() -> ExitCode {
    zygote::enter_if_zygote(vault::rehearsal::rehearse, vault::process::run);
    boot::run(Parts {
        module: Box::new(|| Ok(Arc::new(Nsm::open()?) as Arc<dyn SecurityModule>)),
        clock: Arc::new(SystemClock::new()),
        randomness: Arc::new(OsRandomness),
        link: PARENT,
        endpoint: Arc::new(Endpoint::aws),
        sandbox: SandboxOptions::default(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
    })
}
