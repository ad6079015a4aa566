//! The objects of the control bucket, read and written by compare-and-swap: desired count, release. Secrets are in
//! `secrets.rs`.

use ::aws::bucket::whole;
use aws_sdk_s3::primitives::ByteStream;
use fleet::aws_code::AwsErrorKind;
use fleet::release::{Credits, InstanceSpec, Market, Release, Rollout};
use fleet::{DesiredCount, Profile, StackName, keys};
use serde::de::DeserializeOwned;

use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::part::{Part, RunMode};

/// Desired count of a new stack without --workers.
const FIRST_COUNT: u32 = 3;

/// Four times the largest document that has readers: an operator may have made one by hand.
const MAX_BYTES: usize = 4 * fleet::memory::Memory::MAX_BYTES;

pub struct Object {
    pub bytes: Vec<u8>,
    pub etag: String,
}

pub async fn read(aws: &Aws, key: &str) -> Result<Option<Object>> {
    read_from(aws, &aws.names.control_bucket(), key).await
}

/// Reads a JSON object of the control bucket.
pub async fn read_as<T: DeserializeOwned>(aws: &Aws, key: &str) -> Result<Option<T>> {
    let Some(object) = read(aws, key).await? else { return Ok(None) };
    serde_json::from_slice(&object.bytes).map(Some).map_err(|error| {
        DeployError::new(Exit::Failed, format!("{key} in {} cannot be read", aws.names.control_bucket()))
            .caused_by(error)
    })
}

async fn read_from(aws: &Aws, bucket: &str, key: &str) -> Result<Option<Object>> {
    let got = aws.s3.get_object().bucket(bucket).key(key).send().await;
    let Some(got) = found(got.step(|| format!("read {key} from {bucket}")))? else { return Ok(None) };
    let etag = got.e_tag().unwrap_or_default().to_owned();
    let failed = || {
        DeployError::new(Exit::Unreachable, format!("could not read {key} from {bucket}"))
            .hint("Check the network, then run this again.")
    };
    let within = aws.patience.for_a_body();
    let bytes = whole(got.body, MAX_BYTES, within).await.map_err(|why| failed().caused_by(why))?;
    if bytes.len() > MAX_BYTES {
        let why = format!("it has more than {} MiB, so it is not a document of Vigia's", MAX_BYTES >> 20);
        return Err(failed().caused_by(why));
    }
    Ok(Some(Object { bytes, etag }))
}

/// Overwrites the version that was read: `etag` is that of the object seen, `None` if there was none.
pub async fn write(aws: &Aws, key: &str, bytes: Vec<u8>, etag: Option<&str>) -> Result<()> {
    put_over(aws, &aws.names.control_bucket(), key, bytes, etag).await
}

