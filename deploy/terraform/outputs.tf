output "key_arn" {
  description = "trust.kms_key_arn: a cluster is named after it"
  value       = aws_kms_key.shards.arn
}

output "bucket" {
  value = aws_s3_bucket.objects.id
}

output "group" {
  value = aws_autoscaling_group.node.name
}

output "topic_arn" {
  description = "Subscribe whoever is on call"
  value       = aws_sns_topic.alarms.arn
}
