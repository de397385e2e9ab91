resource "aws_s3_bucket" "logs" {
  #checkov:skip=CKV_AWS_18:This is the bucket of access logs
  #checkov:skip=CKV_AWS_21:Logs are written once
  #checkov:skip=CKV_AWS_144:Logs are not needed elsewhere
  #checkov:skip=CKV_AWS_145:S3 writes them itself, with its own key
  #checkov:skip=CKV2_AWS_62:Nobody waits for a log
  bucket_prefix = "${var.name}-logs-"
}

resource "aws_s3_bucket_public_access_block" "logs" {
  bucket                  = aws_s3_bucket.logs.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id
  rule {
    id     = "old"
    status = "Enabled"
    filter {}
    expiration { days = 365 }
    abort_incomplete_multipart_upload { days_after_initiation = 1 }
  }
}

resource "aws_s3_bucket_policy" "logs" {
  bucket = aws_s3_bucket.logs.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "AllowS3ToWriteLogs"
        Effect    = "Allow"
        Principal = { Service = "logging.s3.amazonaws.com" }
        Action    = "s3:PutObject"
        Resource  = "${aws_s3_bucket.logs.arn}/*"
        Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
      },
      {
        Sid       = "DenyWithoutTls"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.logs.arn, "${aws_s3_bucket.logs.arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

resource "aws_s3_bucket_logging" "objects" {
  bucket        = aws_s3_bucket.objects.id
  target_bucket = aws_s3_bucket.logs.id
  target_prefix = "objects/"
}

resource "aws_s3_bucket" "objects" {
  #checkov:skip=CKV_AWS_144:What is lost in a region is lost with its nodes; a copy elsewhere is a decision of the operator's
  #checkov:skip=CKV_AWS_145:Objects are sealed before they come here
  #checkov:skip=CKV2_AWS_62:Nobody waits for an object but the node that wrote it
  bucket_prefix = "${var.name}-objects-"

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "objects" {
  bucket = aws_s3_bucket.objects.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "objects" {
  bucket = aws_s3_bucket.objects.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_ownership_controls" "objects" {
  bucket = aws_s3_bucket.objects.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "objects" {
  bucket                  = aws_s3_bucket.objects.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "objects" {
  bucket = aws_s3_bucket.objects.id

  # Each node writes one object here every two seconds.
  rule {
    id     = "health"
    status = "Enabled"
    filter { prefix = "health/" }
    noncurrent_version_expiration { noncurrent_days = 1 }
  }
  rule {
    id     = "history"
    status = "Enabled"
    filter { prefix = "v1/" }
    noncurrent_version_expiration { noncurrent_days = var.kept_days }
  }
  rule {
    id     = "halves"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload { days_after_initiation = 1 }
  }
}

locals {
  bucket = [aws_s3_bucket.objects.arn, "${aws_s3_bucket.objects.arn}/*"]
}

data "aws_iam_policy_document" "bucket" {
  statement {
    sid       = "DenyWithoutTls"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = local.bucket
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
  statement {
    sid       = "DenyObjectsToEverybodyButNodesAndAdministrators"
    effect    = "Deny"
    actions   = ["s3:GetObject*", "s3:PutObject*", "s3:DeleteObject*", "s3:ListBucket*"]
    resources = local.bucket
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "StringNotEquals"
      variable = "aws:PrincipalArn"
      values   = [aws_iam_role.node.arn, var.admin_role_arn]
    }
  }
  statement {
    sid       = "DenyNodesFromOutsideTheirNetwork"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = local.bucket
    principals {
      type        = "AWS"
      identifiers = [aws_iam_role.node.arn]
    }
    condition {
      test     = "StringNotEquals"
      variable = "aws:SourceVpce"
      values   = [aws_vpc_endpoint.s3.id]
    }
  }
  # A node that was taken over may delete; what it deleted can be brought back (runbooks/backup-and-restore.md).
  statement {
    sid       = "DenyNodesToDestroyHistory"
    effect    = "Deny"
    actions   = ["s3:DeleteObjectVersion", "s3:PutBucketVersioning", "s3:PutLifecycleConfiguration", "s3:PutBucketPolicy"]
    resources = local.bucket
    principals {
      type        = "AWS"
      identifiers = [aws_iam_role.node.arn]
    }
  }
}

resource "aws_s3_bucket_policy" "objects" {
  bucket = aws_s3_bucket.objects.id
  policy = data.aws_iam_policy_document.bucket.json
}
