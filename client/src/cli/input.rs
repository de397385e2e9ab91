//! How bytes come in and go out: standard input or a file, raw or as text. Nothing secret is ever an argument, where every user of
//! the machine could read it.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use casemate_protocol::secret::Secret;
use clap::ValueEnum;
use data_encoding::{BASE64, BASE64_NOPAD};
use zeroize::Zeroizing;

use super::output::{self, CliError, Output, stdout_is_terminal};
use crate::error::Kind;
use crate::home;

/// How bytes are written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// The bytes themselves.
    Raw,
    /// Lower-case hex.
    Hex,
    /// Base64 with padding.
    Base64,
}

impl Format {
    fn decode(self, bytes: Secret) -> Result<Secret, CliError> {
        let text = bytes.trim_ascii();
        match self {
            Self::Raw => return Ok(bytes),
            Self::Hex => hex::decode(text).ok(),
            Self::Base64 => BASE64.decode(text).or_else(|_| BASE64_NOPAD.decode(text)).ok(),
        }
        .map(Secret::new)
        .ok_or_else(|| {
            CliError::usage(format!("the input is not {self:?}").to_lowercase(), "Check --format and the input.")
        })
    }
}

/// Reads a file, or standard input without one; at most `limit` bytes.
pub(super) fn read(file: Option<&Path>, limit: usize, what: &str) -> Result<Secret, CliError> {
    let limit = u64::try_from(limit).expect("limits are small");
    if let Some(path) = file.filter(|path| *path != Path::new("-")) {
        let opened = File::open(path).map_err(|error| input_error(path, &error))?;
        return read_all(opened, limit, path, what);
    }
    if io::stdin().is_terminal() {
        // Not through `Output`: it belongs to the prompt, whatever the form of the result.
        let _ = writeln!(io::stderr(), "Type {what} and end with Ctrl-D (it is visible; a file or a pipe is better):");
    }
    read_all(io::stdin().lock(), limit, Path::new("standard input"), what)
}

/// As [`read`], with the text form undone.
pub(super) fn read_as(file: Option<&Path>, format: Format, limit: usize, what: &str) -> Result<Secret, CliError> {
    // Hex is twice as long, and files end with a new line.
    let text_limit = if format == Format::Raw { limit } else { limit * 2 + 16 };
    format.decode(read(file, text_limit, what)?)
}

fn read_all(from: impl Read, limit: u64, path: &Path, what: &str) -> Result<Secret, CliError> {
    // Room for everything, so that growing leaves no copy of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(limit).expect("limits are small") + 1));
    from.take(limit + 1).read_to_end(&mut bytes).map_err(|error| input_error(path, &error))?;
    if u64::try_from(bytes.len()).expect("64 bits hold it") > limit {
        return Err(CliError::new(
            Kind::Refused,
            "too_large",
            format!("{what} has more than {}", size(limit)),
            "Send less; for more, keep a key in the vault and the encrypted data elsewhere.",
        ));
    }
    Ok(Secret::from(bytes.as_slice()))
}

fn size(bytes: u64) -> String {
    if bytes.is_multiple_of(1024) { format!("{} KiB", bytes / 1024) } else { format!("{bytes} bytes") }
}

fn input_error(path: &Path, error: &io::Error) -> CliError {
    CliError::new(
        Kind::Usage,
        "input",
        format!("cannot read {}: {error}", path.display()),
        "Check the path and its permissions.",
    )
}

/// Where bytes that leave the vault go.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Destination {
    /// Write to this file, readable by you alone, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// How the bytes are written; without it raw, and hex on a terminal
    #[arg(long, value_enum)]
    pub(super) format: Option<Format>,
}

impl Destination {
    /// Writes the result; with `--json` as a value of `name` in base64, unless it goes to a file.
    pub(super) fn write(&self, output: Output, name: &str, bytes: &[u8]) -> Result<(), CliError> {
        if let Some(path) = &self.out {
            let text = Zeroizing::new(match self.format.unwrap_or(Format::Raw) {
                Format::Raw => bytes.to_vec(),
                Format::Hex => format!("{}\n", hex::encode(bytes)).into_bytes(),
                Format::Base64 => format!("{}\n", BASE64.encode(bytes)).into_bytes(),
            });
            home::write_private(path, &text)?;
            let shown = path.display().to_string();
            let value = serde_json::json!({ "out": shown, "bytes": bytes.len() });
            return output.either(&value, || vec![format!("Wrote {} bytes to {shown}", bytes.len())]);
        }
        if output.json {
            return output::print_value(&serde_json::json!({ name: BASE64.encode(bytes) }));
        }
        match self.format.unwrap_or(if stdout_is_terminal() { Format::Hex } else { Format::Raw }) {
            Format::Raw => output::print_bytes(bytes),
            Format::Hex => output::print_line(hex::encode(bytes)),
            Format::Base64 => output::print_line(BASE64.encode(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_exact() {
        let read = |len: usize| read_all(vec![7; len].as_slice(), 16, Path::new("-"), "it").map_err(|error| error.kind);
        assert_eq!(read(16).unwrap().len(), 16);
        assert_eq!(read(17), Err(Kind::Refused));
    }

    #[test]
    fn text_forms() {
        let decode =
            |format: Format, text: &str| format.decode(Secret::from(text.as_bytes())).map(|bytes| bytes.to_vec());
        assert_eq!(decode(Format::Hex, " 0aff\n").unwrap(), [0x0a, 0xff]);
        assert_eq!(decode(Format::Base64, "Cv8=\n").unwrap(), [0x0a, 0xff]);
        assert_eq!(decode(Format::Base64, "Cv8").unwrap(), [0x0a, 0xff]);
        assert_eq!(decode(Format::Raw, "x\n").unwrap(), b"x\n", "raw is raw");
        assert!(decode(Format::Hex, "0g").is_err() && decode(Format::Base64, "*").is_err());
    }
}
