//! What an image says of its own making: a section of JSON that is not measured, so nothing may be believed because of it.
//!
//! Source: `aws-nitro-enclaves-image-format`, `EifIdentityInfo`. Nitro's tools show it in `describe-enclaves`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How an image was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// RFC 3339. Fixed, or a signed image would differ from build to build.
    #[serde(rename = "BuildTime")]
    pub time: String,
    /// The program that wrote the image.
    #[serde(rename = "BuildTool")]
    pub tool: String,
    /// Its version.
    #[serde(rename = "BuildToolVersion")]
    pub tool_version: String,
    /// `Linux`.
    #[serde(rename = "OperatingSystem")]
    pub operating_system: String,
    /// Version of the kernel.
    #[serde(rename = "KernelVersion")]
    pub kernel_version: String,
}

/// `null`, and nothing is read back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct NoDocker;

/// The metadata of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Name of the image.
    #[serde(rename = "ImageName")]
    pub name: String,
    /// Version of the image.
    #[serde(rename = "ImageVersion")]
    pub version: String,
    /// How it was built.
    #[serde(rename = "BuildMetadata")]
    pub build: Build,
    /// The format has a place for what Docker says; nothing here comes from Docker.
    #[serde(rename = "DockerInfo", skip_deserializing)]
    docker: NoDocker,
    /// What the builder adds, such as the commit. Not read back: AWS's builder allows any JSON here.
    #[serde(rename = "CustomMetadata", skip_deserializing)]
    pub custom: BTreeMap<String, String>,
}

impl Metadata {
    /// Metadata of this program's images.
    pub fn new(name: String, version: String, time: String, kernel_version: String) -> Self {
        let build = Build {
            time,
            tool: env!("CARGO_PKG_NAME").to_owned(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            operating_system: "Linux".to_owned(),
            kernel_version,
        };
        Self { name, version, build, docker: NoDocker, custom: BTreeMap::new() }
    }

    /// The section's bytes: JSON without spaces, the fields in AWS's order, the custom ones by name.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text always encodes")
    }

    /// Reads the section of an image, also one that AWS's builder wrote.
    ///
    /// # Errors
    /// When it is other JSON, or none.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_in_order_and_read_back() {
        let time = "1970-01-01T00:00:00Z".to_owned();
        let mut metadata = Metadata::new("casemate".into(), "1".into(), time, "6.12.9".into());
        metadata.custom.insert("b".into(), "\"".into());
        metadata.custom.insert("a".into(), "x".into());
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            r#"{{"ImageName":"casemate","ImageVersion":"1","BuildMetadata":{{"BuildTime":"1970-01-01T00:00:00Z","BuildTool":"casemate-eif","BuildToolVersion":"{version}","OperatingSystem":"Linux","KernelVersion":"6.12.9"}},"DockerInfo":null,"CustomMetadata":{{"a":"x","b":"\""}}}}"#
        );
        assert_eq!(String::from_utf8(metadata.encode()).unwrap(), expected);
        let read = Metadata::decode(expected.as_bytes()).unwrap();
        assert_eq!(read, Metadata { custom: BTreeMap::new(), ..metadata });
    }

    #[test]
    fn what_others_add_is_let_go() {
        let foreign = br#"{"ImageName":"n","ImageVersion":"v","BuildMetadata":{"BuildTime":"t","BuildTool":"nitro-cli","BuildToolVersion":"1","OperatingSystem":"Linux","KernelVersion":"4"},"DockerInfo":{"Id":[1,{}]},"CustomMetadata":null}"#;
        assert_eq!(Metadata::decode(foreign).unwrap().build.tool, "nitro-cli");
        for other in [&b""[..], b"{}", b"[]", b"null", &foreign[..foreign.len() - 1]] {
            assert!(Metadata::decode(other).is_err());
        }
    }
}
