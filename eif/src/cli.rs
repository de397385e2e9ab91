//! `casemate-eif`, the program: reads files, builds or describes an image, and says what was done.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::{ArgGroup, Args, Parser, Subcommand};
use zeroize::Zeroizing;

use crate::cpio;
use crate::header::{Architecture, DEFAULT_CPUS, DEFAULT_MEMORY_BYTES, Kind};
use crate::image::{Image, ImageError};
use crate::kernel::{self, KernelError};
use crate::manifest::{self, ManifestError};
use crate::measure::Measurements;
use crate::metadata::Metadata;
use crate::parse::{IMAGE_BYTES, ParseError, Parsed};
use crate::policy::{self, PolicyError, Principals};
use crate::ramdisk::{Content, FolderError, Ramdisk};
use crate::sbom::{self, SbomError, Source};
use crate::sign::{SignError, SignatureError, Signer};
use crate::summary::Summary;

const EXAMPLES: &str = "\
Examples:
  casemate-eif build --kernel bzImage --cmdline 'quiet panic=1' --ramdisk boot.list --ramdisk application/ --output casemate.eif
  casemate-eif describe casemate.eif --files
  casemate-eif policy --pcrs casemate.eif.pcrs.json --account 111122223333 --role casemate-enclave --admin-role casemate-admin

Exit codes:
  0 done    1 the inputs are refused, or a file cannot be read or written    2 wrong use";

const BUILD_EXAMPLES: &str = "\
A ramdisk is a folder, or a list of entries in the format of Linux's gen_init_cpio:
  dir   /dev                0755 0 0
  nod   /dev/console        0600 0 0 c 5 1
  file  /init      ${INIT}  0755 0 0        with --set INIT=target/init; relative to the list
  slink /sbin      bin      0777 0 0

The first ramdisk is what boots (PCR1), the others are the application (PCR2).";

/// Longest key or certificate file in bytes.
const PEM_BYTES: u64 = 16 * 1024;
/// Longest list, command line or measurement file in bytes.
const TEXT_BYTES: u64 = 1 << 20;

/// Build enclave images reproducibly, and tell what is in one.
///
/// The same inputs give the same bytes, and so the same measurements, wherever and whenever an image is built.
#[derive(Debug, Parser)]
#[command(name = "casemate-eif", version, after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build an image; its measurements go to OUTPUT.pcrs.json as well
    Build(Box<Build>),
    /// Show the sections and measurements of an image, and check its checksum and signature
    Describe(Describe),
    /// Print the policy for a KMS key that serves one image and no other
    Policy(Policy),
    /// Print what an image is made of, as CycloneDX
    Sbom(Sbom),
}

