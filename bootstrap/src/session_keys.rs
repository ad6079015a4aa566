//! `rotate-session-keys`: replaces the key for cookies without signing users out.
//!
//! | a key of the ring has | it is | and |
//! |---|---|---|
//! | `added` | waiting until every worker has read it | opens |
//! | `since`, and the ring names it | active | seals and opens |
//! | `retired` | of the past | opens for 13 hours, then the next rotation drops it |
//! | none of them, and is not active | put there by hand | is taken for one of the past |
//!
//! If a worker sealed with a key that others have not read, it would sign users out at random. So a key waits
//! before it is active. A run that is cut continues with the waiting key, and waits the whole time again,
//! because the clocks of two machines may differ.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet::aws_code::AwsErrorKind;
use fleet::keys;
use jiff::{SignedDuration, Timestamp};
use rand::Rng as _;
use serde::{Deserialize, Serialize};

use crate::aws::Aws;
use crate::cli::Target;
use crate::error::{DeployError, Exit, Result};
use crate::output::{self, Progress};
use crate::resources::documents;
use crate::scale::no_stack;

/// A worker reads the ring every 60 s. One reading may fail, and a reading takes a moment.
pub const WAIT: Duration = Duration::from_secs(2 * 60 + 15);
/// A session lasts 12 hours; one more for clocks that differ.
const OPENS_FOR: SignedDuration = SignedDuration::from_hours(13);
/// Workers refuse a larger ring.
const MAX_KEYS: usize = 8;
const KEY_BYTES: usize = 64;
/// Other writers change it too; after this many tries they are not going to stop.
const MAX_TRIES: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Gradual {
        wait: Duration,
    },
    /// A key has leaked: all other keys go at once, and every session with them.
    Now,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Ring {
    active: String,
    keys: Vec<Key>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Key {
    kid: String,
    /// Base64.
    key: String,
    /// When it was put into the ring, to become active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    added: Option<Timestamp>,
    /// When it became active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// When another one became active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired: Option<Timestamp>,
}

pub async fn run(target: &Target, mode: Mode) -> Result<()> {
    let aws = Aws::connect(target).await?;
    let mut progress = Progress::default();
    let rotated = rotate(&aws, mode, &mut progress).await;
    progress.finish();
    let kid = rotated?;
    output::result(&match mode {
        Mode::Gradual { .. } => {
            format!("{kid} is active. Sessions of the previous key stay valid until they expire.")
        }
        Mode::Now => {
            format!("{kid} is the only key. All sessions end within a minute or two, as the workers read it.")
        }
    });
    Ok(())
}

/// Rotates the key and returns the id of the new active key.
pub async fn rotate(aws: &Aws, mode: Mode, progress: &mut Progress) -> Result<String> {
    match mode {
        Mode::Now => {
            let fresh = Key::new();
            change(aws, |ring, now| Ok(ring.alone(&fresh, now))).await
        }
        Mode::Gradual { wait } => {
            let fresh = Key::new();
            let kid = change(aws, |ring, now| ring.with_waiting(&fresh, now)).await?;
            progress.line(&format!(
                "{kid} is in the ring and becomes active in {} s. If you interrupt this command, run it \
                    again.",
                wait.as_secs()
            ));
            progress.begin(format!("workers read {kid}"));
            tokio::time::sleep(wait).await;
            progress.end_with("waited");
            change(aws, |ring, now| ring.activated(&kid, now)).await
        }
    }
}

/// The change of a ring: the ring to write, if it differs, and the id of the key in question.
type Changed = (Option<Ring>, String);

async fn change(aws: &Aws, decide: impl Fn(&Ring, Timestamp) -> Result<Changed>) -> Result<String> {
    for _ in 0..MAX_TRIES {
        let seen = documents::read(aws, keys::SESSION_KEYS).await?.ok_or_else(|| no_stack(aws))?;
        let ring: Ring = serde_json::from_slice(&seen.bytes).map_err(|_| unreadable())?;
        let (ring, kid) = decide(&ring, Timestamp::now())?;
        let Some(ring) = ring else { return Ok(kid) };
        let text = serde_json::to_vec(&ring).expect("a ring is plain data");
        match documents::write(aws, keys::SESSION_KEYS, text, Some(&seen.etag)).await {
            Ok(()) => return Ok(kid),
            // Another writer changed it since, or the reply was lost: look again.
            Err(error) if error.kind == AwsErrorKind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
    Err(DeployError::new(
        Exit::Failed,
        format!("{} keeps changing while this command writes it", keys::SESSION_KEYS),
    )
    .hint("Try again."))
}

/// Returns the error without the content, which is secret.
fn unreadable() -> DeployError {
    DeployError::new(Exit::Failed, format!("{} is not a valid key ring", keys::SESSION_KEYS)).hint(
        "Running workers keep the keys that they have read. Restore the object, or delete it and run `make \
            deploy`, which creates new keys and ends all sessions.",
    )
}

impl Key {
    fn new() -> Self {
        let mut bytes = [0_u8; KEY_BYTES];
        rand::rng().fill_bytes(&mut bytes);
        Self { kid: String::new(), key: STANDARD.encode(bytes), added: None, since: None, retired: None }
    }
}

impl Ring {
    /// Returns whether workers can use it.
    pub(crate) fn is_whole(&self) -> bool {
        let is_key = |key: &Key| STANDARD.decode(&key.key).is_ok_and(|bytes| bytes.len() == KEY_BYTES);
        self.keys.iter().all(is_key) && self.keys.iter().any(|key| key.kid == self.active)
    }

    /// Returns the ring with a waiting key: the key of a run that was cut, or a fresh one.
    fn with_waiting(&self, fresh: &Key, now: Timestamp) -> Result<Changed> {
        if let Some(waiting) = self.keys.iter().find(|key| self.is_waiting(key)) {
            return Ok((None, waiting.kid.clone()));
        }
        let mut ring = self.without_expired(now);
        if ring.keys.len() >= MAX_KEYS {
            return Err(DeployError::new(
                Exit::Failed,
                format!(
                    "the ring already has {MAX_KEYS} keys, and valid sessions may still need each of them"
                ),
            )
            .hint(
                "Wait: a key is dropped 13 hours after it was replaced. Or pass `--now` (make: NOW=1), \
                which ends all sessions.",
            ));
        }
        let kid = self.next_kid();
        ring.keys.push(Key { kid: kid.clone(), added: Some(now), ..fresh.clone() });
        Ok((Some(ring), kid))
    }

    fn activated(&self, kid: &str, now: Timestamp) -> Result<Changed> {
        if self.active == kid {
            return Ok((None, kid.to_owned()));
        }
        if !self.keys.iter().any(|key| key.kid == kid && key.retired.is_none()) {
            let what = format!("another rotation ran at the same time and removed {kid}");
            return Err(DeployError::new(Exit::Failed, what).hint("Run this again to add a new key."));
        }
        let mut ring = Self { active: kid.to_owned(), keys: self.keys.clone() };
        for key in &mut ring.keys {
            if key.kid == kid {
                key.since = Some(now);
            } else {
                key.retired.get_or_insert(now);
            }
        }
        Ok((Some(ring.without_expired(now)), kid.to_owned()))
    }

    /// Returns a ring with a fresh key and no other.
    fn alone(&self, fresh: &Key, now: Timestamp) -> Changed {
        if let Some(ours) = self.keys.iter().find(|key| key.key == fresh.key) {
            return (None, ours.kid.clone());
        }
        let kid = self.next_kid();
        let key = Key { kid: kid.clone(), since: Some(now), ..fresh.clone() };
        (Some(Self { active: kid.clone(), keys: vec![key] }), kid)
    }

    fn is_waiting(&self, key: &Key) -> bool {
        key.kid != self.active && key.added.is_some() && key.since.is_none() && key.retired.is_none()
    }

    fn without_expired(&self, now: Timestamp) -> Self {
        let is_needed = |key: &&Key| {
            key.kid == self.active || key.retired.is_none_or(|at| now.duration_since(at) < OPENS_FOR)
        };
        Self { active: self.active.clone(), keys: self.keys.iter().filter(is_needed).cloned().collect() }
    }

    /// Returns `k` and a number that no key of the ring has had.
    fn next_kid(&self) -> String {
        let number = |key: &Key| key.kid.strip_prefix('k')?.parse::<u32>().ok();
        let last = self.keys.iter().filter_map(number).max().unwrap_or(0);
        format!("k{}", last.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours)
    }

    fn ring(text: &str) -> Ring {
        serde_json::from_str(text).expect("a ring")
    }

    /// Returns a ring as `deploy` makes it.
    fn first() -> Ring {
        ring(r#"{"active":"k1","keys":[{"kid":"k1","key":"one"}]}"#)
    }

    fn kids(ring: &Ring) -> Vec<&str> {
        ring.keys.iter().map(|key| key.kid.as_str()).collect()
    }

    fn rotated(before: &Ring, hours: i64) -> Ring {
        let (waiting, kid) = before.with_waiting(&Key::new(), at(hours)).expect("there is room");
        let waiting = waiting.expect("a key is added");
        assert_eq!(waiting.active, before.active, "the new one does not seal yet");
        let (after, _) = waiting.activated(&kid, at(hours)).expect("it waits");
        let after = after.expect("another key is active");
        assert_eq!(after.active, kid);
        after
    }

    #[test]
    fn the_key_before_opens_for_thirteen_hours_more() {
        let second = rotated(&first(), 0);
        assert_eq!(kids(&second), ["k1", "k2"]);
        let third = rotated(&second, 12);
        assert_eq!(kids(&third), ["k1", "k2", "k3"], "a session of k1 may be 12 hours old");
        assert_eq!(kids(&rotated(&third, 13)), ["k2", "k3", "k4"]);
        assert_eq!(kids(&rotated(&third, 100)), ["k3", "k4"], "k3 was in use until now");
    }

    #[test]
    fn a_run_after_a_cut_continues_with_the_waiting_key() {
        let (waiting, kid) = first().with_waiting(&Key::new(), at(0)).expect("there is room");
        let waiting = waiting.expect("a key is added");
        let (nothing, same) = waiting.with_waiting(&Key::new(), at(5)).expect("nothing to do");
        assert!(nothing.is_none() && same == kid);
        let (after, _) = waiting.activated(&kid, at(5)).expect("it waits");
        let after = after.expect("another key is active");
        let (nothing, same) = after.activated(&kid, at(6)).expect("done already");
        assert!(nothing.is_none() && same == kid);
    }

    #[test]
    fn an_old_key_never_becomes_active_again() {
        // Rotated by hand, as before this command existed: k1 is retired.
        let by_hand = ring(r#"{"active":"k2","keys":[{"kid":"k1","key":"one"},{"kid":"k2","key":"two"}]}"#);
        let after = rotated(&by_hand, 0);
        assert_eq!((after.active.as_str(), kids(&after)), ("k3", vec!["k1", "k2", "k3"]));
        assert_eq!(after.keys[0].retired, Some(at(0)), "its age is unknown");
        let error = after.activated("k1", at(0)).map(drop).expect_err("it is retired");
        assert!(error.message().contains("removed k1"), "{}", error.message());
    }

    #[test]
    fn more_keys_than_workers_read_are_refused() {
        let mut full = first();
        while full.keys.len() < MAX_KEYS {
            full = rotated(&full, 0);
        }
        let error = full.with_waiting(&Key::new(), at(12)).map(drop).expect_err("it is full");
        assert!(error.message().contains("--now"), "{}", error.message());
        assert_eq!(kids(&rotated(&full, 13)).len(), 2);
    }

    #[test]
    fn a_leaked_key_goes_at_once_and_a_lost_reply_does_no_harm() {
        let (fresh, before) = (Key::new(), rotated(&first(), 0));
        let (after, kid) = before.alone(&fresh, at(1));
        let after = after.expect("a change");
        assert_eq!((kids(&after), after.active.as_str()), (vec!["k3"], kid.as_str()));
        assert!(after.alone(&fresh, at(1)).0.is_none());
        assert!(before.activated("k9", at(1)).is_err());
    }
}
