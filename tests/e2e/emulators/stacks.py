"""Deploys the templates of deploy/cloudformation into a moto server, as deploy/README.md does, and prints what is there then, as JSON.

Usage: stacks.py ENDPOINT TEMPLATES CURRENT.json [NEXT.json], where the last two hold pcr0 to pcr2.
"""

import json
import pathlib
import sys

import boto3
from cfnlint.decode import cfn_yaml

endpoint, templates, *measured = sys.argv[1:]
region, account = "us-east-1", "123456789012"
admin = f"arn:aws:iam::{account}:role/casemate-admin"
session = boto3.Session("testing", "testing", region_name=region)
client = lambda service: session.client(service, endpoint_url=endpoint)
cloudformation, ec2 = client("cloudformation"), client("ec2")


def deploy(name, **parameters):
    """Creates a stack and gives its outputs."""
    cloudformation.create_stack(
        StackName=f"casemate-{name}" if name != "nodes" else "casemate",
        TemplateBody=pathlib.Path(templates, f"{name}.yaml").read_text(),
        Parameters=[{"ParameterKey": key, "ParameterValue": str(value)} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    stack = cloudformation.describe_stacks(StackName=f"casemate-{name}" if name != "nodes" else "casemate")["Stacks"][0]
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


client("iam").create_role(RoleName="casemate-admin", AssumeRolePolicyDocument="{}")
images = dict(zip(["Current", "Next"], (json.loads(pathlib.Path(path).read_text()) for path in measured)))
pcrs = {f"{name}Pcr{n}": image[f"pcr{n}"] for name, image in images.items() for n in range(3)}
network = deploy("network", S3PrefixList="pl-63a5400a")
key = deploy("key", AdminRoleArn=admin, **pcrs)
storage = deploy("storage", NodeRoleArn=key["NodeRoleArn"], AdminRoleArn=admin, S3EndpointId=network["S3EndpointId"])
nodes = deploy(
    "nodes",
    VpcId=network["VpcId"],
    SubnetIds=network["SubnetIds"],
    NodeSecurityGroupId=network["NodeSecurityGroupId"],
    NodeRoleName=key["NodeRoleName"],
    KeyArn=key["KeyArn"],
    BucketName=storage["BucketName"],
    ImageId=ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"],
    NatsUrl="tls://nats.internal:4222",
    NatsSecretArn=f"arn:aws:secretsmanager:{region}:{account}:secret:nats",
    CertificateArn=client("acm").request_certificate(DomainName="casemate.internal")["CertificateArn"],
)
# moto does not know the full names of targets and balancers, and gives no output of a stack that asks for them.
elbv2 = client("elbv2")
last = lambda arn: arn.split(":")[-1]
target, balancer = elbv2.describe_target_groups()["TargetGroups"][0], elbv2.describe_load_balancers()["LoadBalancers"][0]
watching = deploy(
    "watching",
    GroupName=nodes.get("GroupName", "casemate"),
    TargetGroupName=nodes.get("TargetGroupName", last(target["TargetGroupArn"])),
    BalancerName=nodes.get("BalancerName", last(balancer["LoadBalancerArn"]).removeprefix("loadbalancer/")),
    TopicKeyArn=f"arn:aws:kms:{region}:{account}:key/1",
)



def resolve(value, values):
    """A template's value with its references filled in, as far as alarms and bucket policies use them."""
    if isinstance(value, list):
        return [resolve(item, values) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"Ref"}:
        return values.get(value["Ref"], f"(the {value['Ref']})")
    if set(value) == {"Fn::Sub"}:
        text = value["Fn::Sub"]
        for name, known in values.items():
            text = text.replace("${" + name + "}", str(known))
        return text
    return {key: resolve(item, values) for key, item in value.items()}


def properties(template, kind, values):
    """What a template says of each resource of a kind that moto does not make."""
    resources = cfn_yaml.load(str(pathlib.Path(templates, f"{template}.yaml")))["Resources"]
    return {name: resolve(found["Properties"], values) for name, found in resources.items() if found["Type"] == kind}


values = {"AWS::StackName": "casemate-watching", "GroupName": "casemate", "Nodes": 1}
ssm = client("ssm")
template = ec2.describe_launch_template_versions(LaunchTemplateName="casemate")["LaunchTemplateVersions"][0]
group = client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["casemate"])["AutoScalingGroups"][0]
documents = [document["Name"] for document in ssm.list_documents(Filters=[{"Key": "Owner", "Values": ["Self"]}])["DocumentIdentifiers"]]
read = lambda value: json.loads(value) if isinstance(value, str) else value
print(
    json.dumps(
        {
            "account": account,
            "admin": admin,
            "node_role": key["NodeRoleArn"],
            "key_policy": read(client("kms").get_key_policy(KeyId=key["KeyArn"], PolicyName="default")["Policy"]),
            "launch_template": template["LaunchTemplateData"],
            "group": group,
            "node_rights": client("iam").get_role_policy(RoleName=key["NodeRoleName"], PolicyName="casemate-node")["PolicyDocument"],
            "target": target,
            "endpoints": sorted(found["ServiceName"].rsplit(".", 1)[1] for found in ec2.describe_vpc_endpoints()["VpcEndpoints"]),
            "alarms": properties("watching", "AWS::CloudWatch::Alarm", values),
            "buckets": properties("storage", "AWS::S3::Bucket", {}),
            "bucket_policies": properties("storage", "AWS::S3::BucketPolicy", {}),
            "documents": {name: read(ssm.get_document(Name=name, DocumentFormat="JSON")["Content"]) for name in documents},
        },
        default=str,
    )
)