/// Writes an object under a condition. S3 refuses a write with 412 if the condition does not hold, which is
/// an answer. It refuses with 409 while another write is in progress, which says nothing of the outcome, so
/// that is tried again.
async fn put_over(aws: &Aws, bucket: &str, key: &str, bytes: Vec<u8>, etag: Option<&str>) -> Result<()> {
    let written = async || {
        let put = aws.s3.put_object().bucket(bucket).key(key).body(ByteStream::from(bytes.clone()));
        let put = match etag {
            Some(etag) => put.if_match(etag),
            None => put.if_none_match("*"),
        };
        put.send().await.step(|| format!("write {key}"))
    };
    match aws.patience.depends_on(bucket, written).await {
        Ok(_) => Ok(()),
        // A write whose reply was lost is repeated, and then finds its own object.
        Err(error) if error.kind == AwsErrorKind::Conflict => {
            let now = read_from(aws, bucket, key).await?;
            if now.is_some_and(|object| object.bytes == bytes) { Ok(()) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}

/// The profile of the users in a data bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// No worker has started on it yet.
    Missing,
    Profile(Profile),
    Migrating,
    Unknown,
}

/// Returns the marker and the ETag of its object.
pub async fn marker(aws: &Aws) -> Result<(Marker, String)> {
    let seen = read_from(aws, &aws.names.data_bucket(), keys::PROFILE_MARKER).await?;
    let Some(object) = seen else { return Ok((Marker::Missing, String::new())) };
    let text = String::from_utf8_lossy(&object.bytes);
    let marker = match text.trim() {
        keys::MIGRATING => Marker::Migrating,
        text => text.parse().map_or(Marker::Unknown, Marker::Profile),
    };
    Ok((marker, object.etag))
}

/// Changes the marker that was seen with this ETag.
pub async fn write_marker(aws: &Aws, text: &str, seen: &str) -> Result<()> {
    let bytes = text.as_bytes().to_vec();
    put_over(aws, &aws.names.data_bucket(), keys::PROFILE_MARKER, bytes, Some(seen)).await
}

/// Returns the profile to deploy. A data bucket with users has a profile, and no worker of another profile
/// would start on it: better to say so here than after minutes of waiting.
///
/// In the first 15 minutes of the data bucket's versioning, S3 may not show a marker that workers have
/// written. The release, in a bucket without versions, then tells the profile.
pub async fn profile(aws: &Aws, wanted: Option<Profile>, before: Option<&Release>) -> Result<Profile> {
    choose_profile(&aws.names.stack, wanted, marker(aws).await?.0, before.map(|before| before.profile))
}

fn choose_profile(
    stack: &StackName,
    wanted: Option<Profile>,
    marker: Marker,
    before: Option<Profile>,
) -> Result<Profile> {
    match (wanted, marker) {
        (_, Marker::Migrating) => Err(DeployError::new(
            Exit::Failed,
            format!("`migrate-profile` has converted only some users of stack {stack}"),
        )
        .hint("Run `make migrate-profile` until it finishes, then deploy again.")),
        (Some(wanted), Marker::Profile(marked)) if wanted != marked => {
            let what = format!("the users of stack {stack} belong to the profile {marked}, not {wanted}");
            let hint = match wanted {
                Profile::Secure => {
                    "`make scale N=0`, then `make migrate-profile`, turns them into secure ones."
                }
                Profile::Classic => {
                    "Secure users cannot become classic ones. Choose another stack (make: STACK=…), or remove \
                     this one with its users first: `make destroy`, on the local cloud `make local-reset`."
                }
            };
            Err(DeployError::new(Exit::Usage, what).hint(hint))
        }
        (_, Marker::Profile(marked)) => Ok(marked),
        (wanted, Marker::Missing | Marker::Unknown) => Ok(wanted.or(before).unwrap_or(Profile::Secure)),
    }
}

/// Sets the count if one is given; otherwise an existing count stays.
pub async fn ensure_desired(
    aws: &Aws,
    mode: RunMode,
    wanted: Option<DesiredCount>,
) -> Result<(Part, DesiredCount)> {
    for _ in 0..5 {
        let seen = read(aws, keys::DESIRED_COUNT).await?;
        let current = seen.as_ref().map(|object| DesiredCount::from_object(&object.bytes));
        let target = match (wanted, &current) {
            (Some(wanted), _) => wanted,
            (None, Some(Ok(current))) => *current,
            (None, _) => DesiredCount::try_from(FIRST_COUNT).expect("the first count is within bounds"),
        };
        let what = "desired count";
        let part = match &current {
            None => Part::created(what),
            Some(Ok(current)) if *current == target => Part::unchanged(what),
            Some(Ok(current)) => Part::compared(what, vec![format!("{target} instead of {current}")]),
            Some(Err(error)) => Part::compared(what, vec![format!("{target}, because {error}")]),
        };
        if !mode.applies(&part) {
            return Ok((part, target));
        }
        let etag = seen.as_ref().map(|object| object.etag.as_str());
        match write(aws, keys::DESIRED_COUNT, format!("{target}\n").into_bytes(), etag).await {
            Ok(()) => return Ok((part, target)),
            // Another writer set it since, or the reply was lost: look again.
            Err(error) if error.kind == AwsErrorKind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
    Err(DeployError::new(Exit::Failed, "desired-count keeps changing while this command writes it")
        .hint("Try again."))
}

/// Returns the last deployed release. An unreadable release counts as none and is replaced.
pub async fn release(aws: &Aws) -> Result<Option<Release>> {
    let seen = read(aws, keys::RELEASE).await?;
    Ok(seen.and_then(|object| serde_json::from_slice(&object.bytes).ok()))
}

/// Returns the differences that a deployment of `release` makes.
pub fn compare_release(before: Option<&Release>, release: &Release) -> Part {
    let what = "release";
    let Some(before) = before else { return Part::created(what) };
    let mut differs = instance_differs("workers", &before.worker, &release.worker);
    if (&before.profile, &before.version) != (&release.profile, &release.version) {
        differs.push("workers: profile or version".to_owned());
    }
    if before.rollout != release.rollout {
        differs.push(
            match release.rollout {
                Rollout::SurgeFirst => "rollout: an extra worker first",
                Rollout::StopFirst => "rollout: stops one worker first",
            }
            .to_owned(),
        );
    }
    match (&before.balancer, &release.balancer) {
        (Some(before), Some(now)) => {
            differs.extend(instance_differs("load balancer", &before.instance, &now.instance));
            if before.allocation != now.allocation {
                differs.push("load balancer: address".to_owned());
            }
            if before.more_allocations != now.more_allocations {
                differs.push("further load balancers".to_owned());
            }
        }
        (before, now) if before != now => differs.push("load balancer".to_owned()),
        _ => {}
    }
    Part::compared(what, differs)
}

fn instance_differs(of: &str, before: &InstanceSpec, now: &InstanceSpec) -> Vec<String> {
    let mut differs = Vec::new();
    let mut compare = |what: &str, before: &str, now: &str| {
        if before != now {
            differs.push(format!("{of}: {what} {now} instead of {before}"));
        }
    };
    compare("image", &before.ami, &now.ami);
    compare("type", &before.instance_type, &now.instance_type);
    compare("security group", &before.security_group, &now.security_group);
    compare("instance profile", &before.instance_profile, &now.instance_profile);
    if before.subnets != now.subnets {
        differs.push(format!("{of}: subnets"));
    }
    if before.market != now.market {
        differs.push(format!(
            "{of}: {}",
            match now.market {
                Market::OnDemand => "on demand instead of spot",
                Market::Spot => "spot instead of on demand",
            }
        ));
    }
    if before.credits != now.credits {
        differs.push(format!(
            "{of}: {}",
            match now.credits {
                Credits::Standard => "standard CPU credits instead of unlimited",
                Credits::Unlimited => "unlimited CPU credits instead of standard",
            }
        ));
    }
    if before.user_data != now.user_data {
        differs.push(format!("{of}: program or its settings"));
    }
    differs
}

/// Writes the release over the existing one, unless they are the same.
pub async fn write_release(aws: &Aws, release: &Release) -> Result<()> {
    let text = fleet::document::encode(keys::RELEASE, release, Release::MAX_BYTES).map_err(|too_large| {
        DeployError::new(Exit::Failed, too_large.to_string())
            .hint("The user data of an instance is too long. Pass fewer or shorter settings.")
    })?;
    let seen = read(aws, keys::RELEASE).await?;
    if seen.as_ref().is_some_and(|object| object.bytes == text) {
        return Ok(());
    }
    write(aws, keys::RELEASE, text, seen.as_ref().map(|object| object.etag.as_str())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_not_yet_visible_in_s3_keeps_the_profile() {
        let stack: StackName = "a".parse().expect("valid");
        let chosen = |wanted, marker, before| {
            choose_profile(&stack, wanted, marker, before).expect("nothing contradicts")
        };
        assert_eq!(chosen(None, Marker::Missing, Some(Profile::Classic)), Profile::Classic);
        assert_eq!(chosen(None, Marker::Missing, None), Profile::Secure);
        assert_eq!(chosen(None, Marker::Profile(Profile::Classic), Some(Profile::Secure)), Profile::Classic);
    }

    #[tokio::test]
    async fn the_release_tells_the_profile_while_s3_shows_no_marker() {
        const MARKER: &str = "GET /vigia-a-data-123456789012-eu-west-1/meta/profile";
        let stub =
            crate::aws::stub::Stub::default().says(MARKER, 404, "<Error><Code>NoSuchKey</Code></Error>");
        let aws = stub.serve().await;
        let spec = crate::resources::instance::example();
        let before = Release::new(aws.names.stack.clone(), Profile::Classic, "1".to_owned(), spec);
        assert_eq!(profile(&aws, None, Some(&before)).await.expect("it is known"), Profile::Classic);
    }

    #[tokio::test]
    async fn a_write_whose_reply_was_lost_finds_its_own_object() {
        const PUT: &str = "PUT /vigia-a-control-123456789012-eu-west-1/desired-count";
        const GET: &str = "GET /vigia-a-control-123456789012-eu-west-1/desired-count";
        let refused = "<Error><Code>PreconditionFailed</Code></Error>";
        for (there, is_ours) in [("3", true), ("4", false)] {
            let stub = crate::aws::stub::Stub::default().says(PUT, 412, refused).says(GET, 200, there);
            let written = write(&stub.serve().await, keys::DESIRED_COUNT, b"3".to_vec(), None).await;
            assert_eq!(written.is_ok(), is_ours, "{there}");
        }
    }

    #[tokio::test]
    async fn a_count_is_written_over_a_faster_change() {
        const PUT: &str = "PUT /vigia-a-control-123456789012-eu-west-1/desired-count";
        const GET: &str = "GET /vigia-a-control-123456789012-eu-west-1/desired-count";
        let stub = crate::aws::stub::Stub::default()
            .says(GET, 200, "3")
            .says(PUT, 412, "<Error><Code>PreconditionFailed</Code></Error>")
            .says(GET, 200, "4")
            .says(PUT, 200, "");
        let five = DesiredCount::try_from(5).expect("within bounds");
        let ensured = ensure_desired(&stub.serve().await, RunMode::Apply, Some(five)).await;
        assert_eq!(ensured.expect("written").0.differs, ["5 instead of 4"]);
        assert_eq!(stub.count(PUT), 2);
    }

    /// The error of reading an object of which S3 says this, and no more.
    async fn error_of(head: String, body: Vec<u8>) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut aws =
            crate::aws::stub::client(&format!("http://{}", listener.local_addr().expect("an address")));
        aws.patience = crate::patience::Patience::at_most(Some(1));
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            drop(stream.read(&mut [0; 4096]).await);
            drop(stream.write_all(head.as_bytes()).await);
            drop(stream.write_all(&body).await);
            std::future::pending::<()>().await
        };
        tokio::select! {
            read = read(&aws, keys::STATE) => read.map(|_| ()).expect_err("there is no whole object").message(),
            () = server => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_body_that_stalls_or_has_no_end_is_an_error() {
        let head = |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        let stalled = error_of(head(100), b"{".to_vec()).await;
        assert!(stalled.contains("S3 sent no whole body within 1 s"), "{stalled}");
        let endless = error_of(head(usize::MAX / 2), vec![b' '; MAX_BYTES + 1]).await;
        assert!(endless.contains("it has more than 4 MiB"), "{endless}");
    }
}
