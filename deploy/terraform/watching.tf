resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.topic_key_arn
}

# As deploy/cloudformation/watching.yaml has them.
locals {
  own      = { namespace = "Casemate/Enclave", dimensions = { AutoScalingGroupName = aws_autoscaling_group.node.name } }
  balancer = { namespace = "AWS/ApplicationELB", dimensions = { TargetGroup = aws_lb_target_group.pages.arn_suffix, LoadBalancer = aws_lb.pages.arn_suffix } }

  alarms = {
    HealthyHostCount   = { of = local.balancer, statistic = "Minimum", period = 60, periods = 2, to_alarm = 2, operator = "LessThanThreshold", threshold = 1, missing = "breaching", text = "P1: fewer nodes serve than are to: runbooks/incident-response.md" }
    TargetResponseTime = { of = local.balancer, statistic = "p99", period = 60, periods = 5, to_alarm = 3, operator = "GreaterThanThreshold", threshold = 1, missing = "notBreaching", text = "P2: one page in a hundred takes more than a second: runbooks/incident-response.md" }
    EnclaveUp          = { of = local.own, statistic = "Minimum", period = 60, periods = 3, to_alarm = 2, operator = "LessThanThreshold", threshold = 1, missing = "breaching", text = "P1: an enclave does not answer its parent, or nobody tells: runbooks/enclave-restart.md" }
    MemoryUtilization  = { of = local.own, statistic = "Maximum", period = 60, periods = 5, to_alarm = 3, operator = "GreaterThanThreshold", threshold = 90, missing = "notBreaching", text = "P2: vaults are evicted at 85 % and it did not help: runbooks/high-memory.md" }
    KmsThrottled       = { of = local.own, statistic = "Sum", period = 60, periods = 5, to_alarm = 3, operator = "GreaterThanThreshold", threshold = 0, missing = "notBreaching", text = "P2: KMS throttles: runbooks/kms-throttling.md" }
    NatsReconnects     = { of = local.own, statistic = "Sum", period = 300, periods = 1, to_alarm = 1, operator = "GreaterThanOrEqualToThreshold", threshold = 3, missing = "notBreaching", text = "P2: connections to NATS do not last: runbooks/nats-disconnection.md" }
    EvidenceAge        = { of = local.own, statistic = "Maximum", period = 60, periods = 5, to_alarm = 5, operator = "GreaterThanThreshold", threshold = 2700, missing = "ignore", text = "P2: evidence is not renewed; at one hour the node takes itself out: runbooks/enclave-restart.md" }
    SandboxKilled      = { of = local.own, statistic = "Sum", period = 60, periods = 15, to_alarm = 1, operator = "GreaterThanThreshold", threshold = 0, missing = "ignore", text = "P1: a vault-manager tried what it may not, treat it as an attack: runbooks/incident-response.md" }
    KmsForged          = { of = local.own, statistic = "Sum", period = 60, periods = 15, to_alarm = 1, operator = "GreaterThanThreshold", threshold = 0, missing = "ignore", text = "P1: somebody answered in KMS's place, treat it as an attack: runbooks/incident-response.md" }
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each            = local.alarms
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.text
  namespace           = each.value.of.namespace
  metric_name         = each.key
  dimensions          = each.value.of.dimensions
  statistic           = startswith(each.value.statistic, "p") ? null : each.value.statistic
  extended_statistic  = startswith(each.value.statistic, "p") ? each.value.statistic : null
  period              = each.value.period
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.to_alarm
  comparison_operator = each.value.operator
  threshold           = each.value.threshold
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [for place, shown in [
      { title = "Enclaves that answer", stat = "Minimum", metrics = ["EnclaveUp"] },
      { title = "Memory, percent", stat = "Maximum", metrics = ["MemoryUtilization"] },
      { title = "Resident vaults", stat = "Sum", metrics = ["ResidentVaults"] },
      { title = "Requests and errors", stat = "Sum", metrics = ["RequestCount", "ErrorCount"] },
      { title = "Request, p99, ms", stat = "p99", metrics = ["RequestLatency"] },
      { title = "Cold start, p99, ms", stat = "p99", metrics = ["ColdStartLatency"] },
      { title = "Key service: throttled", stat = "Sum", metrics = ["KmsThrottled"] },
      { title = "Key service: ms, hits in percent", stat = "Average", metrics = ["KmsLatency", "KmsCacheHitRate"] },
      { title = "NATS reconnects, age of evidence", stat = "Maximum", metrics = ["NatsReconnects", "EvidenceAge"] },
      ] : {
      type = "metric", x = place % 3 * 8, y = floor(place / 3) * 6, width = 8, height = 6
      properties = {
        title   = shown.title, region = data.aws_region.here.name, stat = shown.stat, period = 60
        metrics = [for metric in shown.metrics : ["Casemate/Enclave", metric, "AutoScalingGroupName", aws_autoscaling_group.node.name]]
      }
    }]
  })
}

resource "aws_ssm_document" "command" {
  for_each = {
    Status   = ["casemate node status --json"]
    Restart  = ["systemctl restart casemate-parent nitro-enclave", "for _ in $(seq 60); do casemate node diagnose && exit 0; sleep 2; done", "casemate node diagnose"]
    Drain    = ["casemate node drain --timeout 60"]
    Diagnose = ["casemate node diagnose --json || true", "systemctl status --no-pager --lines=20 casemate-parent nitro-enclave nitro-enclaves-allocator || true", "nitro-cli describe-enclaves || true", "journalctl --no-pager --lines=200 --unit casemate-parent --unit nitro-enclave", "uptime", "free -m", "df -h /"]
  }
  name            = "${var.name}-${each.key}"
  document_type   = "Command"
  document_format = "JSON"
  target_type     = "/AWS::EC2::Instance"
  content = jsonencode({
    schemaVersion = "2.2"
    description   = "Casemate: ${each.key}"
    mainSteps     = [{ action = "aws:runShellScript", name = lower(each.key), inputs = { timeoutSeconds = "300", runCommand = concat(["set -u"], each.value) } }]
  })
}

resource "aws_ssm_document" "evict" {
  name            = "${var.name}-Evict"
  document_type   = "Command"
  document_format = "JSON"
  target_type     = "/AWS::EC2::Instance"
  content = jsonencode({
    schemaVersion = "2.2"
    description   = "Casemate: puts one vault out of memory; its next request opens it again"
    parameters    = { Vault = { type = "String", description = "The id of the vault", allowedPattern = "^[a-z2-7]{32}$" } }
    mainSteps     = [{ action = "aws:runShellScript", name = "evict", inputs = { timeoutSeconds = "60", runCommand = ["casemate node evict {{ Vault }}"] } }]
  })
}
