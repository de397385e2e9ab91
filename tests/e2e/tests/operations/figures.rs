//! CloudWatch and the Auto Scaling group hear from the real parent, and emulators that we did not write store what they heard.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use casemate_e2e::captured::make_forbidden_call;
use casemate_e2e::guest::Emulation;
use casemate_e2e::programs::checkout;
use casemate_e2e::{Circumstance, Node};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::emulator::{Emulator, eventually, free_port, programs};

const INSTANCE: &str = "i-0123456789abcdef0";
const GROUP: &str = "casemate";
const PATIENCE: Duration = Duration::from_secs(90);

fn configuration(cloudwatch: &str, autoscaling: &str, instance: &str) -> String {
    format!(
        "[instance]\nid = \"{instance}\"\ngroup = \"{GROUP}\"\n[cloudwatch]\nenabled = true\ninterval_s = 1\nendpoint = \"{cloudwatch}\"\n\
         [autoscaling]\nenabled = true\npatience_s = 3\nendpoint = \"{autoscaling}\"\n[limits]\nshard_key_ttl_ms = 1000\n"
    )
}

/// The figures of a metric in the last minutes, in the order of their times.
fn stored(emulator: &Emulator, metric: &str, statistic: &str) -> Vec<f64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let answer = emulator.ask(
        "cloudwatch",
        "get_metric_statistics",
        &json!({
            "Namespace": "Casemate/Enclave", "MetricName": metric, "Period": 60, "Statistics": [statistic],
            "Dimensions": [{ "Name": "AutoScalingGroupName", "Value": GROUP }, { "Name": "InstanceId", "Value": INSTANCE }],
            "StartTime": now - 3600, "EndTime": now + 60,
        }),
    );
    answer["Datapoints"].as_array().unwrap().iter().map(|point| point[statistic].as_f64().unwrap()).collect()
}

/// Whom the parent's figures are of, and whom the load balancer's.
const OF_THE_GROUP: [(&str, &str); 1] = [("AutoScalingGroupName", GROUP)];
const OF_THE_BALANCER: [(&str, &str); 2] =
    [("TargetGroup", "targetgroup/casemate/1"), ("LoadBalancer", "app/casemate/1")];

fn dimensions(of: &[(&str, &str)]) -> Value {
    of.iter().map(|(name, value)| json!({ "Name": name, "Value": value })).collect()
}

/// An alarm as the template has it, with its own threshold, over seconds instead of minutes: the emulator looks only once in so long.
fn set_alarm(emulator: &Emulator, name: &str, of: &[(&str, &str)]) {
    let template = std::fs::read_to_string(checkout().join("deploy/cloudformation/watching.yaml")).unwrap();
    let text = template.split(&format!("  {name}Alarm:\n")).nth(1).unwrap();
    let text = text.split("\n\n").next().unwrap();
    let field = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{key}: ")));
        line.unwrap_or_else(|| panic!("{name} has no {key}")).to_owned()
    };
    // The emulator has no percentiles.
    let statistic = if text.contains("ExtendedStatistic") { "Maximum".to_owned() } else { field("Statistic") };
    let threshold = field("Threshold");
    // As many nodes as a parameter of the template says; here there is one.
    let threshold = if threshold == "!Ref Nodes" { "1" } else { &threshold };
    emulator.ask(
        "cloudwatch",
        "put_metric_alarm",
        &json!({
            "AlarmName": name, "Namespace": field("Namespace"), "MetricName": field("MetricName"),
            "Dimensions": dimensions(of), "Statistic": statistic,
            "Period": 10, "EvaluationPeriods": 1, "ComparisonOperator": field("ComparisonOperator"),
            "Threshold": threshold.parse::<f64>().unwrap(),
            "TreatMissingData": field("TreatMissingData"),
        }),
    );
}

fn state(emulator: &Emulator, name: &str) -> String {
    let answer = emulator.ask("cloudwatch", "describe_alarms", &json!({ "AlarmNames": [name] }));
    answer["MetricAlarms"][0]["StateValue"].as_str().unwrap_or("none").to_owned()
}

