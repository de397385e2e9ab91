"""CloudWatch as LocalStack has it, on one loopback port: stores figures, evaluates alarms. Usage: cloudwatch.py PORT FOLDER"""

import os
import sys

port, folder = sys.argv[1:]
os.environ.update(
    GATEWAY_LISTEN=f"127.0.0.1:{port}",
    SERVICES="cloudwatch,sts",
    DISABLE_EVENTS="1",
    SKIP_SSL_CERT_DOWNLOAD="1",
    DNS_ADDRESS="0",
    # Two of them at once would empty each other's.
    TMPDIR=folder,
    FILESYSTEM_ROOT=folder,
    LOCALSTACK_VOLUME_DIR=f"{folder}/volume",
)

# It binds every interface, whatever GATEWAY_LISTEN says.
from twisted.internet import endpoints

everywhere = endpoints.TCP4ServerEndpoint
endpoints.TCP4ServerEndpoint = lambda reactor, port, **rest: everywhere(reactor, port, **(rest | {"interface": "127.0.0.1"}))

from localstack.runtime.main import main

main()
