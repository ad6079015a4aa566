//! The calls to S3: reads all users, converts them, and deletes their remaining plain text.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::aws::bucket::whole;
use accounts::{Arena, Cost, Password, Record, phc};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ObjectIdentifier;
use fleet::aws_code::AwsErrorKind;
use fleet::keys::USERS_PREFIX;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::judge::{self, Candidate, Judged, MAX_BYTES, Step};
use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::output::Progress;
use crate::resources::bucket::{self, Contents};

/// Calls to S3 at once: enough to keep the cores busy with hashing, few enough for any S3.
const CALLS: usize = 16;
/// Interval of the progress lines.
const SAID_EVERY: Duration = Duration::from_secs(5);

/// S3 metadata of a converted object, in addition to the worker's nonce. A worker's next write drops them.
const MIGRATED: &str = "migrated";
const MIGRATED_FROM: &str = "migrated-from";
const NONCE: &str = "nonce";

pub(super) struct Users<'a> {
    aws: &'a Aws,
    bucket: String,
}

impl<'a> Users<'a> {
    pub(super) fn new(aws: &'a Aws) -> Self {
        Self { aws, bucket: Contents::Users.bucket(aws) }
    }

    /// Reads every object below `users/` and judges each by itself.
    pub(super) async fn judge_all(&self, progress: &Progress) -> Result<Vec<(String, Judged)>> {
        let keys = self.keys().await?;
        let mut tally = Tally::new("read", keys.len());
        let mut judged = Vec::with_capacity(keys.len());
        let mut reads = stream::iter(keys).map(|key| self.judge(key)).buffer_unordered(CALLS);
        while let Some(read) = reads.next().await {
            judged.extend(read?);
            tally.one_more(progress);
        }
        judged.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(judged)
    }

    async fn keys(&self) -> Result<Vec<String>> {
        let mut pages =
            self.aws.s3.list_objects_v2().bucket(&self.bucket).prefix(USERS_PREFIX).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.step(|| format!("list {}", self.bucket))?;
            keys.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| object.key));
        }
        Ok(keys)
    }

    async fn judge(&self, key: String) -> Result<Option<(String, Judged)>> {
        let Some(object) = self.get(&key).await? else { return Ok(None) };
        let judged = match converted_from(object.metadata()) {
            Some(from) => Judged::Converted { from },
            None => judge::judge(&key, &self.content(&key, object).await?),
        };
        Ok(Some((key, judged)))
    }

    async fn get(&self, key: &str) -> Result<Option<GetObjectOutput>> {
        let got = self.aws.s3.get_object().bucket(&self.bucket).key(key).send().await;
        found(got.step(|| format!("read {key}")))
    }

    /// Returns the content, or only its beginning if it is too long for a password.
    async fn content(&self, key: &str, object: GetObjectOutput) -> Result<Vec<u8>> {
        let failed = || {
            DeployError::new(Exit::Unreachable, format!("could not read {key}"))
                .hint("Check the network, then run this again.")
        };
        whole(object.body, MAX_BYTES, self.aws.patience.for_a_body())
            .await
            .map_err(|why| failed().caused_by(why))
    }

    pub(super) async fn convert(&self, candidates: Vec<Candidate>, progress: &mut Progress) -> Result<()> {
        progress.begin("passwords");
        let mut tally = Tally::new("converted", candidates.len());
        let hasher = Hasher::new();
        let mut conversions = stream::iter(candidates)
            .map(|candidate| self.convert_one(candidate, &hasher))
            .buffer_unordered(CALLS);
        while conversions.try_next().await?.is_some() {
            tally.one_more(progress);
        }
        drop(conversions);
        progress.end_with(&format!("{} converted", tally.done));
        Ok(())
    }

    async fn convert_one(&self, candidate: Candidate, hasher: &Hasher) -> Result<()> {
        match candidate.step {
            Step::Convert => self.write_secure(&candidate, hasher).await?,
            Step::DeleteOld => {}
        }
        if candidate.target() != candidate.key {
            let deleted = self.aws.s3.delete_object().bucket(&self.bucket).key(&candidate.key).send().await;
            found(deleted.step(|| format!("delete {}", candidate.key)))?;
        }
        Ok(())
    }

    async fn write_secure(&self, candidate: &Candidate, hasher: &Hasher) -> Result<()> {
        let (key, target) = (&candidate.key, candidate.target());
        let changed = || {
            DeployError::new(Exit::Failed, format!("{key} changes while this command converts it"))
                .hint("Stop the program that writes into the bucket of users, then run this again.")
        };
        let object = self.get(key).await?.ok_or_else(changed)?;
        let etag = object.e_tag().unwrap_or_default().to_owned();
        let password = judge::password(&self.content(key, object).await?).map_err(|_| changed())?;
        let phc = hasher.hash(password).await?;
        let record = Record::new(&candidate.login, phc, Timestamp::now());
        let put = self
            .aws
            .s3
            .put_object()
            .bucket(&self.bucket)
            .key(&target)
            .content_type("application/json")
            .metadata(NONCE, &record.nonce)
            .metadata(MIGRATED, "1")
            .metadata(MIGRATED_FROM, key)
            .body(ByteStream::from(record.to_json()));
        let put = if target == *key { put.if_match(etag) } else { put.if_none_match("*") };
        match put.send().await.step(|| format!("write {target}")) {
            Ok(_) => Ok(()),
            // The SDK repeats a write whose reply was lost, and then its own object refuses the second try.
            Err(error) if error.kind == AwsErrorKind::Conflict && self.is_ours(&target, &record).await? => {
                Ok(())
            }
            Err(error) if error.kind == AwsErrorKind::Conflict => Err(changed().caused_by(error)),
            Err(error) => Err(error),
        }
    }

    async fn is_ours(&self, key: &str, record: &Record) -> Result<bool> {
        let object = self.get(key).await?;
        let nonce = object.as_ref().and_then(|object| object.metadata()?.get(NONCE));
        Ok(nonce == Some(&record.nonce))
    }

    /// Deletes all old versions below `users/`, also those of deleted users.
    ///
    /// Versions first, and the delete markers only when none is left: without its marker an old version would
    /// be a user again.
    pub(super) async fn forget_the_past(&self, progress: &mut Progress) -> Result<()> {
        progress.begin("older versions in plain text");
        let mut deleted = 0;
        let History { past, markers: _ } = self.history().await?;
        for batch in past.chunks(1000) {
            bucket::delete_versions(self.aws, &self.bucket, batch.to_vec()).await?;
            deleted += batch.len();
        }
        let History { past, markers } = self.history().await?;
        if let Some(left) = past.first() {
            let what = format!("a version of {} is still there although it was deleted", left.key());
            return Err(DeployError::new(Exit::Failed, what).hint("Run this again."));
        }
        for batch in markers.chunks(1000) {
            bucket::delete_versions(self.aws, &self.bucket, batch.to_vec()).await?;
        }
        progress.end_with(&format!("{deleted} versions deleted"));
        Ok(())
    }

    async fn history(&self) -> Result<History> {
        let mut history = History::default();
        let (mut key_marker, mut version_marker) = (None, None);
        loop {
            let page = self
                .aws
                .s3
                .list_object_versions()
                .bucket(&self.bucket)
                .prefix(USERS_PREFIX)
                .set_key_marker(key_marker)
                .set_version_id_marker(version_marker)
                .send()
                .await
                .step(|| format!("list the versions in {}", self.bucket))?;
            let past = page.versions().iter().filter(|version| version.is_latest() != Some(true));
            history.past.extend(past.filter_map(|it| identifier(it.key(), it.version_id())));
            let markers = page.delete_markers().iter();
            history.markers.extend(markers.filter_map(|it| identifier(it.key(), it.version_id())));
            if page.is_truncated() != Some(true) {
                return Ok(history);
            }
            (key_marker, version_marker) = (page.next_key_marker, page.next_version_id_marker);
        }
    }
}

