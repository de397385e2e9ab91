//! The enclave of the test image: real walls, a real link and the machine's own security module, whose documents a development authority
//! signs. It is told by its host which authority, and where the stand-in KMS is, and does to its machine what a test there wants.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use casemate_dev::circumstances::{self, Circumstance, Taken, cannot, set_kernel_clock};
use casemate_dev::enclave::{Outside, parts};
use casemate_dev::settings::{Settings, dial_host};
use casemate_enclave::boot::{self, Parts};
use casemate_enclave::nsm::Nsm;
use casemate_enclave::outside::SecurityModule;
use casemate_enclave::sandbox::SandboxOptions;
use casemate_enclave::{vault, zygote};
use casemate_link::Address;
use casemate_memory::Heap;
use casemate_standins::{CountersignedModule, DevelopmentAuthority};

/// musl's own gives memory back to the kernel so eagerly that a request costs system calls (`docs/decisions/0009`); its copies of memory
/// are replaced with it (`docs/decisions/0022`).
#[global_allocator]
static ALLOCATOR: Heap = Heap;

/// As in a release image.
const PARENT: Address = Address::Vsock { cid: 3, port: 7001 };
const AUTHORITY: &str = "/tmp/authority";

fn main() -> ExitCode {
    zygote::enter_if_zygote(vault::rehearsal::rehearse, vault::process::run);
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).log_internal_errors(false).init();
    match told() {
        Ok(parts) => boot::run(parts),
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(2)
        }
    }
}

fn told() -> Result<Parts, Box<dyn Error>> {
    let settings = Settings::fetch()?;
    settings.unpack(Path::new(AUTHORITY))?;
    let authority = Arc::new(DevelopmentAuthority::load(Path::new(AUTHORITY))?);
    let outside = Outside { link: PARENT, kms_ca: settings.kms_ca()?, kms_endpoint: settings.kms_endpoint };
    let mut taken = Taken::default();
    let bring_about = move |circumstance| match circumstance {
        Circumstance::KernelClock(unix_ms) => set_kernel_clock(unix_ms),
        Circumstance::MemoryUsed(percent) => taken.take(percent),
        // The time is the machine's, and so is the module.
        Circumstance::TimePassed(_) | Circumstance::ModuleFailing(_) => cannot(circumstance),
    };
    parts(outside, SandboxOptions::default(), move || {
        circumstances::obey(|| dial_host(circumstances::PORT), bring_about);
        let module = Arc::new(Nsm::open()?) as Arc<dyn SecurityModule>;
        Ok(Arc::new(CountersignedModule::new(module, authority)) as Arc<dyn SecurityModule>)
    })
}
