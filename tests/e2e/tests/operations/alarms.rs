//! The alarms of both templates are those of the table that operators read.

use std::collections::BTreeMap;
use std::fs;

use casemate_e2e::programs::checkout;

/// When an alarm fires.
#[derive(Debug, PartialEq, Eq)]
struct Alarm {
    /// `sum, 60 s`
    of: String,
    operator: String,
    threshold: String,
    /// `3 of 5`
    periods: String,
    missing: String,
}

fn text(path: &str) -> String {
    fs::read_to_string(checkout().join(path)).unwrap()
}

fn of_table() -> BTreeMap<String, Alarm> {
    let page = text("docs/watching.md");
    let rows = page.split("## Alarms\n").nth(1).unwrap().lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let [name, of, fires, periods, missing] = cells[..] else { panic!("{row}") };
        let (operator, threshold) = match fires.split_whitespace().collect::<Vec<_>>()[..] {
            ["below", "the", "number", "of", "nodes"] => ("LessThanThreshold", "nodes"),
            ["below", threshold, ..] => ("LessThanThreshold", threshold),
            ["above", threshold, ..] => ("GreaterThanThreshold", threshold),
            ["at", threshold, "or", "above"] => ("GreaterThanOrEqualToThreshold", threshold),
            _ => panic!("{row}"),
        };
        let alarm = Alarm {
            of: of.to_owned(),
            operator: operator.to_owned(),
            threshold: threshold.to_owned(),
            periods: periods.to_owned(),
            missing: missing.to_owned(),
        };
        (name.trim_matches('`').to_owned(), alarm)
    })
    .collect()
}

fn of_cloudformation() -> BTreeMap<String, Alarm> {
    let template = text("deploy/cloudformation/watching.yaml");
    let resources = template.split("\n\n").filter(|resource| resource.contains("Type: AWS::CloudWatch::Alarm"));
    resources
        .map(|resource| {
            let field = |keys: &[&str]| {
                let find = |key: &&str| {
                    resource
                        .lines()
                        .find_map(|line| line.trim().strip_prefix(*key)?.strip_prefix(": "))
                        .map(str::to_owned)
                };
                keys.iter().find_map(find).unwrap_or_else(|| panic!("no {keys:?} in {resource}"))
            };
            let statistic = field(&["Statistic", "ExtendedStatistic"]).to_lowercase();
            let alarm = Alarm {
                of: format!("{statistic}, {} s", field(&["Period"])),
                operator: field(&["ComparisonOperator"]),
                threshold: field(&["Threshold"]).replace("!Ref Nodes", "nodes"),
                periods: format!("{} of {}", field(&["DatapointsToAlarm"]), field(&["EvaluationPeriods"])),
                missing: field(&["TreatMissingData"]),
            };
            (field(&["MetricName"]), alarm)
        })
        .collect()
}

fn of_terraform() -> BTreeMap<String, Alarm> {
    let module = text("deploy/terraform/watching.tf");
    let lines = module.lines().filter(|line| line.contains("= { of = local."));
    lines
        .map(|line| {
            let (name, fields) = line.trim().split_once("= {").unwrap();
            let field = |key: &str| {
                let value = fields.split(", ").find_map(|field| field.trim().strip_prefix(key)?.strip_prefix(" = "));
                value.unwrap_or_else(|| panic!("no {key} in {line}")).trim_matches('"').to_owned()
            };
            let name = name.trim().to_owned();
            // The module makes a group of one node.
            let threshold = if name == "HealthyHostCount" { "nodes".to_owned() } else { field("threshold") };
            let alarm = Alarm {
                of: format!("{}, {} s", field("statistic").to_lowercase(), field("period")),
                operator: field("operator"),
                threshold,
                periods: format!("{} of {}", field("to_alarm"), field("periods")),
                missing: field("missing"),
            };
            (name, alarm)
        })
        .collect()
}

#[test]
fn both_templates_have_the_alarms_of_the_table() {
    let table = of_table();
    assert_eq!(table.len(), 9, "{:?}", table.keys());
    assert_eq!(of_cloudformation(), table);
    assert_eq!(of_terraform(), table);
}
