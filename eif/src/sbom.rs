//! The bill of materials of an image: its kernel, its compiler and every crate that is compiled into its programs, as CycloneDX 1.6 (JSON).
//!
//! What it lists is what Cargo resolved, with the checksums of `Cargo.lock`; it names no time and no machine, so that two builders of one
//! image have the same. It is not measured: whoever doubts it builds the image again.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::summary::Summary;

/// A crate, as a line of `cargo tree --prefix none --format '{p}|{l}'` tells: `aes v0.9.4|MIT OR Apache-2.0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Crate<'a> {
    name: &'a str,
    version: &'a str,
    /// It runs while others are compiled, and is not in the image.
    at_build_time: bool,
    licence: &'a str,
}

/// A source package that is not a crate: `linux-source-6.12 6.12.95-1 <SHA-256>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Name of the package.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its file, hex.
    pub sha256: String,
}

/// Why there is no bill of materials.
#[derive(Debug, thiserror::Error)]
pub enum SbomError {
    /// A line of another form.
    #[error("{0:?} is no line of `cargo tree --prefix none --format '{{p}}|{{l}}'`")]
    Line(String),
    /// No crates at all.
    #[error("no crate is named: give the output of `cargo tree`")]
    Empty,
    /// `Cargo.lock`.
    #[error("the lock file cannot be read: {0}")]
    Lock(#[from] toml::de::Error),
    /// A crate that Cargo has not locked.
    #[error("{name} {version} is not in the lock file: make both from the same checkout")]
    NotLocked {
        /// The crate.
        name: String,
        /// Its version.
        version: String,
    },
    /// A source of another form.
    #[error("write NAME VERSION SHA256, the last as 64 hex digits")]
    Source,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

impl std::str::FromStr for Source {
    type Err = SbomError;

    fn from_str(text: &str) -> Result<Self, SbomError> {
        match text.split(' ').collect::<Vec<_>>()[..] {
            [name, version, sha256]
                if !name.is_empty() && sha256.len() == 64 && sha256.bytes().all(|digit| digit.is_ascii_hexdigit()) =>
            {
                Ok(Self { name: name.to_owned(), version: version.to_owned(), sha256: sha256.to_owned() })
            }
            _ => Err(SbomError::Source),
        }
    }
}

fn crates(tree: &str) -> Result<Vec<Crate<'_>>, SbomError> {
    let mut crates = Vec::new();
    for line in tree.lines().filter(|line| !line.trim().is_empty()) {
        let wrong = || SbomError::Line(line.to_owned());
        // What was printed before is printed again with a star, without what is below.
        let (package, licence) = line.trim_end_matches(" (*)").split_once('|').ok_or_else(wrong)?;
        let mut words = package.split(' ');
        let name = words.next().filter(|name| !name.is_empty()).ok_or_else(wrong)?;
        let version = words.next().and_then(|version| version.strip_prefix('v')).ok_or_else(wrong)?;
        let at_build_time = words.any(|word| word == "(proc-macro)");
        crates.push(Crate { name, version, at_build_time, licence });
    }
    crates.sort_unstable();
    crates.dedup();
    if crates.is_empty() { Err(SbomError::Empty) } else { Ok(crates) }
}

/// The bill as JSON, with a line break at its end.
///
/// # Errors
/// See [`SbomError`].
pub fn of(image: &Summary, tree: &str, lock: &str, kernel: &Source, compiler: &str) -> Result<String, SbomError> {
    let lock: Lock = toml::from_str(lock)?;
    let checksums: BTreeMap<_, _> = (lock.package.iter())
        .map(|locked| ((locked.name.as_str(), locked.version.as_str()), locked.checksum.as_deref()))
        .collect();
    let mut components = vec![
        json!({
            "type": "operating-system", "name": kernel.name, "version": kernel.version,
            "purl": format!("pkg:deb/debian/{}@{}", kernel.name, kernel.version),
            "licenses": [{ "expression": "GPL-2.0-only WITH Linux-syscall-note" }],
            "hashes": [{ "alg": "SHA-256", "content": kernel.sha256 }],
        }),
        // Its standard library and musl come with it.
        json!({ "type": "platform", "name": "rustc", "version": compiler }),
    ];
    for one in crates(tree)? {
        let Crate { name, version, at_build_time, licence } = one;
        let checksum = checksums
            .get(&(name, version))
            .ok_or_else(|| SbomError::NotLocked { name: name.to_owned(), version: version.to_owned() })?;
        let mut component = json!({
            "type": "library", "name": name, "version": version,
            "purl": format!("pkg:cargo/{name}@{version}"),
            "scope": if at_build_time { "excluded" } else { "required" },
        });
        if !licence.is_empty() {
            // Cargo's older way of saying OR.
            component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
        }
        // Crates of this project have none: the checkout is their checksum.
        if let Some(checksum) = checksum {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        components.push(component);
    }
    let measurements = serde_json::to_value(image.measurements).expect("text always encodes");
    let properties: Vec<Value> = (measurements.as_object().into_iter().flatten())
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| json!({ "name": format!("casemate:{name}"), "value": value }))
        .collect();
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": {
            "type": "firmware", "name": "casemate-enclave-image", "version": env!("CARGO_PKG_VERSION"),
            "properties": properties,
        } },
        "components": components,
    });
    Ok(format!("{bill:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Measurements, Pcr};

    const LOCK: &str = r#"
version = 4
[[package]]
name = "aes"
version = "0.9.4"
source = "registry"
checksum = "00ff"
[[package]]
name = "casemate-init"
version = "0.1.0"
[[package]]
name = "derive"
version = "1.0.0"
checksum = "11ee"
"#;
    const TREE: &str = "casemate-init v0.1.0 (/somewhere/eif/init)|Apache-2.0\naes v0.9.4|MIT/Apache-2.0\n\nderive v1.0.0 (proc-macro)|MIT\naes v0.9.4|MIT/Apache-2.0 (*)\n";

    fn bill(tree: &str) -> Result<Value, SbomError> {
        let measurements = Measurements { pcr0: Pcr([1; 48]), pcr1: Pcr([2; 48]), pcr2: Pcr([3; 48]), pcr8: None };
        let kernel = format!("linux-source-6.12 6.12.95-1 {}", "a".repeat(64)).parse().unwrap();
        let text = of(&Summary { measurements, size: 1 }, tree, LOCK, &kernel, "1.95.0")?;
        Ok(serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn each_part_is_listed_once_with_licence_and_checksum() {
        let bill = bill(TREE).unwrap();
        let parts = bill["components"].as_array().unwrap();
        let names: Vec<_> = parts.iter().map(|part| part["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["linux-source-6.12", "rustc", "aes", "casemate-init", "derive"]);
        assert_eq!(parts[2]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(parts[2]["hashes"][0]["content"], "00ff");
        assert_eq!(parts[2]["scope"], "required");
        assert!(parts[3]["hashes"].is_null());
        assert_eq!(parts[4]["scope"], "excluded");
        let properties = bill["metadata"]["component"]["properties"].as_array().unwrap();
        assert_eq!(properties.len(), 3);
        assert_eq!(properties[0]["value"], "01".repeat(48));
        // The machine that built it is nobody's business.
        assert!(!bill.to_string().contains("somewhere"));
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        assert!(matches!(bill(""), Err(SbomError::Empty)));
        for line in ["aes", "aes|MIT", "aes 0.9.4|MIT", "|", "├── aes v0.9.4"] {
            assert!(matches!(bill(line), Err(SbomError::Line(_))), "{line}");
        }
        assert!(matches!(bill("aes v0.9.5|MIT"), Err(SbomError::NotLocked { .. })));
        for source in ["", "linux", "linux 6.12 abc", "linux 6.12 "] {
            assert!(matches!(source.parse::<Source>(), Err(SbomError::Source)), "{source}");
        }
    }
}
