# Makes the AMI of a node: Amazon Linux 2023 with AWS's enclave tools, our two programs, the enclave image and the units. No secret and no
# configuration is in it; deploy/README.md says what to build before.
packer {
  required_version = ">= 1.9"
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3"
    }
  }
}

variable "region" {
  type = string
}

variable "subnet_id" {
  type        = string
  description = "A subnet from which the distribution's packages can be reached; not the nodes'"
}

variable "instance_type" {
  type    = string
  default = "m6i.large"
}

locals {
  root    = "${path.root}/../.."
  stamp   = formatdate("YYYYMMDDhhmmss", timestamp())
  release = jsondecode(file("${local.root}/target/image/casemate.eif.pcrs.json"))
}

source "amazon-ebs" "node" {
  region                      = var.region
  subnet_id                   = var.subnet_id
  instance_type               = var.instance_type
  ami_name                    = "casemate-${local.stamp}"
  ami_description             = "Casemate node"
  ssh_username                = "ec2-user"
  ssh_interface               = "session_manager"
  communicator                = "ssh"
  temporary_iam_instance_profile_policy_document {
    Version = "2012-10-17"
    Statement {
      Effect   = "Allow"
      Action   = ["ssm:UpdateInstanceInformation", "ssmmessages:*"]
      Resource = ["*"]
    }
  }
  encrypt_boot = true
  imds_support = "v2.0"
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  source_ami_filter {
    filters = {
      name                = "al2023-ami-2023.*-kernel-6.1-x86_64"
      virtualization-type = "hvm"
      root-device-type    = "ebs"
    }
    owners      = ["amazon"]
    most_recent = true
  }
  # Whoever has the AMI sees which image it starts.
  tags = {
    Name  = "casemate"
    PCR0  = substr(local.release.PCR0, 0, 64)
    Built = local.stamp
  }
}

build {
  sources = ["source.amazon-ebs.node"]

  provisioner "file" {
    sources     = ["${local.root}/target/bin/casemate-parent", "${local.root}/target/bin/casemate", "${local.root}/target/image/casemate.eif", "${local.root}/target/image/casemate.eif.pcrs.json", "${local.root}/systemd"]
    destination = "/tmp/"
  }
  provisioner "shell" {
    execute_command = "sudo bash -euo pipefail '{{ .Path }}'"
    script          = "${path.root}/install.sh"
  }
}
