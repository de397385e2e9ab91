//! The templates of `deploy/cloudformation` deploy, in the order of `deploy/README.md`, into an emulator, and what is there then is what
//! this project's own parts expect.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use casemate_e2e::programs::{checkout, program};
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::emulator::{Emulator, programs};

fn measurements(folder: &Path, name: &str, digit: char) -> String {
    let pcr = |n: usize| format!("{digit}{n}").repeat(48);
    let path = folder.join(name);
    fs::write(&path, json!({ "pcr0": pcr(0), "pcr1": pcr(1), "pcr2": pcr(2) }).to_string()).unwrap();
    path.display().to_string()
}

fn deploy(moto: &Emulator, images: &[String]) -> Value {
    let (script, templates) =
        (checkout().join("tests/e2e/emulators/stacks.py"), checkout().join("deploy/cloudformation"));
    let (script, templates, endpoint) =
        (script.display().to_string(), templates.display().to_string(), moto.endpoint());
    let mut arguments = vec![script.as_str(), &endpoint, &templates];
    arguments.extend(images.iter().map(String::as_str));
    moto.python(&arguments)
}

/// What `casemate-eif policy` prints for an image.
fn printed(folder: &Path, digit: char, deployed: &Value) -> Value {
    let pcr = |n: usize| format!("{digit}{n}").repeat(48);
    let pcrs = folder.join("printed.json");
    fs::write(&pcrs, json!({ "PCR0": pcr(0), "PCR1": pcr(1), "PCR2": pcr(2), "size": 1 }).to_string()).unwrap();
    let text = |key: &str| deployed[key].as_str().unwrap().to_owned();
    let output = Command::new(program("casemate-eif"))
        .args([
            "policy",
            "--account",
            &text("account"),
            "--role",
            &text("node_role"),
            "--admin-role",
            &text("admin"),
            "--pcrs",
        ])
        .arg(pcrs)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_is_deployed_is_what_the_parts_expect() {
    let Some(programs) = programs("stacks") else { return };
    let folder = tempfile::tempdir().unwrap();
    let moto = Emulator::moto(programs);
    let deployed = deploy(&moto, &[measurements(folder.path(), "current.json", 'a')]);

    // The key: the shipped policy, to the letter.
    let expected = printed(folder.path(), 'a', &deployed);
    assert_eq!(deployed["key_policy"], expected);
    let everything = expected.to_string();
    assert!(!everything.contains("kms:*\"],\"Effect\":\"Allow") && !everything.contains(":root"), "no way for root");

    // Launch: enclaves on, metadata of version two with the tags that the parent asks for, our paths in the user data.
    let launch = &deployed["launch_template"];
    assert_eq!(launch["EnclaveOptions"]["Enabled"], true);
    assert_eq!(launch["MetadataOptions"]["HttpTokens"], "required");
    assert_eq!(launch["MetadataOptions"]["InstanceMetadataTags"], "enabled");
    assert_eq!(launch["BlockDeviceMappings"][0]["Ebs"]["Encrypted"], true);
    let script = BASE64.decode(launch["UserData"].as_str().unwrap().as_bytes()).unwrap();
    let script = String::from_utf8(script).unwrap();
    let configuration = script.split("TOML'\n").nth(1).unwrap().split("\nTOML").next().unwrap();
    let path = folder.path().join("parent.toml");
    fs::write(&path, configuration).unwrap();
    // Nothing of it is refused: `check` goes on to reach for parts that are not there.
    let checked = Command::new(program("casemate-parent")).arg("check").arg("--config").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(said.contains("configuration") && said.contains("valid; cluster"), "{said}");
    let shell = Command::new("bash").args(["-n", "-c", &script]).status().unwrap();
    assert!(shell.success());

    // The group never hears of the load balancer; the load balancer asks the page that is there.
    assert_eq!(deployed["group"]["HealthCheckType"], "EC2");
    assert_eq!(deployed["group"]["MaxSize"], 1, "two nodes must not own the same shards");
    assert_eq!(deployed["target"]["HealthCheckPath"], "/vault/health");
    let endpoints = ["autoscaling", "kms", "logs", "monitoring", "s3", "secretsmanager", "ssm", "ssmmessages"];
    assert_eq!(deployed["endpoints"], json!(endpoints));

    // The role may do what the parent does, and nothing to everything.
    let rights = deployed["node_rights"]["Statement"].as_array().unwrap();
    let allowed: BTreeSet<&str> = rights
        .iter()
        .flat_map(|right| match &right["Action"] {
            Value::String(one) => vec![one.as_str()],
            many => many.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect(),
        })
        .collect();
    for needed in ["s3:PutObject", "kms:Decrypt", "cloudwatch:PutMetricData", "autoscaling:SetInstanceHealth"] {
        assert!(allowed.contains(needed), "{needed}");
    }
    assert!(allowed.iter().all(|action| !action.contains('*')), "{allowed:?}");
    assert!(!allowed.contains("kms:PutKeyPolicy") && !allowed.contains("s3:DeleteObjectVersion"));

    // The bucket.
    let bucket = &deployed["buckets"]["Bucket"];
    assert_eq!(bucket["VersioningConfiguration"]["Status"], "Enabled");
    assert!(bucket["PublicAccessBlockConfiguration"].as_object().unwrap().values().all(|closed| closed == true));
    let policy = deployed["bucket_policies"]["BucketPolicy"]["PolicyDocument"]["Statement"].as_array().unwrap();
    assert!(policy.iter().all(|statement| statement["Effect"] == "Deny") && policy.len() == 4, "{policy:?}");

    // Every alarm that the table names, and the documents; none of them says a secret's name.
    let alarms: BTreeSet<&str> =
        deployed["alarms"].as_object().unwrap().values().map(|alarm| alarm["MetricName"].as_str().unwrap()).collect();
    let expected = [
        "EnclaveUp",
        "EvidenceAge",
        "HealthyHostCount",
        "KmsForged",
        "KmsThrottled",
        "MemoryUtilization",
        "NatsReconnects",
        "SandboxKilled",
        "TargetResponseTime",
    ];
    assert_eq!(alarms, expected.into_iter().collect());
    for alarm in deployed["alarms"].as_object().unwrap().values() {
        let page = alarm["AlarmDescription"].as_str().unwrap().rsplit(' ').next().unwrap();
        assert!(checkout().join(page).is_file(), "{page}");
    }
    let documents = deployed["documents"].as_object().unwrap();
    assert_eq!(documents.len(), 5, "{:?}", documents.keys());
    for (name, document) in documents {
        let text = document.to_string();
        for secret in ["nats.creds", "secret_access_key", "parent.toml", "printenv", "environ"] {
            assert!(!text.contains(secret), "{name}: {secret}");
        }
        let commands = document["mainSteps"][0]["inputs"]["runCommand"].as_array().unwrap();
        let script: Vec<_> = commands.iter().map(|line| line.as_str().unwrap()).collect();
        assert!(Command::new("bash").args(["-n", "-c", &script.join("\n")]).status().unwrap().success(), "{name}");
    }
}

#[test]
fn during_an_upgrade_two_images_have_keys_and_no_third() {
    let Some(programs) = programs("stacks, upgrade") else { return };
    let folder = tempfile::tempdir().unwrap();
    let moto = Emulator::moto(programs);
    let images = [measurements(folder.path(), "current.json", 'a'), measurements(folder.path(), "next.json", 'b')];
    let deployed = deploy(&moto, &images);
    let both = deployed["key_policy"]["Statement"].as_array().unwrap();
    for (digit, other) in [('a', 'b'), ('b', 'a')] {
        let alone = printed(folder.path(), digit, &deployed);
        for (statement, alone) in both.iter().zip(alone["Statement"].as_array().unwrap()) {
            // Where one image's policy has its measurement, this one has both; else they are the same.
            let mut text = statement.to_string();
            for n in 0..3 {
                let (first, second) = (format!("a{n}").repeat(48), format!("b{n}").repeat(48));
                let kept = format!("{digit}{n}").repeat(48);
                text = text.replace(&format!("[\"{first}\",\"{second}\"]"), &format!("\"{kept}\""));
            }
            assert_eq!(text, alone.to_string(), "without the image of {other}");
        }
    }
}
