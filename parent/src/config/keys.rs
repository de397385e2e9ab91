//! Every key of the configuration: the table that the reader, the environment and the documentation share.

use std::fmt::Write;

/// A key: where it stands, what it means and what is allowed.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The section, `[node]` and so on.
    pub section: &'static str,
    /// The name in it; `tls.ca` stands in `[nats.tls]`.
    pub name: &'static str,
    /// What is allowed, as error messages say it.
    pub allowed: &'static str,
    /// The default, for people; `-` when there is none and `required` when there must be one.
    pub default: &'static str,
}

impl Key {
    /// `section.name`, as messages name it.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that overrides it.
    pub fn variable(&self) -> String {
        format!("CASEMATE_{}_{}", self.section, self.name.replace('.', "_")).to_ascii_uppercase()
    }
}

const fn key(section: &'static str, name: &'static str, allowed: &'static str, default: &'static str) -> Key {
    Key { section, name, allowed, default }
}

const FILE: &str = "the path of a file that this process may read";
const FLAG: &str = "true or false; true needs aws.source";
const INSTANCE: &str = "an EC2 instance id";
const GROUP: &str = "an Auto Scaling group's name";
const MILLISECONDS: &str = "milliseconds, 1 to 86400000";
const PER_SECOND: &str = "a number per second, 1 to 100000";

/// All keys, in the order of the documentation.
pub const KEYS: &[Key] = &[
    key("node", "name", "1–63 characters of a–z, 0–9 and `-`", "the host's name"),
    key("node", "subject_prefix", "1–32 characters of a–z, 0–9, `-` and `_`", "casemate"),
    key("node", "shards", "\"all\", or a list of shards and ranges such as [\"00-7f\", \"a0\"]", "all"),
    key("nats", "url", "nats://HOST:PORT or tls://HOST:PORT, several with commas", "nats://127.0.0.1:4222"),
    key("nats", "credentials_file", FILE, "-"),
    key("nats", "nkey_file", FILE, "-"),
    key("nats", "tls.ca", FILE, "the system's"),
    key("nats", "tls.cert", FILE, "-"),
    key("nats", "tls.key", FILE, "-"),
    key("nats", "subscription_capacity", "a number of messages, 64 to 1048576", "8192"),
    key("link", "listen", "unix:/absolute/path or vsock:CID:PORT (vsock:any:7001)", "vsock:any:7001"),
    key("link", "enclave_cid", "the enclave's context id, 4 to 4294967294", "any enclave"),
    key("store", "url", "file:///absolute/path or s3://bucket/prefix", "required"),
    key("store", "region", "an AWS region", "trust.region"),
    key("store", "endpoint", "http://HOST:PORT or https://HOST:PORT", "Amazon's"),
    key("trust", "kms_key_arn", "arn:aws:kms:REGION:ACCOUNT:key/ID, its region being trust.region", "required"),
    key("trust", "region", "an AWS region, such as us-east-1", "required"),
    key("trust", "release_keys", "at most 8 Ed25519 public keys of 64 hex digits", "none"),
    key("kms", "allow", "a list of HOST:PORT that the enclave may reach", "kms.REGION.amazonaws.com:443"),
    key("kms", "dial", "a table of \"HOST:PORT\" = \"IP:PORT\"; each HOST:PORT must be in kms.allow", "none"),
    key("aws", "source", "\"none\", \"static\" or \"imds\"", "static when access_key_id is set, else none"),
    key("aws", "access_key_id", "an AWS access key id, with aws.source = \"static\"", "-"),
    key("aws", "secret_access_key", "an AWS secret access key, with aws.source = \"static\"", "-"),
    key("aws", "session_token", "an AWS session token, with aws.source = \"static\"", "-"),
    key("aws", "imds_endpoint", "IP:PORT of the instance metadata service", "169.254.169.254:80"),
    key("instance", "id", INSTANCE, "the metadata service's, with aws.source = \"imds\""),
    key("instance", "group", GROUP, "the tag aws:autoscaling:groupName in the metadata"),
    key("cloudwatch", "enabled", FLAG, "false"),
    key("cloudwatch", "interval_s", "seconds, 1 to 300", "60"),
    key("cloudwatch", "endpoint", "http://HOST:PORT or https://HOST:PORT", "Amazon's"),
    key("autoscaling", "enabled", FLAG, "false"),
    key("autoscaling", "patience_s", "seconds, 2 to 3600", "120"),
    key("autoscaling", "endpoint", "http://HOST:PORT or https://HOST:PORT", "Amazon's"),
    key("enclave", "image", "the absolute path of an enclave image", "/usr/lib/casemate/casemate.eif"),
    key("enclave", "cpus", "a number of virtual CPUs, 1 to 256", "2"),
    key("enclave", "memory_mib", "MiB, 64 to 16777216", "4096"),
    key("enclave", "silence_s", "seconds, 5 to 3600", "30"),
    key("enclave", "nitro_cli", "the absolute path of a program", "/usr/bin/nitro-cli"),
    key("http", "listen", "IP:PORT", "127.0.0.1:8080"),
    key("admin", "socket", "the absolute path of a Unix socket to be made", "/run/casemate/admin.sock"),
    key("log", "target", "\"auto\", \"journal\" or \"terminal\"", "auto"),
    key("log", "level", "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"", "info"),
    key("limits", "vault_limit", "a number of vaults, 1 to 100000", "1000"),
    key("limits", "idle_ms", MILLISECONDS, "900000"),
    key("limits", "queue_per_vault", "a number of requests, 1 to 1024", "64"),
    key("limits", "memory_high_percent", "a percentage above limits.memory_low_percent, at most 95", "85"),
    key("limits", "memory_low_percent", "a percentage, 10 to 90", "75"),
    key("limits", "shard_key_ttl_ms", MILLISECONDS, "3600000"),
    key("limits", "shard_key_hard_ms", "milliseconds, at least limits.shard_key_ttl_ms, at most 86400000", "21600000"),
    key("limits", "creates_per_second", PER_SECOND, "50"),
    key("limits", "attests_per_second", PER_SECOND, "20"),
    key("limits", "opens_per_second", PER_SECOND, "500"),
    key("limits", "versions_kept", "a number of versions, 0 to 1000", "10"),
    key("limits", "store_timeout_ms", "milliseconds, 100 to 60000", "5000"),
    key("limits", "vault_memory_bytes", "bytes, 16777216 to 1073741824", "67108864"),
];

/// The key at `section.name`.
///
/// # Panics
/// When the table has none: a fault of the code, which the tests find.
pub fn find(section: &str, name: &str) -> &'static Key {
    KEYS.iter().find(|key| key.section == section && key.name == name).expect("every key that is read is in the table")
}

/// The table of all keys, as `docs/configuration.md` has it.
pub fn markdown() -> String {
    let mut table = String::from("| key | variable | allowed | default |\n|---|---|---|---|\n");
    for key in KEYS {
        let (path, variable) = (key.path(), key.variable());
        writeln!(table, "| `{path}` | `{variable}` | {} | {} |", key.allowed, key.default)
            .expect("writing into memory does not fail");
    }
    table
}
