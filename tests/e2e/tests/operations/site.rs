//! What an operator sits before: a node under systemd with an owner's vault on it, and emulators behind `aws`.

use std::path::PathBuf;
use std::process::{Command, Output};

use casemate_e2e::Node;
use serde_json::json;

use crate::emulator::{Emulator, programs};
use crate::machine::Machine;

const GROUP: &str = "casemate";
const BUCKET: &str = "casemate-objects";

/// The site.
pub(crate) struct Site {
    machine: Machine,
    variables: Vec<String>,
    _emulators: [Emulator; 2],
    _node: Node,
}

impl Site {
    /// Opens it; says why when it cannot be opened here.
    #[expect(clippy::print_stderr, reason = "a skipped test must not look like one that passed")]
    pub(crate) fn open() -> Option<Self> {
        let programs = programs("runbooks, executed")?;
        let Some(aws) = std::env::var_os("CASEMATE_AWS_CLI").map(PathBuf::from).filter(|path| path.exists()) else {
            eprintln!("SKIPPED runbooks, executed: CASEMATE_AWS_CLI names no aws; ./dev operations --test fetches one");
            return None;
        };
        let mut node = Node::prepare("");
        node.start_nats();
        node.start_kms();
        let (moto, cloudwatch) = (Emulator::moto(programs.clone()), Emulator::cloudwatch(programs));
        let instance = furnish(&moto);
        let extra = format!(
            "\n[enclave]\nmemory_mib = 256\nsilence_s = 5\n[instance]\nid = \"{instance}\"\ngroup = \"{GROUP}\"\n\
             [cloudwatch]\nenabled = true\ninterval_s = 5\nendpoint = \"{}\"\n",
            cloudwatch.endpoint()
        );
        let base = python_of(&aws);
        let mut shown = vec![aws.parent()?.parent()?.to_owned()];
        shown.extend((!base.starts_with("/usr")).then(|| base.clone()));
        let Some(machine) = Machine::boot(&node, &extra, "", &shown) else {
            eprintln!("SKIPPED runbooks, executed: no systemd can be booted in a container here (systemd-nspawn)");
            return None;
        };
        let path = format!("/usr/bin:/usr/sbin:{}:{}", aws.parent()?.display(), base.join("bin").display());
        let mut variables = vec![
            format!("PATH={path}"),
            "HOME=/root".to_owned(),
            "CASEMATE_HOME=/root/owner".to_owned(),
            format!("CASEMATE_NATS_URL={}", node.nats_url()),
            format!("CASEMATE_DEV_ROOT={}", node.path("authority/root.der").display()),
            format!("HTTP_PORT={}", node.http_port()),
            format!("GROUP={GROUP}"),
            format!("INSTANCE={instance}"),
            format!("BUCKET={BUCKET}"),
            "ALARMS=casemate-watching".to_owned(),
            format!("AWS_ENDPOINT_URL={}", moto.endpoint()),
            format!("AWS_ENDPOINT_URL_CLOUDWATCH={}", cloudwatch.endpoint()),
            "AWS_ACCESS_KEY_ID=testing".to_owned(),
            "AWS_SECRET_ACCESS_KEY=testing".to_owned(),
            "AWS_DEFAULT_REGION=us-east-1".to_owned(),
            "NO_PROXY=*".to_owned(),
        ];
        machine.ok(&["systemctl", "start", "casemate-parent", "nitro-enclave"]);
        machine.await_that("the node was healthy", || node.health().is_some_and(|(code, _)| code == 200));
        let made = |text: &str, variables: &[String]| {
            let ran = shell(&machine, variables, text);
            assert!(ran.status.success(), "{text}: {}", String::from_utf8_lossy(&ran.stderr));
            String::from_utf8(ran.stdout).unwrap()
        };
        made(&format!("casemate trust add {}", node.path("authority/trust.toml").display()), &variables);
        made("casemate vault create && echo 1 | casemate secret put a", &variables);
        let vault = made("casemate vault status --json | sed -E 's/.*\"vault\":\"([a-z2-7]{32})\".*/\\1/'", &variables);
        variables.push(format!("VAULT={}", vault.trim()));
        Some(Self { machine, variables, _emulators: [moto, cloudwatch], _node: node })
    }

    /// Runs a block as a person would type it.
    pub(crate) fn shell(&self, text: &str) -> Output {
        shell(&self.machine, &self.variables, text)
    }

    pub(crate) fn journal(&self) -> String {
        self.machine.journal()
    }
}

fn shell(machine: &Machine, variables: &[String], text: &str) -> Output {
    let mut words = vec!["env", "-i", "-C", "/root"];
    words.extend(variables.iter().map(String::as_str));
    words.extend(["timeout", "300", "bash", "-euo", "pipefail", "-c", text]);
    machine.run(&words)
}

/// The Python that a virtual environment was made from.
fn python_of(aws: &std::path::Path) -> PathBuf {
    let output =
        Command::new(aws.with_file_name("python")).args(["-c", "import sys; print(sys.base_prefix)"]).output().unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// A group with an instance, a bucket, a document; returns the instance.
fn furnish(moto: &Emulator) -> String {
    let images = moto.ask("ec2", "describe_images", &json!({ "Owners": ["amazon"] }));
    let image = images["Images"][0]["ImageId"].as_str().unwrap();
    let launch = json!({ "LaunchConfigurationName": "l", "ImageId": image, "InstanceType": "m6i.xlarge" });
    moto.ask("autoscaling", "create_launch_configuration", &launch);
    let group = json!({ "AutoScalingGroupName": GROUP, "LaunchConfigurationName": "l", "MinSize": 1, "MaxSize": 1, "AvailabilityZones": ["us-east-1a"] });
    moto.ask("autoscaling", "create_auto_scaling_group", &group);
    moto.ask("s3", "create_bucket", &json!({ "Bucket": BUCKET }));
    let enabled = json!({ "Bucket": BUCKET, "VersioningConfiguration": { "Status": "Enabled" } });
    moto.ask("s3", "put_bucket_versioning", &enabled);
    let content = json!({ "schemaVersion": "2.2", "mainSteps": [] }).to_string();
    let document = json!({ "Name": "casemate-watching-Diagnose", "DocumentType": "Command", "Content": content });
    moto.ask("ssm", "create_document", &document);
    let found = moto.ask("autoscaling", "describe_auto_scaling_instances", &json!({}));
    found["AutoScalingInstances"][0]["InstanceId"].as_str().unwrap().to_owned()
}
