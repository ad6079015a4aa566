//! The parts of the local cloud that the story needs: the user data given to EC2, an address with a metadata
//! service for a machine, and programs in S3.

use std::net::Ipv4Addr;

use aws_sdk_ec2::types::Instance;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::Cloud;

/// The port of an instance's metadata service on the local cloud.
const METADATA_PORT: u16 = 1338;

/// An instance that EC2 knows and that runs nothing, so that a machine can take its place: it has an id, an
/// address, a role, and a metadata service that returns them.
pub(crate) struct Place {
    pub(crate) instance: String,
    pub(crate) address: Ipv4Addr,
}

impl Place {
    /// `spec` is the part of the release that defines such an instance.
    pub(crate) fn take(cloud: &Cloud, spec: &Value) -> Self {
        let field = |path: &str| spec.pointer(path).and_then(Value::as_str).expect("a field of the release");
        let launched = cloud.aws(&[
            "ec2",
            "run-instances",
            "--image-id",
            field("/ami"),
            "--instance-type",
            field("/instance_type"),
            "--subnet-id",
            field("/subnets/0/id"),
            "--security-group-ids",
            field("/security_group"),
            "--iam-instance-profile",
            &format!("Name={}", field("/instance_profile")),
            "--query",
            "Instances[0].[InstanceId,PrivateIpAddress]",
        ]);
        let (instance, address) = launched.split_once(char::is_whitespace).expect("an id and an address");
        Self { instance: instance.to_owned(), address: address.trim().parse().expect("an IPv4 address") }
    }

    /// The metadata service and S3 have other addresses than on AWS.
    pub(crate) fn environment(&self, cloud: &Cloud) -> Vec<(&'static str, String)> {
        let metadata = format!("http://{}:{METADATA_PORT}", self.address);
        vec![("AWS_ENDPOINT_URL", cloud.endpoint.clone()), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata)]
    }
}

pub(crate) fn release(cloud: &Cloud, stack: &str) -> Value {
    let object = format!("s3://{}/fleet/release.json", control_bucket(stack));
    serde_json::from_str(&cloud.aws(&["s3", "cp", "--quiet", &object, "-"])).expect("the release is JSON")
}

/// Returns the user data of the stack's running instance with this role, from EC2.
pub(crate) fn user_data(cloud: &Cloud, stack: &str, role: &str) -> String {
    let ids = cloud.instances_of(stack, role, "running", Instance::instance_id);
    let id = ids.first().expect("one runs");
    let encoded = cloud.aws(&[
        "ec2",
        "describe-instance-attribute",
        "--instance-id",
        id,
        "--attribute",
        "userData",
        "--query",
        "UserData.Value",
    ]);
    String::from_utf8(STANDARD.decode(encoded).expect("EC2 gives base64")).expect("our user data is text")
}

pub(crate) fn control_bucket(stack: &str) -> String {
    format!("vigia-{stack}-control-000000000000-us-east-1")
}

/// A program in S3, which can be replaced by another of the same name and put back.
pub(crate) struct Artifact<'a> {
    cloud: &'a Cloud,
    object: String,
    original: String,
}

impl<'a> Artifact<'a> {
    /// The service that this user data names.
    pub(crate) fn of(cloud: &'a Cloud, stack: &str, user_data: &str) -> Self {
        let setting = |name| bootstrap::user_data::setting(user_data, name).expect("the user data has it");
        let key = format!("artifacts/{}/{}", setting("VIGIA_SHA256"), setting("VIGIA_PROGRAM"));
        let object = format!("s3://{}/{key}", control_bucket(stack));
        let original = cloud.dir.path().join("original").to_string_lossy().into_owned();
        cloud.aws(&["s3", "cp", "--quiet", &object, &original]);
        Self { cloud, object, original }
    }

    pub(crate) fn replace(&self, content: &str) {
        let other = self.cloud.dir.path().join("other").to_string_lossy().into_owned();
        std::fs::write(&other, content).expect("writable");
        self.cloud.aws(&["s3", "cp", "--quiet", &other, &self.object]);
    }

    pub(crate) fn put_back(&self) {
        self.cloud.aws(&["s3", "cp", "--quiet", &self.original, &self.object]);
    }
}
