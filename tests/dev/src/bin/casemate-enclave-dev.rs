//! The enclave for development: the real supervisor and vault-managers, a simulated security module, the stand-in KMS.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use casemate_dev::circumstances::{self, Circumstance, cannot};
use casemate_dev::directory::MeasurementsFile;
use casemate_dev::enclave::{Outside, parts};
use casemate_enclave::boot::{self, Parts};
use casemate_enclave::outside::SecurityModule;
use casemate_enclave::sandbox::{Layer, SandboxOptions};
use casemate_enclave::{vault, zygote};
use casemate_link::Address;
use casemate_memory::Heap;
use casemate_standins::{DevelopmentAuthority, HastenedClock, SimulatedModule};
use clap::Parser;

/// musl's own gives memory back to the kernel so eagerly that a request costs system calls (`docs/decisions/0009`); its copies of memory
/// are replaced with it (`docs/decisions/0022`).
#[global_allocator]
static ALLOCATOR: Heap = Heap;

/// Run the supervisor with development evidence. Nothing that it holds is protected from this machine.
#[derive(Debug, Parser)]
struct Cli {
    /// The parent: unix:PATH or vsock:CID:PORT
    #[arg(long)]
    link: Address,
    /// The files that `casemate-dev-authority make` wrote
    #[arg(long)]
    authority: PathBuf,
    /// The stand-in KMS, HOST:PORT
    #[arg(long)]
    kms_endpoint: String,
    /// The stand-in KMS's CA certificate, DER
    #[arg(long)]
    kms_ca: PathBuf,
    /// A sandbox layer to give up, by name; health says so
    #[arg(long = "waive")]
    waived: Vec<Layer>,
    /// The first of the uids for vault-managers
    #[arg(long)]
    uid_base: Option<u32>,
    /// A socket where a test listens that lets time pass and the security module fail
    #[arg(long)]
    circumstances: Option<PathBuf>,
}

fn main() -> ExitCode {
    zygote::enter_if_zygote(vault::rehearsal::rehearse, vault::process::run);
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).log_internal_errors(false).init();
    match told(cli) {
        Ok(parts) => boot::run(parts),
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(2)
        }
    }
}

fn told(cli: Cli) -> Result<Parts, Box<dyn std::error::Error>> {
    let authority = Arc::new(DevelopmentAuthority::load(&cli.authority)?);
    let measurements =
        MeasurementsFile::load(&cli.authority)?.registers().ok_or("the measurements are not of their form")?;
    let outside = Outside { link: cli.link, kms_endpoint: cli.kms_endpoint, kms_ca: std::fs::read(&cli.kms_ca)? };
    let defaults = SandboxOptions::default();
    let sandbox = SandboxOptions { uid_base: cli.uid_base.unwrap_or(defaults.uid_base), waived: cli.waived };
    let Some(tests) = cli.circumstances else {
        return parts(outside, sandbox, move || {
            Ok(Arc::new(SimulatedModule::new(authority, measurements)) as Arc<dyn SecurityModule>)
        });
    };
    let clock = Arc::new(HastenedClock::default());
    let module = Arc::new(SimulatedModule::new(authority, measurements).with_clock(clock.clone()));
    let (passing, failing) = (Arc::clone(&clock), Arc::clone(&module));
    let bring_about = move |circumstance| {
        match circumstance {
            Circumstance::TimePassed(seconds) => passing.pass(seconds),
            Circumstance::ModuleFailing(fails) => failing.set_failing(fails),
            // The machine is not ours alone.
            Circumstance::KernelClock(_) | Circumstance::MemoryUsed(_) => return cannot(circumstance),
        }
        Ok(())
    };
    let parts = parts(outside, sandbox, move || {
        circumstances::obey(|| UnixStream::connect(tests), bring_about);
        Ok(module as Arc<dyn SecurityModule>)
    })?;
    Ok(Parts { clock, ..parts })
}
