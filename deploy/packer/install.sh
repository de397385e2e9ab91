#!/usr/bin/env bash
# Installs a node from /tmp: run by packer on the instance that becomes the AMI, or by hand on any Amazon Linux 2023.
set -euo pipefail
from=${1:-/tmp}

dnf install -y -q aws-nitro-enclaves-cli ca-certificates
install -D -m 0755 "$from/casemate-parent" /usr/bin/casemate-parent
install -D -m 0755 "$from/casemate" /usr/bin/casemate
install -D -m 0644 "$from/casemate.eif" /usr/lib/casemate/casemate.eif
install -D -m 0644 "$from/casemate.eif.pcrs.json" /usr/lib/casemate/casemate.eif.pcrs.json
install -D -m 0644 "$from/systemd/casemate-parent.service" /usr/lib/systemd/system/casemate-parent.service
install -D -m 0644 "$from/systemd/nitro-enclave.service" /usr/lib/systemd/system/nitro-enclave.service
install -D -m 0644 "$from/systemd/nitro-enclaves-allocator.service.d/casemate.conf" /usr/lib/systemd/system/nitro-enclaves-allocator.service.d/casemate.conf
install -D -m 0644 "$from/systemd/casemate-parent.service.d/nats-credentials.conf" /usr/lib/systemd/system/casemate-parent.service.d/nats-credentials.conf
install -D -m 0644 "$from/systemd/sysusers.d/casemate.conf" /usr/lib/sysusers.d/casemate.conf
install -D -m 0644 "$from/systemd/tmpfiles.d/casemate.conf" /usr/lib/tmpfiles.d/casemate.conf
install -D -m 0644 "$from/systemd/allocator.yaml" /etc/nitro_enclaves/allocator.yaml
systemd-sysusers
systemd-tmpfiles --create casemate.conf
systemctl daemon-reload

# The image is what the AMI is for: what nitro-cli measures must be what was built.
built=$(sed -n -E 's/.*"PCR0": *"([0-9a-f]+)".*/\1/p' /usr/lib/casemate/casemate.eif.pcrs.json)
measured=$(nitro-cli describe-eif --eif-path /usr/lib/casemate/casemate.eif | sed -n -E 's/.*"PCR0": *"([0-9a-f]+)".*/\1/p' | head -n 1)
if [[ -z $built || $built != "$measured" ]]; then
    echo "the image measures $measured and was built as $built: do not use it" >&2
    exit 1
fi
[[ $from != /tmp ]] || rm -rf /tmp/casemate /tmp/casemate-parent /tmp/casemate.eif /tmp/casemate.eif.pcrs.json /tmp/systemd