#[derive(Debug, Args)]
#[command(after_help = BUILD_EXAMPLES, group(ArgGroup::new("command-line").required(true)))]
struct Build {
    /// The kernel: a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", group = "command-line", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// A file with the kernel's command line, one line
    #[arg(long, value_name = "FILE", group = "command-line")]
    cmdline_file: Option<PathBuf>,
    /// A folder, or a list of entries; once for each ramdisk, in their order
    #[arg(long = "ramdisk", value_name = "FOLDER|LIST", required = true)]
    ramdisks: Vec<PathBuf>,
    /// What ${NAME} stands for in lists
    #[arg(long = "set", value_name = "NAME=FILE", value_parser = pair)]
    values: Vec<(String, String)>,
    /// The image to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Name of the image, in its metadata
    #[arg(long, default_value = "casemate")]
    name: String,
    /// Version of the image, in its metadata
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    image_version: String,
    /// Time of the build, in its metadata: fixed, or each build would be another file
    #[arg(long = "build-time", value_name = "RFC3339", default_value = "1970-01-01T00:00:00Z")]
    time: String,
    /// Anything else for its metadata, such as commit=…; not measured
    #[arg(long = "metadata", value_name = "NAME=TEXT", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Memory in MiB when whoever starts the enclave does not say; not measured
    #[arg(long, value_name = "MIB", default_value_t = DEFAULT_MEMORY_BYTES >> 20, value_parser = clap::value_parser!(u64).range(64..=1 << 24))]
    memory_mib: u64,
    /// Virtual CPUs when whoever starts the enclave does not say; not measured
    #[arg(long, default_value_t = DEFAULT_CPUS, value_parser = clap::value_parser!(u64).range(1..=1024))]
    cpus: u64,
    /// Sign with this key: P-384, PEM
    #[arg(long, value_name = "FILE", requires = "sign_certificate")]
    sign_key: Option<PathBuf>,
    /// The certificate of that key, PEM; PCR8 measures it
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    sign_certificate: Option<PathBuf>,
    /// Print one line of JSON: measurements and size
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Describe {
    /// The image
    image: PathBuf,
    /// List the files of its ramdisks
    #[arg(long)]
    files: bool,
    /// Print JSON; the last line has measurements and size
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Policy {
    /// Measurements of the image, as `build` wrote them
    #[arg(long, value_name = "FILE")]
    pcrs: PathBuf,
    /// Account of the key, twelve digits
    #[arg(long)]
    account: String,
    /// Role of the instances, name or ARN
    #[arg(long)]
    role: String,
    /// Role that may manage the key and not use it, name or ARN
    #[arg(long)]
    admin_role: String,
}

#[derive(Debug, Args)]
struct Sbom {
    /// Measurements of the image, as `build` wrote them
    #[arg(long, value_name = "FILE")]
    pcrs: PathBuf,
    /// The crates: what `cargo tree --prefix none --format '{p}|{l}'` says of the image's programs
    #[arg(long, value_name = "FILE")]
    tree: PathBuf,
    /// Their checksums: Cargo.lock
    #[arg(long, value_name = "FILE")]
    lock: PathBuf,
    /// The kernel's source package: name, version and SHA-256
    #[arg(long, value_name = "NAME VERSION SHA256")]
    kernel: Source,
    /// Version of the compiler
    #[arg(long, value_name = "VERSION")]
    compiler: String,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("cannot write {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("{} has more than {limit} bytes: it is not the file meant", path.display())]
    Large { path: PathBuf, limit: u64 },
    #[error("{} is no text in UTF-8", .0.display())]
    NotText(PathBuf),
    #[error("{}: {error}", path.display())]
    Kernel { path: PathBuf, error: KernelError },
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("{}, {error}", path.display())]
    Manifest { path: PathBuf, error: ManifestError },
    #[error("{}: there is no /init that may be executed, and the kernel would find nothing to start: add it to the first ramdisk", .0.display())]
    NoInit(PathBuf),
    #[error(
        "{} would put its own /{name} in the place of an earlier ramdisk's, and PCR1 would not say what boots: leave it out of one",
        path.display()
    )]
    Replaces { path: PathBuf, name: String },
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("cannot sign: {0}")]
    Sign(#[from] SignError),
    #[error("{}: {error}", path.display())]
    Parse { path: PathBuf, error: ParseError },
    #[error("{}: {error}. Do not run it", path.display())]
    Signature { path: PathBuf, error: SignatureError },
    #[error("{}: {error}. Pass the .pcrs.json that `build` wrote beside the image", path.display())]
    Summary { path: PathBuf, error: serde_json::Error },
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Sbom(#[from] SbomError),
    #[error("cannot write to the standard output: {0}")]
    Output(io::Error),
}

/// Runs the program with these arguments, its name first.
pub fn run<I, A>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = A>,
    A: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come this way too, with 0.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let done = match cli.command {
        Command::Build(build) => build.run(),
        Command::Describe(describe) => describe.run(),
        Command::Policy(policy) => policy.run(),
        Command::Sbom(sbom) => sbom.run(),
    };
    match done.and_then(|text| print(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let red = AnsiColor::Red.on_default();
            let _ = writeln!(anstream::stderr(), "{red}casemate-eif:{red:#} {error}");
            ExitCode::FAILURE
        }
    }
}

/// Colours reach a terminal only: `anstream` takes them out elsewhere.
fn print(text: &str) -> Result<(), CliError> {
    anstream::stdout().write_all(text.as_bytes()).map_err(CliError::Output)
}

impl Build {
    fn run(&self) -> Result<String, CliError> {
        let kernel = read(&self.kernel, IMAGE_BYTES)?;
        let release =
            kernel::release(&kernel).map_err(|error| CliError::Kernel { path: self.kernel.clone(), error })?.to_owned();
        let command_line = self.command_line()?;
        let ramdisks = self.packed()?;
        // `rdinit=` names another.
        if !command_line.contains("rdinit=") && !ramdisks.first().is_some_and(has_init) {
            return Err(CliError::NoInit(self.ramdisks[0].clone()));
        }
        let mut metadata = Metadata::new(self.name.clone(), self.image_version.clone(), self.time.clone(), release);
        metadata.custom = self.metadata.iter().cloned().collect();
        let archives = ramdisks.iter().map(cpio::write).collect();
        let mut image =
            Image::new(kernel, &command_line, &metadata, archives)?.with_defaults(self.memory_mib << 20, self.cpus);
        if let (Some(key), Some(certificate)) = (&self.sign_key, &self.sign_certificate) {
            image = image.signed(&signer(key, certificate)?);
        }
        let summary = Summary { measurements: *image.measurements(), size: image.bytes() };
        let mut beside = self.output.clone().into_os_string();
        beside.push(".pcrs.json");
        let beside = PathBuf::from(beside);
        write(&self.output, |file| image.write(io::BufWriter::new(file)))?;
        write(&beside, |mut file| writeln!(file, "{}", summary.line()))?;
        if self.json {
            return Ok(summary.line() + "\n");
        }
        let mut text = format!("Wrote {} and {}\n\n", self.output.display(), beside.display());
        describe_sections(&mut text, image.sections());
        describe_measurements(&mut text, &summary);
        Ok(text)
    }

