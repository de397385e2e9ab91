//! `casemate-parent check`: reaches everything that the configuration names, once, and says what to do about what it does not
//! reach.

use std::sync::Arc;
use std::time::Duration;

use casemate_link::{Listener, accept_hello, answer_hello};
use casemate_protocol::trust::ClusterId;
use serde_json::Value;

use crate::aws;
use crate::config::{Aws, Config};
use crate::enclave::BUILD;
use crate::nats::{self, First, Probe};
use crate::nitro::ask_parent;
use crate::state::NodeState;
use crate::store::ObjectStore;

/// How long a dialling enclave is waited for; it dials again every second or so.
const ENCLAVE_WAIT: Duration = Duration::from_secs(10);
const NATS_WAIT: Duration = Duration::from_secs(10);

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was reached for.
    pub part: &'static str,
    /// What was found, or why nothing was.
    pub result: Result<String, Fault>,
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: &'static str,
}

fn fault(what: impl std::fmt::Display, remedy: &'static str) -> Fault {
    Fault { what: what.to_string(), remedy }
}

/// Reaches for everything.
pub async fn check(config: &Config) -> Vec<Finding> {
    let cluster = ClusterId::of(&config.trust_configuration);
    vec![
        Finding { part: "configuration", result: Ok(format!("valid; cluster {cluster}")) },
        Finding { part: "nats", result: nats(config, cluster).await },
        Finding { part: "store", result: store(config).await },
        Finding { part: "credentials", result: credentials(&config.aws).await },
        Finding { part: "enclave", result: enclave(config).await },
    ]
}

async fn nats(config: &Config, cluster: ClusterId) -> Result<String, Fault> {
    const REMEDY: &str =
        "See that the server runs, that nats.url is right, and that this node's user may subscribe and publish.";
    let state = Arc::new(NodeState::new(&config.node, cluster));
    let reach = async {
        let client = nats::connect(&config.nats, &config.node, &state, First::Fail).await?;
        let mut probe = Probe::new(client.clone(), &config.prefix, &config.node).await?;
        let rtt = probe.round_trip().await?;
        Ok::<_, nats::NatsError>((rtt, client.server_info()))
    };
    match tokio::time::timeout(NATS_WAIT, reach).await {
        Ok(Ok((rtt, server))) => Ok(format!("{} answers in {} µs", server.version, rtt.as_micros())),
        Ok(Err(error)) => Err(fault(error, REMEDY)),
        Err(_) => Err(fault("no answer within 10 s", REMEDY)),
    }
}

async fn store(config: &Config) -> Result<String, Fault> {
    const REMEDY: &str =
        "See that store.url is right and that this user (or the instance's role) may read, write and delete there.";
    let timeout = Duration::from_millis(config.tuning.store_timeout_ms);
    let store = ObjectStore::open(&config.store, &config.aws, timeout).map_err(|error| fault(error, REMEDY))?;
    let latency = store.round_trip(&config.node).await.map_err(|error| fault(error, REMEDY))?;
    Ok(format!("wrote and read an object in {} ms", latency.as_millis()))
}

async fn credentials(aws: &Aws) -> Result<String, Fault> {
    match aws {
        Aws::Static(credentials) => Ok(format!("{} from the configuration", credentials.access_key_id)),
        Aws::Imds(endpoint) => match aws::fetch(*endpoint).await {
            Ok(credentials) => Ok(format!("{} from the instance's role", credentials.access_key_id)),
            Err(error) => Err(fault(error, "Attach a role that may use the KMS key, and enable IMDSv2.")),
        },
        Aws::None => Err(fault(
            "none are configured, so the enclave cannot call KMS",
            "Set aws.source to \"imds\" on EC2, or give aws.access_key_id and aws.secret_access_key.",
        )),
    }
}

async fn enclave(config: &Config) -> Result<String, Fault> {
    // A running parent holds the link: it knows.
    if let Some(page) = ask_parent(&config.admin).await {
        return running(&page);
    }
    let listener = Listener::bind(&config.listen).map_err(|error| {
        fault(error, "Free the address or change link.listen; a parent that runs as another user holds it, perhaps.")
    })?;
    match tokio::time::timeout(ENCLAVE_WAIT, first_hello(&listener)).await {
        Ok(build) => Ok(format!("{build} dials")),
        Err(_) => Err(fault(
            format!("nobody dialled {} within 10 s", config.listen),
            "Start the enclave (nitro-cli describe-enclaves), and see that it dials this CID and port.",
        )),
    }
}

async fn first_hello(listener: &Listener) -> String {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        if let Ok((stream, hello)) = accept_hello(stream).await {
            // The enclave dials again and finds the parent then.
            answer_hello(stream, &hello, BUILD, Some("only a configuration check runs here")).await.ok();
            return hello.build.chars().take(100).collect();
        }
    }
}

fn running(page: &Value) -> Result<String, Fault> {
    let is_connected = page["enclave"]["connected"].as_bool().unwrap_or(false);
    if is_connected {
        return Ok(format!("{} is connected to the running parent", page["enclave"]["build"].as_str().unwrap_or("it")));
    }
    let reasons: Vec<&str> = page["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    Err(fault(
        format!("not connected to the running parent: {}", reasons.join("; ")),
        "Start the enclave (nitro-cli describe-enclaves), and see that it dials this CID and port.",
    ))
}
