//! The metadata service of an instance, and the permissions of its credentials.

use local_cloud::addresses::METADATA_PORT;
use serde_json::Value;

use crate::support::{Aws, Instance, code, launched, profile};

struct Metadata(reqwest::Client, String);

impl Metadata {
    fn of(instance: &Instance) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self(client, format!("http://{}:{METADATA_PORT}/latest", instance.address))
    }

    async fn token(&self) -> String {
        let request = self.0.put(format!("{}/api/token", self.1));
        let response = request.header("x-aws-ec2-metadata-token-ttl-seconds", "60").send().await;
        response.and_then(reqwest::Response::error_for_status).expect("a token").text().await.expect("text")
    }

    async fn get(&self, token: &str, path: &str) -> (u16, String) {
        let request = self.0.get(format!("{}/{path}", self.1)).header("x-aws-ec2-metadata-token", token);
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("text"))
    }
}

/// Returns clients with an instance's credentials of its role.
pub(crate) async fn aws_of(instance: &Instance, role: &str) -> Aws {
    let metadata = Metadata::of(instance);
    let token = metadata.token().await;
    let (_, text) = metadata.get(&token, &format!("meta-data/iam/security-credentials/{role}")).await;
    let key: Value = serde_json::from_str(&text).expect("JSON");
    let field = |name: &str| key[name].as_str().expect(name).to_owned();
    Aws::with_key((&field("AccessKeyId"), &field("SecretAccessKey"), Some(&field("Token"))))
}

#[tokio::test]
async fn an_instance_learns_about_itself() {
    let aws = Aws::new();
    let network = aws.network().await;
    let instance = launched(aws.launch(&network)).await;
    let metadata = Metadata::of(&instance);
    let token = metadata.token().await;
    let zone = aws.describe(&instance.id).await;
    let zone = zone.placement().and_then(|placement| placement.availability_zone()).expect("a zone");
    for (path, value) in [
        ("meta-data/instance-id", instance.id.as_str()),
        ("meta-data/local-ipv4", &instance.address.to_string()),
        ("meta-data/placement/availability-zone", zone),
        ("meta-data/placement/region", "us-east-1"),
        ("meta-data/instance-type", "t3.micro"),
        ("meta-data/ami-id", "ami-12345678"),
    ] {
        assert_eq!(metadata.get(&token, path).await, (200, value.to_owned()), "{path}");
    }
    let without_role = metadata.get(&token, "meta-data/iam/security-credentials/").await;
    assert_eq!(without_role.0, 404);
}

#[tokio::test]
async fn without_a_token_nothing_is_said() {
    let aws = Aws::new();
    let network = aws.network().await;
    let instance = launched(aws.launch(&network)).await;
    let metadata = Metadata::of(&instance);
    let bare =
        metadata.0.get(format!("{}/meta-data/instance-id", metadata.1)).send().await.expect("an answer");
    assert_eq!(bare.status(), 401);
    assert_eq!(metadata.get("another", "meta-data/instance-id").await.0, 401);
    let no_ttl = metadata.0.put(format!("{}/api/token", metadata.1)).send().await.expect("an answer");
    assert_eq!(no_ttl.status(), 400);
}

#[tokio::test]
async fn credentials_last_as_long_as_the_instance() {
    let aws = Aws::new();
    let network = aws.network().await;
    aws.profile("lasting").await;
    let instance = launched(aws.launch(&network).iam_instance_profile(profile("lasting"))).await;
    let metadata = Metadata::of(&instance);
    let token = metadata.token().await;
    let path = "meta-data/iam/security-credentials";
    assert_eq!(metadata.get(&token, &format!("{path}/")).await, (200, "lasting".to_owned()));
    assert_eq!(metadata.get(&token, &format!("{path}/other")).await.0, 404);
    let (_, text) = metadata.get(&token, &format!("{path}/lasting")).await;
    let key: Value = serde_json::from_str(&text).expect("JSON");
    let field = |name: &str| key[name].as_str().expect(name).to_owned();
    let (access, secret, session) = (field("AccessKeyId"), field("SecretAccessKey"), field("Token"));

    let role = Aws::with_key((&access, &secret, Some(&session)));
    role.s3.list_buckets().send().await.expect("accepted");
    let wrong = Aws::with_key((&access, "wrong", Some(&session)));
    assert_eq!(code(wrong.s3.list_buckets().send().await), "SignatureDoesNotMatch");
    let (_, again) = metadata.get(&token, &format!("{path}/lasting")).await;
    assert!(again.contains(&access), "a second key was issued: {again}");

    aws.terminate(&instance.id).await;
    aws.shows(&instance.id, "powered off").await;
    crate::support::eventually("the key is refused", async || match role.s3.list_buckets().send().await {
        Err(_) => Ok(()),
        Ok(_) => Err("it is accepted".to_owned()),
    })
    .await;
    assert_eq!(code(role.s3.list_buckets().send().await), "InvalidAccessKeyId");
}
