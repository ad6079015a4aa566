//! What was made a moment ago is not known everywhere in AWS yet, and two changes at once disturb each
//! other: such errors pass by themselves, within a bound.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use fleet::aws_code::AwsErrorKind;
use tokio::time::{Instant, sleep};

use crate::error::{DeployError, Exit, Result};

/// Another change of the same thing takes AWS a moment; S3 forgets a deleted bucket within a minute or
/// two, as a rule.
pub const SETTLING: Duration = Duration::from_secs(120);

/// IAM's answers differ for some seconds; asking more often brings nothing.
const PAUSE: Duration = Duration::from_secs(2);

/// EC2 shows what was made within a second or two, as a rule.
const LOOKS: u32 = 5;

/// How long AWS may take to know what was made.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    most: Duration,
}

impl Patience {
    /// Never more than this, if it is given; each wait has a bound of its own.
    pub fn at_most(seconds: Option<u64>) -> Self {
        Self { most: seconds.map_or(Duration::MAX, Duration::from_secs) }
    }

    /// The end of a wait that begins now and takes this long as a rule.
    pub fn deadline(self, usual: Duration) -> Instant {
        Instant::now() + usual.min(self.most)
    }

    /// Makes what AWS would make twice if it were asked twice, or refuses the second time. Without a reply
    /// nobody knows whether it was made, so it is looked for; so is what is there already, which may be what
    /// the SDK's first try made. If it is not found, the error stands, and the next run makes it.
    pub async fn made<T>(
        self,
        make: impl AsyncFn() -> Result<T>,
        find: impl AsyncFn() -> Result<Option<T>>,
    ) -> Result<T> {
        let error = match self.settled(make).await {
            Err(error) if error.exit == Exit::Unreachable || error.kind == AwsErrorKind::AlreadyExists => {
                error
            }
            answered => return answered,
        };
        for _ in 0..LOOKS {
            if let Some(there) = find().await? {
                return Ok(there);
            }
            sleep(PAUSE).await;
        }
        Err(error)
    }

    /// Repeats a call as long as it fails with something that passes.
    pub async fn settled<T>(self, call: impl AsyncFn() -> Result<T>) -> Result<T> {
        let deadline = self.deadline(SETTLING);
        loop {
            match call().await {
                Err(error) if !passes(&error) => return Err(error),
                Err(error) if Instant::now() > deadline => return Err(over(error)),
                Err(_) => sleep(PAUSE).await,
                done => return done,
            }
        }
    }
}

/// For a call that makes one more each time it is made: the SDK must not repeat it.
pub fn once() -> aws_sdk_ec2::config::Builder {
    aws_sdk_ec2::config::Builder::new().retry_config(RetryConfig::disabled())
}

fn passes(error: &DeployError) -> bool {
    matches!(error.kind, AwsErrorKind::Conflict | AwsErrorKind::Propagating | AwsErrorKind::Throttled)
}

/// What is said when it did not pass.
pub fn over(error: DeployError) -> DeployError {
    let mend = match error.what.contains("OperationAborted") {
        true => {
            "S3 is busy with this bucket, as when a bucket of this name was deleted a moment ago: wait some \
             minutes, then deploy again."
        }
        false => {
            "AWS does not know everywhere yet what was made, or somebody else changes the same: deploy again \
             in a minute; it goes on where this one stopped."
        }
    };
    error.mend(mend)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn failed(kind: AwsErrorKind) -> DeployError {
        let mut error = DeployError::new(Exit::Failed, "could not");
        error.kind = kind;
        error
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_waited_for_and_what_stays_has_a_bound() {
        let calls = Cell::new(0);
        let patience = Patience::at_most(None);
        let done = patience.settled(async || {
            calls.set(calls.get() + 1);
            if calls.get() < 3 { Err(failed(AwsErrorKind::Conflict)) } else { Ok(calls.get()) }
        });
        assert_eq!(done.await.expect("it passes"), 3);
        let since = Instant::now();
        let stays = Patience::at_most(Some(7)).settled(async || Err::<(), _>(failed(AwsErrorKind::Conflict)));
        assert!(stays.await.expect_err("it stays").mend.is_some_and(|mend| mend.contains("deploy again")));
        assert_eq!(since.elapsed().as_secs(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_been_made_is_looked_for_and_not_made_again() {
        let patience = Patience::at_most(None);
        let no_reply = || DeployError::new(Exit::Unreachable, "no reply");
        let looks = Cell::new(0);
        let made = patience.made(
            async || Err(no_reply()),
            async || {
                looks.set(looks.get() + 1);
                Ok((looks.get() == 2).then_some("it"))
            },
        );
        assert_eq!((made.await.expect("it is there"), looks.get()), ("it", 2));
        let nothing = patience.made(async || Err(no_reply()), async || Ok(None::<()>));
        assert_eq!(nothing.await.expect_err("it is not there").exit, Exit::Unreachable);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_is_said_at_once() {
        let since = Instant::now();
        let denied = Patience::at_most(None).settled(async || Err::<(), _>(failed(AwsErrorKind::Denied)));
        assert!(denied.await.is_err());
        assert_eq!(since.elapsed(), Duration::ZERO);
    }
}
