//! Figures for CloudWatch: one call an interval, namespace `Casemate/Enclave`, dimensions `AutoScalingGroupName` and `InstanceId`; and once
//! more with the group alone, because an alarm cannot be told to look at whichever instances there are.
//!
//! `docs/watching.md` has the table. While CloudWatch is away, figures wait in a bounded backlog and keep the times they belong to;
//! nothing else waits with them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::config::retry::RetryConfig;
use aws_sdk_cloudwatch::config::timeout::TimeoutConfig;
use aws_sdk_cloudwatch::config::{BehaviorVersion, IdentityCache, Region, StalledStreamProtectionConfig};
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit};
use metrics::counter;
use tokio::time::MissedTickBehavior;

use crate::config::CloudWatch;
use crate::instance::{self, Instance};
use crate::metric;
use crate::sdk::{CALL_TIMEOUT, Http, NewestCredentials, in_one_line};
use crate::stage;
use crate::state::NodeState;

pub mod backlog;
pub mod figures;

use backlog::{Backlog, Interval};
use figures::{Counters, Figure, Unit, figures};

/// The namespace.
pub const NAMESPACE: &str = "Casemate/Enclave";
/// Below this, a figure is one of high resolution, which the service keeps apart.
const MINUTE: Duration = Duration::from_mins(1);

/// Sends until the task is dropped.
pub async fn send(
    config: CloudWatch,
    region: String,
    http: Http,
    credentials: NewestCredentials,
    state: Arc<NodeState>,
) {
    let instance = instance::find(&config.instance).await;
    tracing::info!(instance = instance.id, group = instance.group, "figures go to CloudWatch");
    let client = client(&config, region, http, credentials);
    let mut backlog = Backlog::default();
    let mut tick = tokio::time::interval(config.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once: what was counted before it has no interval.
    tick.tick().await;
    // But for what an alarm looks at: that may be an attack which nobody was told of.
    let mut before = Counters { sandbox_killed: 0, kms_forged: 0, ..look(&state).0 };
    let mut was_away = false;
    loop {
        tick.tick().await;
        let (now, figures) = {
            let (now, observed) = look(&state);
            let figures = figures(&before, &now, &observed);
            (now, figures)
        };
        before = now;
        let dropped = backlog.push(Interval { at: SystemTime::now(), figures });
        counter!("casemate_cloudwatch_dropped_total").increment(dropped as u64);
        loop {
            let batch = backlog.batch();
            if batch.is_empty() {
                break;
            }
            match put(&client, &instance, config.interval, &batch).await {
                Ok(()) => {
                    counter!("casemate_cloudwatch_calls_total", "outcome" => "taken").increment(1);
                    backlog.sent(batch.len());
                    was_away = false;
                }
                Err(error) => {
                    counter!("casemate_cloudwatch_calls_total", "outcome" => "failed").increment(1);
                    // Once an outage: it is tried again every interval, and the log is no place for that.
                    if !was_away {
                        tracing::warn!(
                            error,
                            "CloudWatch did not take the figures; they are kept for an hour and sent later"
                        );
                    }
                    was_away = true;
                    break;
                }
            }
        }
    }
}

fn look(state: &NodeState) -> (Counters, crate::health::Observed) {
    let observed = state.observe();
    let counters = Counters::of(&observed, metric::requests_and_errors(), stage::answered_times(), metric::alarming);
    (counters, observed)
}

fn client(config: &CloudWatch, region: String, http: Http, credentials: NewestCredentials) -> Client {
    let mut builder = aws_sdk_cloudwatch::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region))
        .http_client(http)
        .credentials_provider(credentials)
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(CALL_TIMEOUT).build())
        .disable_request_compression(true)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(endpoint) = &config.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    Client::from_conf(builder.build())
}

async fn put(client: &Client, instance: &Instance, interval: Duration, batch: &[Interval]) -> Result<(), String> {
    let data = batch
        .iter()
        .flat_map(|Interval { at, figures }| figures.iter().map(|figure| (*at, figure)))
        .flat_map(|(at, figure)| [Some(&instance.id), None].map(|id| datum(&instance.group, id, interval, at, figure)))
        .collect();
    let call = client.put_metric_data().namespace(NAMESPACE).set_metric_data(Some(data));
    call.send().await.map(drop).map_err(|error| in_one_line(&error))
}

fn datum(group: &str, id: Option<&String>, interval: Duration, at: SystemTime, figure: &Figure) -> MetricDatum {
    let dimension = |name: &str, value: &str| Dimension::builder().name(name).value(value).build();
    let dimensions = [Some(dimension("AutoScalingGroupName", group)), id.map(|id| dimension("InstanceId", id))];
    let dimensions = dimensions.into_iter().flatten().collect();
    let unit = match figure.unit {
        Unit::Percent => StandardUnit::Percent,
        Unit::Count => StandardUnit::Count,
        Unit::Milliseconds => StandardUnit::Milliseconds,
        Unit::Seconds => StandardUnit::Seconds,
        Unit::None => StandardUnit::None,
    };
    let datum = MetricDatum::builder()
        .metric_name(figure.name)
        .set_dimensions(Some(dimensions))
        .timestamp(DateTime::from(at))
        .unit(unit)
        .set_storage_resolution((interval < MINUTE).then_some(1));
    match figure.values.as_slice() {
        [(value, once)] if (*once - 1.0).abs() < f64::EPSILON => datum.value(*value).build(),
        values => {
            let (values, counts) = values.iter().copied().unzip();
            datum.set_values(Some(values)).set_counts(Some(counts)).build()
        }
    }
}
