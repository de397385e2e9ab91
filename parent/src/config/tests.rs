use std::collections::BTreeSet;

use casemate_protocol::trust::ClusterId;

use super::keys::KEYS;
use super::*;

const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn base() -> String {
    format!("[store]\nurl = \"file:///var/lib/casemate\"\n[trust]\nkms_key_arn = \"{ARN}\"\nregion = \"us-east-1\"\n")
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, |_| None)
}

#[test]
fn the_least_that_is_needed() {
    let config = parse(&base()).unwrap();
    assert_eq!(config.kms.allow, [HostPort::new("kms.us-east-1.amazonaws.com", 443).unwrap()]);
    assert_eq!(config.tuning, Tuning::default());
    assert!(matches!(config.aws, Aws::None));
    assert!(config.owns(Shard(0xff)));
    let trust = TrustConfiguration::decode(&config.trust_configuration).unwrap();
    assert_eq!((trust.kms_key_arn.as_str(), trust.region.as_str()), (ARN, "us-east-1"));
}

#[test]
fn the_cluster_id_depends_on_nothing_but_trust() {
    let plain = parse(&base()).unwrap().trust_configuration;
    let tuned = parse(&(base() + "[limits]\nvault_limit = 5\n")).unwrap().trust_configuration;
    assert_eq!(ClusterId::of(&plain), ClusterId::of(&tuned));
    let key = "ab".repeat(32);
    let text = base().replace("[trust]", &format!("[trust]\nrelease_keys = [\"{key}\"]"));
    assert_ne!(ClusterId::of(&plain), ClusterId::of(&parse(&text).unwrap().trust_configuration));
}