fn await_state(emulator: &Emulator, name: &str, wanted: &str) {
    eventually(&format!("{name} was {wanted}"), PATIENCE, || (state(emulator, name) == wanted).then_some(()));
}

/// The group's health status of the instance.
fn status(moto: &Emulator, instance: &str) -> String {
    let answer = moto.ask("autoscaling", "describe_auto_scaling_instances", &json!({ "InstanceIds": [instance] }));
    answer["AutoScalingInstances"][0]["HealthStatus"].as_str().unwrap_or("gone").to_ascii_lowercase()
}

/// A group with one instance in the emulator; returns the instance.
fn group(moto: &Emulator) -> String {
    let images = moto.ask("ec2", "describe_images", &json!({ "Owners": ["amazon"] }));
    let image = images["Images"][0]["ImageId"].as_str().unwrap();
    moto.ask(
        "autoscaling",
        "create_launch_configuration",
        &json!({ "LaunchConfigurationName": "l", "ImageId": image, "InstanceType": "m6i.xlarge" }),
    );
    moto.ask(
        "autoscaling",
        "create_auto_scaling_group",
        &json!({
            "AutoScalingGroupName": GROUP, "LaunchConfigurationName": "l", "MinSize": 1, "MaxSize": 1,
            "AvailabilityZones": ["us-east-1a"],
        }),
    );
    let found = moto.ask("autoscaling", "describe_auto_scaling_instances", &json!({}));
    found["AutoScalingInstances"][0]["InstanceId"].as_str().unwrap().to_owned()
}

/// A machine for an enclave whose circumstances shall change; says so when there is none.
#[expect(clippy::print_stderr, reason = "a skipped test must not look like one that passed")]
fn machine(test: &str) -> Option<Emulation> {
    let found = Emulation::of_test_image();
    if found.is_none() {
        eprintln!("SKIPPED {test}: CASEMATE_EMULATOR and CASEMATE_TEST_IMAGE name no emulator and no image");
    }
    found
}

#[test]
fn figures_reach_cloudwatch_and_alarms_fire_and_go() {
    let Some(programs) = programs("figures") else { return };
    let cloudwatch = Emulator::cloudwatch(programs);
    let mut node = Node::start_with(&configuration(&cloudwatch.endpoint(), "http://127.0.0.1:1", INSTANCE));
    let device = node.device_with_vault("owner");
    device.run_with_input(&["secret", "put", "a"], b"1").ok();
    let vault = device.vault();
    device.run(&["node", "evict", &vault]).ok();
    device.run(&["secret", "get", "a"]).ok();

    // Every metric of the table, with the figure that health tells.
    for name in [
        "EnclaveUp",
        "MemoryUtilization",
        "ResidentVaults",
        "ColdStartLatency",
        "RequestLatency",
        "RequestCount",
        "ErrorCount",
        "KmsLatency",
        "KmsThrottled",
        "KmsCacheHitRate",
        "NatsReconnects",
        "EvidenceAge",
        "SandboxKilled",
        "KmsForged",
    ] {
        eventually(&format!("{name} was stored"), PATIENCE, || stored(&cloudwatch, name, "Maximum").last().copied());
    }
    let (_, health) = node.health().unwrap();
    let memory = &health["memory"];
    let percent = memory["used"].as_f64().unwrap() / memory["total"].as_f64().unwrap() * 100.0;
    let told = *stored(&cloudwatch, "MemoryUtilization", "Average").last().unwrap();
    assert!((told - percent).abs() < 10.0, "{told} and {percent}");
    let opened = stored(&cloudwatch, "ColdStartLatency", "SampleCount").iter().sum::<f64>();
    assert!(opened >= 2.0, "created and opened again: {opened}");

    for name in ["EnclaveUp", "KmsThrottled", "NatsReconnects", "SandboxKilled", "KmsForged"] {
        set_alarm(&cloudwatch, name, &OF_THE_GROUP);
        await_state(&cloudwatch, name, "OK");
    }

    make_forbidden_call(node.manager_of(&vault));
    await_state(&cloudwatch, "SandboxKilled", "ALARM");
    await_state(&cloudwatch, "SandboxKilled", "OK");
    assert_eq!(state(&cloudwatch, "KmsForged"), "OK");

    node.kms_control(&["throttle"]);
    let throttled = Instant::now();
    while state(&cloudwatch, "KmsThrottled") != "ALARM" {
        assert!(throttled.elapsed() < PATIENCE, "KmsThrottled did not fire");
        // A key whose time to live is over is asked for anew.
        device.run(&["node", "evict", &vault]);
        device.run(&["secret", "get", "a"]);
    }
    node.kms_control(&["healthy"]);
    await_state(&cloudwatch, "KmsThrottled", "OK");

    // Three connections that do not last.
    for _ in 0..4 {
        node.nats = None;
        node.start_nats();
        node.await_health(200);
    }
    await_state(&cloudwatch, "NatsReconnects", "ALARM");

    node.enclave = None;
    await_state(&cloudwatch, "EnclaveUp", "ALARM");
    node.start_enclave();
    node.await_health(200);
    await_state(&cloudwatch, "EnclaveUp", "OK");
}