#[derive(Default)]
struct History {
    past: Vec<ObjectIdentifier>,
    markers: Vec<ObjectIdentifier>,
}

fn identifier(key: Option<&str>, version: Option<&str>) -> Option<ObjectIdentifier> {
    ObjectIdentifier::builder().key(key?).version_id(version?).build().ok()
}

/// Returns the key that an object was converted from, if it was.
fn converted_from(metadata: Option<&HashMap<String, String>>) -> Option<String> {
    let metadata = metadata?;
    (metadata.get(MIGRATED)? == "1").then(|| metadata.get(MIGRATED_FROM).cloned().unwrap_or_default())
}

/// Hashes on all cores; each reuses its own memory.
struct Hasher {
    turns: Semaphore,
    arenas: Arc<Mutex<Vec<Arena>>>,
}

impl Hasher {
    fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self { turns: Semaphore::new(cores), arenas: Arc::default() }
    }

    fn hash(&self, password: Password) -> impl Future<Output = Result<String>> {
        let arenas = Arc::clone(&self.arenas);
        async move {
            let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
            let hashed = tokio::task::spawn_blocking(move || {
                let cost = Cost::default();
                let spare = arenas.lock().pop();
                let mut arena = spare.unwrap_or_else(|| Arena::new(&cost));
                let phc = phc::hash(&mut arena, &cost, password.as_bytes());
                arenas.lock().push(arena);
                phc
            });
            hashed.await.map_err(|error| {
                DeployError::new(Exit::Failed, "a password could not be hashed").caused_by(error)
            })
        }
    }
}

/// Prints the progress of a long step.
struct Tally {
    what: &'static str,
    done: usize,
    all: usize,
    said: Instant,
}

impl Tally {
    fn new(what: &'static str, all: usize) -> Self {
        Self { what, done: 0, all, said: Instant::now() }
    }

    fn one_more(&mut self, progress: &Progress) {
        self.done += 1;
        if self.said.elapsed() >= SAID_EVERY {
            self.said = Instant::now();
            progress.line(&format!("  {} of {} {}", self.done, self.all, self.what));
        }
    }
}