#[test]
fn the_environment_wins_over_the_file() {
    let text = base() + "[nats]\nurl = \"nats://file:4222\"\n[node]\nshards = [\"00-7f\", \"a0\"]\n";
    let config = parse(&text).unwrap();
    assert_eq!(config.nats.url, "nats://file:4222");
    assert_eq!(config.shards.as_ref().unwrap().len(), 129);
    assert!(config.owns(Shard(0xa0)) && !config.owns(Shard(0x80)));
    let config = Config::parse(&text, |name| {
        let value = match name {
            "CASEMATE_NATS_URL" => "nats://environment:4222",
            "CASEMATE_NODE_SHARDS" => "all",
            "CASEMATE_LIMITS_VAULT_LIMIT" => "7",
            "CASEMATE_KMS_ALLOW" => "kms.us-east-1.amazonaws.com:443,localhost:8443",
            "CASEMATE_KMS_DIAL" => "localhost:8443=127.0.0.1:1234",
            "CASEMATE_AWS_ACCESS_KEY_ID" => "AKIA",
            "CASEMATE_AWS_SECRET_ACCESS_KEY" => "hush",
            _ => return None,
        };
        Some(value.to_owned())
    })
    .unwrap();
    assert_eq!(config.nats.url, "nats://environment:4222");
    assert!(config.shards.is_none());
    assert_eq!(config.tuning.vault_limit, 7);
    assert_eq!(config.kms.dial, [(HostPort::new("localhost", 8443).unwrap(), "127.0.0.1:1234".parse().unwrap())]);
    assert!(matches!(&config.aws, Aws::Static(found) if &*found.secret_access_key == b"hush"));
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn every_wrong_value_is_named_with_what_is_allowed() {
    let cases = [
        ("[node]\nname = \"UPPER\"", "node.name"),
        ("[node]\nsubject_prefix = \"a.b\"", "node.subject_prefix"),
        ("[node]\nshards = [\"7f-00\"]", "node.shards"),
        ("[node]\nshards = []", "node.shards"),
        ("[nats]\nurl = \"http://x\"", "nats.url"),
        ("[nats]\ncredentials_file = \"/nowhere/at/all\"", "nats.credentials_file"),
        ("[nats]\nsubscription_capacity = 1", "nats.subscription_capacity"),
        ("[nats]\nsubscription_capacity = \"many\"", "nats.subscription_capacity"),
        ("[nats.tls]\nca = 5", "nats.tls.ca"),
        ("[link]\nlisten = \"tcp:1\"", "link.listen"),
        ("[link]\nenclave_cid = 3", "link.enclave_cid"),
        ("[kms]\nallow = [\"no-port\"]", "kms.allow"),
        ("[kms]\ndial = { \"elsewhere:1\" = \"127.0.0.1:1\" }", "kms.dial"),
        ("[aws]\nsource = \"magic\"", "aws.source"),
        ("[http]\nlisten = \"8080\"", "http.listen"),
        ("[admin]\nsocket = \"relative\"", "admin.socket"),
        ("[log]\nlevel = \"loud\"", "log.level"),
        ("[log]\ntarget = \"file\"", "log.target"),
        ("[limits]\nmemory_low_percent = 80\nmemory_high_percent = 80", "limits.memory_high_percent"),
        ("[limits]\nshard_key_ttl_ms = 10\nshard_key_hard_ms = 9", "limits.shard_key_hard_ms"),
        ("[limits]\nvault_limit = -1", "limits.vault_limit"),
        ("[limits]\nstore_timeout_ms = 1", "limits.store_timeout_ms"),
    ];
    for (text, key) in cases {
        let error = parse(&(base() + text)).unwrap_err();
        let ConfigError::Wrong { key: found, allowed, .. } = &error else { panic!("{text}: {error}") };
        assert_eq!(found, key, "{text}");
        assert!(error.to_string().contains(allowed), "{error}");
    }
    for (from, to, key) in [
        ("file:///var/lib/casemate", "ftp://x", "store.url"),
        ("file:///var/lib/casemate", "s3://b/../c", "store.url"),
        ("us-east-1:1111", "eu-west-1:1111", "trust.kms_key_arn"),
        ("region = \"us-east-1\"", "region = \"Mars\"", "trust.region"),
    ] {
        let error = parse(&base().replace(from, to)).unwrap_err();
        assert!(matches!(&error, ConfigError::Wrong { key: found, .. } if found == key), "{to}: {error}");
    }
}

#[test]
fn unknown_and_missing_keys_are_named() {
    let error = parse(&(base() + "[nats]\nurll = \"x\"")).unwrap_err().to_string();
    assert!(error.contains("`nats.urll`") && error.contains("nats.url,"), "{error}");
    let error = parse(&(base() + "[natz]\n")).unwrap_err().to_string();
    assert!(error.contains("`natz`") && error.contains("[nats]"), "{error}");
    assert!(parse(&(base() + "[nats.tls]\nfoo = 1")).unwrap_err().to_string().contains("`nats.tls.foo`"));
    assert!(matches!(parse("[store\n").unwrap_err(), ConfigError::Syntax { line: 1, .. }));
    let error = parse("").unwrap_err().to_string();
    assert!(error.contains("`trust.region`") && error.contains("CASEMATE_TRUST_REGION"), "{error}");
    let error = parse(&(base() + "[aws]\nsource = \"static\"\naccess_key_id = \"A\"")).unwrap_err().to_string();
    assert!(error.contains("`aws.secret_access_key`"), "{error}");
    // A secret that is wrong is not repeated.
    let text = base() + "[aws]\naccess_key_id = \"A\"\nsecret_access_key = \"two words\"";
    assert!(!parse(&text).unwrap_err().to_string().contains("two words"));
}

#[test]
fn s3() {
    let text = base().replace("file:///var/lib/casemate\"", "s3://bucket/a/b/\"\nendpoint = \"http://127.0.0.1:5000\"");
    let expected = Store::S3 {
        bucket: "bucket".to_owned(),
        prefix: "a/b".to_owned(),
        region: "us-east-1".to_owned(),
        endpoint: Some("http://127.0.0.1:5000".to_owned()),
    };
    assert_eq!(parse(&text).unwrap().store, expected);
}

#[test]
fn no_two_keys_share_a_variable() {
    let variables: BTreeSet<String> = KEYS.iter().map(keys::Key::variable).collect();
    assert_eq!(variables.len(), KEYS.len());
}

#[test]
fn the_documentation_has_every_key() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md")).unwrap();
    let table = keys::markdown();
    assert!(page.contains(&table), "put into docs/configuration.md what `casemate-parent keys` prints:\n{table}");
}