/// A full memory is one: the machine of the test image, which has its memory for itself, in which the enclave takes all but a rest.
#[test]
fn a_full_memory_fires_its_alarm() {
    let Some(programs) = programs("figures, memory") else { return };
    let Some(test) = machine("figures, memory") else { return };
    let cloudwatch = Emulator::cloudwatch(programs);
    let told = configuration(&cloudwatch.endpoint(), "http://127.0.0.1:1", INSTANCE);
    let mut node = Node::prepare_in(Some(test), &told);
    node.start_all();
    set_alarm(&cloudwatch, "MemoryUtilization", &OF_THE_GROUP);
    await_state(&cloudwatch, "MemoryUtilization", "OK");

    node.bring_about(Circumstance::MemoryUsed(93));
    await_state(&cloudwatch, "MemoryUtilization", "ALARM");
    let most = *stored(&cloudwatch, "MemoryUtilization", "Maximum").last().unwrap();
    assert!((93.0..100.0).contains(&most), "{most}");
    // It is a reason to look at the node, and none to take it out.
    let (code, health) = node.health().unwrap();
    assert_eq!((code, &health["status"]), (200, &Value::from("degraded")), "{health}");
    assert!(health["reasons"].to_string().contains("memory is short"), "{health}");

    node.bring_about(Circumstance::MemoryUsed(0));
    await_state(&cloudwatch, "MemoryUtilization", "OK");
    assert_eq!(node.health().unwrap().1["status"], "healthy");
}

/// What is played: that the security module refuses to attest, and that the minutes pass. Both clocks of the enclave and the module's go
/// ahead together; that evidence is renewed in time, is not, and ends at last, is the enclave's own doing.
#[test]
fn old_evidence_fires_its_alarm_before_it_ends() {
    let Some(programs) = programs("figures, evidence") else { return };
    let cloudwatch = Emulator::cloudwatch(programs);
    let mut node = Node::prepare(&configuration(&cloudwatch.endpoint(), "http://127.0.0.1:1", INSTANCE));
    node.direct();
    node.start_all();
    set_alarm(&cloudwatch, "EvidenceAge", &OF_THE_GROUP);
    await_state(&cloudwatch, "EvidenceAge", "OK");
    let age = |node: &Node| node.health().unwrap().1["enclave"]["evidence_age_s"].as_u64();
    let minutes = |count: u64| Circumstance::TimePassed(count * 60);

    // While the module works, evidence grows no older than half an hour, and nobody is alarmed.
    node.bring_about(minutes(29));
    eventually("evidence was old", PATIENCE, || age(&node).filter(|age| *age >= 29 * 60));
    node.bring_about(minutes(2));
    eventually("evidence was renewed", PATIENCE, || age(&node).filter(|age| *age < 60));
    assert_eq!(state(&cloudwatch, "EvidenceAge"), "OK");

    node.bring_about(Circumstance::ModuleFailing(true));
    // In steps: evidence that is renewed at half an hour would never be so old.
    for count in [16, 16, 14] {
        node.bring_about(minutes(count));
        std::thread::sleep(Duration::from_secs(3));
    }
    await_state(&cloudwatch, "EvidenceAge", "ALARM");
    let oldest = *stored(&cloudwatch, "EvidenceAge", "Maximum").last().unwrap();
    assert!((46.0 * 60.0..60.0 * 60.0).contains(&oldest), "{oldest}");
    // There is time to act: the node serves.
    assert_eq!(node.health().unwrap().0, 200);

    node.bring_about(minutes(14));
    node.await_health(503);
    assert_eq!(age(&node), None);
    // Its figure ends with it, and the alarm does not.
    std::thread::sleep(Duration::from_secs(25));
    assert_eq!(state(&cloudwatch, "EvidenceAge"), "ALARM");

    node.bring_about(Circumstance::ModuleFailing(false));
    node.await_health(200);
    await_state(&cloudwatch, "EvidenceAge", "OK");
}

