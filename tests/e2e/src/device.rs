//! A device: the `casemate` command with a home of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output of a command that must have worked.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn ok(self) -> Vec<u8> {
        assert_eq!(self.code, 0, "exit code; it said: {}", self.stderr);
        self.stdout
    }

    /// Standard output of a command that must have worked, as text.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn text(self) -> String {
        String::from_utf8(self.ok()).expect("text")
    }

    /// Standard output of a command that must have worked, as JSON.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// A home and how to reach the node.
#[derive(Debug, Clone)]
pub struct Device {
    program: PathBuf,
    home: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl Device {
    /// A device with this home.
    pub fn new(program: PathBuf, home: PathBuf, variables: Vec<(&'static str, String)>) -> Self {
        Self { program, home, variables }
    }

    /// Its home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Runs `casemate` with these arguments.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with_input(arguments, b"")
    }

    /// Runs `casemate` with these arguments and this standard input.
    ///
    /// # Panics
    /// When the program cannot be run.
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut child = Command::new(&self.program)
            .args(arguments)
            .env("CASEMATE_HOME", &self.home)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("casemate runs");
        // A command that does not read its input has closed it: no failure of the test's.
        let _ = child.stdin.take().expect("piped").write_all(input);
        let output = child.wait_with_output().expect("casemate ends");
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The vault of this home.
    ///
    /// # Panics
    /// When there is none.
    pub fn vault(&self) -> String {
        let status = self.run(&["vault", "status", "--json"]).json();
        status["vault"].as_str().expect("a status names its vault").to_owned()
    }
}
