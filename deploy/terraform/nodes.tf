resource "aws_iam_role" "node" {
  name = "${var.name}-node"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Principal = { Service = "ec2.amazonaws.com" }, Action = "sts:AssumeRole" }]
  })
}

data "aws_iam_policy_document" "node" {
  #checkov:skip=CKV_AWS_111:PutMetricData and the agent's calls know no resource; the first is bound to its namespace
  #checkov:skip=CKV_AWS_356:As above
  statement {
    sid       = "SealedObjects"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
    resources = ["${aws_s3_bucket.objects.arn}/v1/*", "${aws_s3_bucket.objects.arn}/health/*"]
  }
  statement {
    sid       = "ListSealedObjects"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.objects.arn]
  }
  # With the key's own policy, which asks for evidence as well.
  statement {
    sid       = "ShardKeys"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"]
    resources = [aws_kms_key.shards.arn]
  }
  statement {
    sid       = "Figures"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]
    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = ["Casemate/Enclave"]
    }
  }
  statement {
    sid       = "VerdictOnInstancesOfThisGroup"
    actions   = ["autoscaling:SetInstanceHealth"]
    resources = ["arn:${data.aws_partition.here.partition}:autoscaling:${data.aws_region.here.name}:${local.account}:autoScalingGroup:*:autoScalingGroupName/${var.name}"]
  }
  statement {
    sid       = "NatsCredentials"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [var.nats_secret_arn]
  }
  # What the SSM agent needs to take commands, and no more.
  statement {
    sid = "SsmAgent"
    actions = [
      "ssm:UpdateInstanceInformation",
      "ssm:ListInstanceAssociations",
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }
}

resource "aws_iam_role_policy" "node" {
  name   = "${var.name}-node"
  role   = aws_iam_role.node.id
  policy = data.aws_iam_policy_document.node.json
}

resource "aws_iam_instance_profile" "node" {
  name = "${var.name}-node"
  role = aws_iam_role.node.name
}

resource "aws_launch_template" "node" {
  name                   = var.name
  image_id               = var.image_id
  instance_type          = var.instance_type
  update_default_version = true
  vpc_security_group_ids = [aws_security_group.node.id]

  enclave_options { enabled = true }
  iam_instance_profile { arn = aws_iam_instance_profile.node.arn }
  monitoring { enabled = true }

  # The parent learns from the tags in its metadata to which group it belongs.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "enabled"
  }
  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      encrypted             = true
      volume_type           = "gp3"
      volume_size           = 16
      delete_on_termination = true
    }
  }
  user_data = base64encode(templatefile("${path.module}/user-data.sh.tftpl", {
    shards          = var.shards
    nats_url        = var.nats_url
    nats_secret_arn = var.nats_secret_arn
    bucket          = aws_s3_bucket.objects.id
    key_arn         = aws_kms_key.shards.arn
    region          = data.aws_region.here.name
    cpus            = var.enclave_cpus
    memory_mib      = var.enclave_memory_mib
    vault_limit     = var.vault_limit
  }))
}

resource "aws_autoscaling_group" "node" {
  name                = var.name
  min_size            = 1
  max_size            = 1 # an instance that is replaced must have ended before the next one takes its shards
  vpc_zone_identifier = aws_subnet.node[*].id
  target_group_arns   = [aws_lb_target_group.pages.arn]

  # EC2, and never ELB: the load balancer takes nodes out for an outage of NATS too, and the group would replace them all for it.
  health_check_type         = "EC2"
  health_check_grace_period = 600

  launch_template {
    id      = aws_launch_template.node.id
    version = aws_launch_template.node.latest_version
  }
  tag {
    key                 = "Name"
    value               = "casemate"
    propagate_at_launch = true
  }
}

resource "aws_lb" "pages" {
  #checkov:skip=CKV_AWS_91:Its requests are health checks and public evidence; the nodes count them
  name                       = var.name
  internal                   = true
  load_balancer_type         = "application"
  subnets                    = aws_subnet.node[*].id
  security_groups            = [aws_security_group.balancer.id]
  drop_invalid_header_fields = true
  enable_deletion_protection = true
}

resource "aws_lb_listener" "pages" {
  load_balancer_arn = aws_lb.pages.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn
  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.pages.arn
  }
}

resource "aws_lb_target_group" "pages" {
  name                 = var.name
  vpc_id               = aws_vpc.this.id
  protocol             = "HTTP"
  port                 = 8080
  deregistration_delay = 70

  health_check {
    path                = "/vault/health"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
    matcher             = "200"
  }
}