#[test]
fn an_outage_of_cloudwatch_costs_nothing_but_the_oldest() {
    let Some(programs) = programs("figures, offline") else { return };
    // Nobody is there: the node works, and says so once.
    let port = free_port();
    let mut node =
        Node::start_with(&configuration(&format!("http://127.0.0.1:{port}"), "http://127.0.0.1:1", INSTANCE));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(node.health().unwrap().0, 200);
    let log = node.parent.as_ref().unwrap().log();
    assert_eq!(log.matches("CloudWatch did not take the figures").count(), 1, "{log}");
    let (_, metrics) = node.http("GET", "/metrics", "").unwrap();
    assert!(metrics.contains("casemate_cloudwatch_calls_total{outcome=\"failed\"}"), "{metrics}");
    // It comes, and is told what was kept, each with its own time.
    let cloudwatch = Emulator::cloudwatch_at(programs, port);
    eventually("what was kept was stored", PATIENCE, || {
        (stored(&cloudwatch, "EnclaveUp", "SampleCount").iter().sum::<f64>() >= 5.0).then_some(())
    });
    assert!(node.ended_parts().is_empty());
}

/// Looks at a node's health as a load balancer does, and tells CloudWatch what that found.
fn balance(emulator: &Emulator, node: &Node) {
    let begun = Instant::now();
    let is_healthy = node.health().is_some_and(|(code, _)| code == 200);
    let figure = |name: &str, value: f64| json!({ "MetricName": name, "Dimensions": dimensions(&OF_THE_BALANCER), "Value": value });
    emulator.ask(
        "cloudwatch",
        "put_metric_data",
        &json!({
            "Namespace": "AWS/ApplicationELB",
            "MetricData": [
                figure("HealthyHostCount", if is_healthy { 1.0 } else { 0.0 }),
                figure("TargetResponseTime", begun.elapsed().as_secs_f64()),
            ],
        }),
    );
}

/// The load balancer is played; what it finds is what it would find.
#[test]
fn the_load_balancers_alarms_follow_what_it_finds() {
    let Some(programs) = programs("figures, load balancer") else { return };
    let cloudwatch = Emulator::cloudwatch(programs);
    let mut node = Node::start();
    set_alarm(&cloudwatch, "HealthyHostCount", &OF_THE_BALANCER);
    set_alarm(&cloudwatch, "TargetResponseTime", &OF_THE_BALANCER);
    let await_both = |node: &Node, wanted: [&str; 2]| {
        eventually(&format!("the alarms were {wanted:?}"), PATIENCE, || {
            balance(&cloudwatch, node);
            let states = ["HealthyHostCount", "TargetResponseTime"].map(|name| state(&cloudwatch, name));
            (states == wanted).then_some(())
        });
    };
    await_both(&node, ["OK", "OK"]);
    // Hung, the node says so itself, and soon.
    node.enclave.as_ref().unwrap().signal(Signal::SIGSTOP);
    node.await_health(503);
    await_both(&node, ["ALARM", "OK"]);
    node.enclave.as_ref().unwrap().signal(Signal::SIGCONT);
    node.await_health(200);
    await_both(&node, ["OK", "OK"]);
    // A parent that is hung answers nobody: the balancer waits for its answer in vain.
    node.parent.as_ref().unwrap().signal(Signal::SIGSTOP);
    await_both(&node, ["ALARM", "ALARM"]);
    node.parent.as_mut().unwrap().signal(Signal::SIGCONT);
    node.await_health(200);
    await_both(&node, ["OK", "OK"]);
}

