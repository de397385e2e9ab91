# The policy is deploy/kms-key-policy.json, filled in. A measurement stands in it as text; with two images, each such text becomes a list.
locals {
  account = data.aws_caller_identity.here.account_id
  filled = replace(replace(replace(
    file("${path.module}/../kms-key-policy.json"),
    "$${ENCLAVE_ROLE_ARN}", aws_iam_role.node.arn),
    "$${ADMIN_ROLE_ARN}", var.admin_role_arn),
  "$${ACCOUNT}", local.account)
  policy = replace(replace(replace(
    local.filled,
    "\"$${PCR0}\"", jsonencode(var.measurements[*].pcr0)),
    "\"$${PCR1}\"", jsonencode(var.measurements[*].pcr1)),
  "\"$${PCR2}\"", jsonencode(var.measurements[*].pcr2))
}

resource "aws_kms_key" "shards" {
  description             = "Casemate shard keys"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = local.policy
  # If the administrators' role is lost, only AWS support can change this policy: nobody has kms:*.
  bypass_policy_lockout_safety_check = false

  lifecycle {
    prevent_destroy = true
  }
}