    fn command_line(&self) -> Result<String, CliError> {
        let Some(path) = &self.cmdline_file else { return Ok(self.cmdline.clone().unwrap_or_default()) };
        let text = read_text(path, TEXT_BYTES)?;
        Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
    }

    fn packed(&self) -> Result<Vec<Ramdisk>, CliError> {
        let values: BTreeMap<&str, &str> =
            self.values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut packed: Vec<Ramdisk> = Vec::new();
        for path in &self.ramdisks {
            let ramdisk = if path.is_dir() {
                Ramdisk::from_folder(path)?
            } else {
                let text = read_text(path, TEXT_BYTES)?;
                let folder = path.parent().unwrap_or(Path::new(""));
                // A value is a path as the caller sees it, the list's own paths are as the list sees them.
                let value = |name: &str| {
                    values.get(name).map(|value| {
                        std::path::absolute(value).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
                    })
                };
                manifest::pack(&text, folder, value)
                    .map_err(|error| CliError::Manifest { path: path.clone(), error })?
            };
            // Attack stopped: an application with an /init of its own, unpacked over the one that PCR1 vouches for.
            if let Some(name) = packed.iter().find_map(|earlier| ramdisk.replaced_of(earlier)) {
                return Err(CliError::Replaces { path: path.clone(), name: name.to_owned() });
            }
            packed.push(ramdisk);
        }
        Ok(packed)
    }
}

fn has_init(ramdisk: &Ramdisk) -> bool {
    ramdisk.get("init").is_some_and(|entry| match entry.content {
        Content::File(_) => entry.mode & 0o111 != 0,
        Content::Symlink(_) => true,
        Content::Directory | Content::Device { .. } => false,
    })
}

fn signer(key: &Path, certificate: &Path) -> Result<Signer, CliError> {
    // Room for the whole file from the beginning: a buffer that grows leaves copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(PEM_BYTES).expect("16 KiB") + 64));
    read_into(key, PEM_BYTES, &mut bytes)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| CliError::NotText(key.to_owned()))?;
    Ok(Signer::from_pem(text, &read(certificate, PEM_BYTES)?)?)
}

impl Describe {
    fn run(&self) -> Result<String, CliError> {
        let file = read(&self.image, IMAGE_BYTES)?;
        let path = || self.image.clone();
        let parsed = Parsed::parse(&file).map_err(|error| CliError::Parse { path: path(), error })?;
        let measurements = parsed.verify().map_err(|error| CliError::Signature { path: path(), error })?;
        let summary = Summary { measurements, size: file.len() as u64 };
        let mut text = String::new();
        if self.json {
            if self.files {
                list_files(&mut text, &parsed, true);
            }
            text.push_str(&summary.line());
            text.push('\n');
            return Ok(text);
        }
        describe_sections(&mut text, parsed.sections().iter().map(|section| (section.kind, section.bytes)));
        if self.files {
            list_files(&mut text, &parsed, false);
            text.push('\n');
        }
        let header = parsed.header();
        let architecture = match header.architecture {
            Architecture::X86_64 => "x86_64",
            Architecture::Aarch64 => "aarch64",
        };
        let mut line = |name: &str, value: &str| {
            // Attack stopped: an image whose metadata speaks to the terminal.
            let _ = writeln!(text, "  {name:<14}{}", value.escape_debug());
        };
        line("architecture", architecture);
        line("memory", &format!("{} MiB unless told otherwise", header.memory_bytes >> 20));
        line("CPUs", &format!("{} unless told otherwise", header.cpus));
        for command_line in parsed.of_kind(Kind::CommandLine) {
            line("command line", &String::from_utf8_lossy(command_line));
        }
        if let Some(metadata) = parsed.metadata() {
            let build = metadata.build;
            line("name", &format!("{} {}", metadata.name, metadata.version));
            line("built by", &format!("{} {}, {}", build.tool, build.tool_version, build.time));
            line("kernel", &format!("{} {}", build.operating_system, build.kernel_version));
        }
        line("signature", if measurements.pcr8.is_some() { "good; PCR8 tells the certificate" } else { "none" });
        text.push('\n');
        describe_measurements(&mut text, &summary);
        Ok(text)
    }
}