/// What the load balancer and the group hear differs as `docs/watching.md` says.
#[test]
fn only_what_a_new_instance_would_cure_reaches_the_group() {
    let Some(programs) = programs("figures, verdict") else { return };
    let moto = Emulator::moto(programs);
    let instance = group(&moto);
    let mut node = Node::start_with(&configuration("http://127.0.0.1:1", &moto.endpoint(), &instance));
    let still_well = |node: &Node, moto: &Emulator| {
        std::thread::sleep(Duration::from_secs(6));
        assert_eq!(node.health().unwrap().0, 503, "the load balancer does not send traffic here");
        assert_eq!(status(moto, &instance), "healthy", "and the group keeps the instance");
    };
    node.nats = None;
    node.await_health(503);
    still_well(&node, &moto);
    node.start_nats();
    node.await_health(200);

    std::fs::rename(node.path("store"), node.path("gone")).unwrap();
    std::fs::write(node.path("store"), b"no folder").unwrap();
    node.await_health(503);
    still_well(&node, &moto);
    std::fs::remove_file(node.path("store")).unwrap();
    std::fs::rename(node.path("gone"), node.path("store")).unwrap();
    node.await_health(200);

    node.kms = None;
    std::thread::sleep(Duration::from_secs(6));
    let (code, health) = node.health().unwrap();
    assert_eq!((code, &health["status"]), (200, &Value::from("degraded")), "{health}");
    assert_eq!(status(&moto, &instance), "healthy");
    node.start_kms();

    // Dead: both hear of it.
    node.enclave = None;
    node.await_health(503);
    eventually("the group was told", PATIENCE, || (status(&moto, &instance) == "unhealthy").then_some(()));
    node.start_enclave();
    node.await_health(200);
    eventually("the group was told of the recovery", PATIENCE, || {
        (status(&moto, &instance) == "healthy").then_some(())
    });
}

/// A clock that jumps takes the node out at once, and is for the group when it lasts: a new instance has another one.
#[test]
fn a_clock_that_stays_wrong_reaches_the_group() {
    let Some(programs) = programs("figures, clock") else { return };
    let Some(test) = machine("figures, clock") else { return };
    let moto = Emulator::moto(programs);
    let instance = group(&moto);
    let told = configuration("http://127.0.0.1:1", &moto.endpoint(), &instance);
    let mut node = Node::prepare_in(Some(test), &told);
    node.start_all();
    let hour_off = |hours: i64| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        Circumstance::KernelClock(u64::try_from(now).unwrap().saturating_add_signed(hours * 3_600_000))
    };
    // An emulated machine may boot for longer than this group's patience.
    let is_well = |moto: &Emulator| (status(moto, &instance) == "healthy").then_some(());
    eventually("the group thought well of it", PATIENCE, || is_well(&moto));
    let why = "the enclave's evidence is missing or too old";
    let said = |node: &Node| node.parent.as_ref().unwrap().log().matches(why).count();
    for hours in [1, -1] {
        let said_before = said(&node);
        node.bring_about(hour_off(hours));
        node.await_health(503);
        eventually("the group was told", PATIENCE, || (status(&moto, &instance) == "unhealthy").then_some(()));
        assert!(said(&node) > said_before, "why, it did not say");
        node.bring_about(hour_off(0));
        node.await_health(200);
        eventually("the group was told of the recovery", PATIENCE, || is_well(&moto));
    }
}
