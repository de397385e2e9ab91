variable "name" {
  description = "Name of everything that is made"
  type        = string
  default     = "casemate"
}

variable "vpc_cidr" {
  description = "Addresses of the network"
  type        = string
  default     = "10.42.0.0/16"
}

variable "nats_cidr" {
  description = "Where the NATS servers are, seen from this network"
  type        = string
  default     = "10.42.0.0/16"
}

variable "admin_role_arn" {
  description = "The role that manages the key without using it; it must exist and be the one that applies this"
  type        = string

  validation {
    condition     = can(regex("^arn:aws(-us-gov)?:iam::[0-9]{12}:role/", var.admin_role_arn))
    error_message = "An ARN of a role in full, such as arn:aws:iam::111122223333:role/casemate-admin."
  }
}

variable "measurements" {
  description = "PCR0 to PCR2 of the image that runs and, during an upgrade, of the one that is to follow: casemate.eif.pcrs.json"
  type        = list(object({ pcr0 = string, pcr1 = string, pcr2 = string }))

  validation {
    condition     = length(var.measurements) >= 1 && length(var.measurements) <= 2
    error_message = "One image, or two during an upgrade."
  }
  validation {
    condition     = alltrue([for m in var.measurements : alltrue([for pcr in [m.pcr0, m.pcr1, m.pcr2] : can(regex("^[0-9a-f]{96}$", pcr)) && pcr != join("", [for _ in range(96) : "0"])])])
    error_message = "96 hex digits each, and not zero: zero is what every enclave in debug mode measures."
  }
}

variable "image_id" {
  description = "The AMI that deploy/packer made"
  type        = string
}

variable "instance_type" {
  description = "Any Nitro type with enclaves and at least four virtual CPUs"
  type        = string
  default     = "m6i.xlarge"
}

variable "enclave_cpus" {
  type    = number
  default = 2
}

variable "enclave_memory_mib" {
  type    = number
  default = 8192
}

variable "vault_limit" {
  description = "See runbooks/capacity-planning.md"
  type        = number
  default     = 5000
}

variable "shards" {
  description = "node.shards, such as all or 00-7f"
  type        = string
  default     = "all"
}

variable "nats_url" {
  description = "tls://HOST:4222, several with commas"
  type        = string
}

variable "nats_secret_arn" {
  description = "The Secrets Manager secret that holds this cluster's nats.creds"
  type        = string
}

variable "certificate_arn" {
  description = "The load balancer's certificate in ACM"
  type        = string
}

variable "topic_key_arn" {
  description = "A KMS key with which the alarms' topic is encrypted; not the vaults'"
  type        = string
}

variable "kept_days" {
  description = "How long an object is kept after it was deleted or overwritten"
  type        = number
  default     = 35
}