fn summary(path: &Path) -> Result<Summary, CliError> {
    Summary::read(&read_text(path, TEXT_BYTES)?).map_err(|error| CliError::Summary { path: path.to_owned(), error })
}

impl Sbom {
    fn run(&self) -> Result<String, CliError> {
        let (tree, lock) = (read_text(&self.tree, TEXT_BYTES)?, read_text(&self.lock, TEXT_BYTES)?);
        Ok(sbom::of(&summary(&self.pcrs)?, &tree, &lock, &self.kernel, &self.compiler)?)
    }
}

impl Policy {
    fn run(&self) -> Result<String, CliError> {
        let summary = summary(&self.pcrs)?;
        let principals = Principals::new(&self.account, &self.role, &self.admin_role)?;
        Ok(policy::of(&summary.measurements, &principals)?)
    }
}

fn describe_sections<'a>(text: &mut String, sections: impl Iterator<Item = (Kind, &'a [u8])>) {
    for (kind, bytes) in sections {
        let _ = writeln!(text, "  {:<14}{:>11} bytes", kind.name(), bytes.len());
    }
    text.push('\n');
}

fn describe_measurements(text: &mut String, summary: &Summary) {
    let bold = Style::new().bold();
    let Measurements { pcr0, pcr1, pcr2, pcr8 } = &summary.measurements;
    for (name, pcr) in [("PCR0", Some(pcr0)), ("PCR1", Some(pcr1)), ("PCR2", Some(pcr2)), ("PCR8", pcr8.as_ref())] {
        if let Some(pcr) = pcr {
            let _ = writeln!(text, "  {bold}{name}{bold:#}  {pcr}");
        }
    }
    let _ = writeln!(text, "  {bold}size{bold:#}  {}", summary.size);
}

/// The entries of each ramdisk that this program packed. Others are compressed, or in another form, and only measured.
fn list_files(text: &mut String, parsed: &Parsed<'_>, json: bool) {
    for (index, archive) in (1..).zip(parsed.of_kind(Kind::Ramdisk)) {
        let ramdisk = match cpio::read(archive) {
            Ok(ramdisk) => ramdisk,
            Err(error) => {
                let _ = if json {
                    writeln!(text, "{}", serde_json::json!({ "ramdisk": index, "unreadable": error.to_string() }))
                } else {
                    writeln!(text, "  ramdisk {index} cannot be listed: {error}")
                };
                continue;
            }
        };
        for (name, entry) in ramdisk.entries() {
            let (kind, bytes, rest) = match &entry.content {
                Content::Directory => ('d', 0, String::new()),
                Content::File(bytes) => ('-', bytes.len(), String::new()),
                Content::Symlink(target) => ('l', 0, format!(" -> {target}")),
                Content::Device { major, minor } => ('c', 0, format!(" {major}, {minor}")),
            };
            let mode = format!("{kind}{:04o}", entry.mode);
            let _ = if json {
                let value = serde_json::json!({ "ramdisk": index, "name": name, "mode": mode, "bytes": bytes, "rest": rest.trim() });
                writeln!(text, "{value}")
            } else {
                writeln!(text, "  {index}  {mode}  {bytes:>10}  /{name}{rest}")
            };
        }
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    read_into(path, limit, &mut bytes)?;
    Ok(bytes)
}

fn read_into(path: &Path, limit: u64, bytes: &mut Vec<u8>) -> Result<(), CliError> {
    let unreadable = |error| CliError::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(unreadable)?;
    let large = || CliError::Large { path: path.to_owned(), limit };
    if file.metadata().map_err(unreadable)?.len() > limit {
        return Err(large());
    }
    // A pipe or a growing file says nothing of its length.
    let found = file.take(limit + 1).read_to_end(bytes).map_err(unreadable)?;
    if u64::try_from(found).is_ok_and(|found| found <= limit) { Ok(()) } else { Err(large()) }
}

fn read_text(path: &Path, limit: u64) -> Result<String, CliError> {
    String::from_utf8(read(path, limit)?).map_err(|_| CliError::NotText(path.to_owned()))
}

/// Writes a file as a whole or not at all: nobody starts half an image, and an old one stays until the new one is complete.
fn write(path: &Path, content: impl FnOnce(&File) -> io::Result<()>) -> Result<(), CliError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = || {
        let readable = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666);
        let file = tempfile::Builder::new().permissions(readable).tempfile_in(folder)?;
        content(file.as_file())?;
        file.persist(path)?;
        Ok(())
    };
    written().map_err(|error| CliError::Write { path: path.to_owned(), error })
}
