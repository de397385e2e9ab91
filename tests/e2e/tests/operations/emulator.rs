//! Emulators of AWS as processes of their own, each on a loopback port.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use casemate_e2e::process::Process;
use casemate_e2e::programs::checkout;
use serde_json::Value;
use tempfile::TempDir;

/// Python takes its time on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// The folder of the environment's programs; says so when there is none.
#[expect(clippy::print_stderr, reason = "a skipped test must not look like one that passed")]
pub(crate) fn programs(test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("CASEMATE_EMULATORS").map(PathBuf::from).filter(|path| path.join("python").exists());
    if found.is_none() {
        eprintln!("SKIPPED {test}: CASEMATE_EMULATORS names no emulators of AWS; ./dev operations --test fetches them");
    }
    found
}

/// A running emulator.
pub(crate) struct Emulator {
    _process: Process,
    folder: TempDir,
    programs: PathBuf,
    port: u16,
}

impl Emulator {
    /// CloudWatch: stores figures and evaluates alarms (LocalStack).
    pub(crate) fn cloudwatch(programs: PathBuf) -> Self {
        Self::cloudwatch_at(programs, free_port())
    }

    /// The same, on this port.
    pub(crate) fn cloudwatch_at(programs: PathBuf, port: u16) -> Self {
        Self::start(programs, port, |programs, port, folder| {
            let mut command = Command::new(programs.join("python"));
            command.arg(checkout().join("tests/e2e/emulators/cloudwatch.py")).arg(port.to_string()).arg(folder.path());
            command
        })
    }

    /// Everything else (moto).
    pub(crate) fn moto(programs: PathBuf) -> Self {
        Self::start(programs, free_port(), |programs, port, _| {
            let mut command = Command::new(programs.join("moto_server"));
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        })
    }

    fn start(programs: PathBuf, port: u16, command: impl Fn(&PathBuf, u16, &TempDir) -> Command) -> Self {
        let folder = tempfile::Builder::new().prefix("casemate-emulator-").tempdir().unwrap();
        let mut command = command(&programs, port, &folder);
        let mut process =
            Process::start("emulator", folder.path(), command.env("NO_PROXY", "*").current_dir(folder.path()));
        process.await_ready(PATIENCE, "it took connections", |_| TcpStream::connect(("127.0.0.1", port)).ok());
        Self { _process: process, folder, programs, port }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Runs a Python program against it and reads the JSON that it prints.
    pub(crate) fn python(&self, arguments: &[&str]) -> Value {
        let output = Command::new(self.programs.join("python"))
            .args(arguments)
            .env("NO_PROXY", "*")
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Calls an operation of a service and gives its answer, with boto3: what was stored is read by somebody else's code.
    pub(crate) fn ask(&self, service: &str, operation: &str, parameters: &Value) -> Value {
        const CODE: &str = "
import boto3, json, sys
endpoint, service, operation, parameters = sys.argv[1:]
client = boto3.Session('testing', 'testing', region_name='us-east-1').client(service, endpoint_url=endpoint)
print(json.dumps(getattr(client, operation)(**json.loads(parameters)), default=str))
";
        self.python(&["-c", CODE, &self.endpoint(), service, operation, &parameters.to_string()])
    }
}

/// A loopback port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Polls until something is there.
pub(crate) fn eventually<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{patience:?} went by before {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
