//! Retries for calls about resources that were only just created or changed.
//!
//! AWS is eventually consistent: it answers a creation before all of its servers know the new resource. It
//! also refuses two changes of one resource at the same time. Both pass by themselves. Every call of this
//! program is in one of these classes:
//!
//! | the call | goes through | is repeated on | calls |
//! |---|---|---|---|
//! | names a resource that this run created or saw moments ago | [`Patience::depends_on`] | not found, and the errors below | `ModifyVpcAttribute`, `AssociateVpcCidrBlock`, `AssociateSubnetCidrBlock`, `AttachInternetGateway`, `AssociateRouteTable`, `CreateRoute`, `ReplaceRoute`, `CreateRouteTable`, `CreateVpcEndpoint`, `CreateEgressOnlyInternetGateway`, `AuthorizeSecurityGroup…`, `RevokeSecurityGroupIngress`, `RunInstances`, `AssociateAddress`; `PutRolePolicy`, `PutRolePermissionsBoundary`, `AddRoleToInstanceProfile`; all `PutBucket…`, `PutObject`; `PutTargets`; `PutRetentionPolicy`; every change of the function after its creation |
//! | makes or writes something by its own name | [`Patience::settled`] | conflict, propagation, throttling | `CreateRole`, `CreateInstanceProfile`, `CreateServiceLinkedRole`, `CreateBucket`, `PutRule`, `CreateLogGroup` |
//! | makes one more each time | [`Patience::made`] | the same; then it is looked for | `CreateVpc`, `CreateInternetGateway`, `CreateSubnet`, `CreateSecurityGroup`, `AllocateAddress` |
//! | waits for a state | [`Patience::until`] | not found, and every state that passes | IPv6 blocks of the VPC and of subnets `associated`, interface endpoint `available`, instance `running`, Elastic IP listed, function idle |
//! | removes something whose users were only just removed | [`Patience::deleted`] | in use, conflict, throttling; not found is done | `DeleteRole`, `DeleteInstanceProfile`, `DeleteRule`, `DeleteFunction`, `DeleteLogGroup`, `ReleaseAddress` |
//! | removes a part of the network | [`Patience::settled`] | conflict, throttling; not found is done | all `Delete…`, `Detach…` of EC2; `destroy` terminates late instances and so frees resources still in use |
//! | looks whether something exists | nothing | nothing: not found is an answer | `Head…`, `Get…`, `Describe…` by name or tag |
//!
//! A run that is cut right after a call of the third class may leave a resource that the next run does not
//! see yet and makes again. Every later run keeps the one in use and removes the other.
//!
//! Not found is repeated only in the first class, so that a missing resource is not waited for. Every wait
//! has a deadline; the error then names the resource, the time, and what to do.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use fleet::aws_code::AwsErrorKind;
use rand::RngExt as _;
use tokio::time::{Instant, sleep};

use crate::error::{DeployError, Exit, Result};
use crate::output;

/// New roles, profiles and buckets usually settle within seconds, and within two minutes with few exceptions.
/// Half of this fails deployments that would have succeeded.
pub const SETTLING: Duration = Duration::from_secs(180);

/// Most new resources are known after a second or two, so the first pauses are short.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Asking more often gains nothing and counts against the account's rate limits.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A creation whose reply was lost is looked for this long: EC2 lists new resources within seconds.
const LOOKING: Duration = Duration::from_secs(20);

/// A document takes milliseconds.
const BODY: Duration = Duration::from_secs(30);

/// A wait that takes longer gets a line of its own.
const WORTH_A_LINE: Duration = Duration::from_secs(5);

/// The time that AWS may take to know a new resource.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    most: Duration,
}

/// The result of a look at a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look<T> {
    Reached(T),
    /// The state that it is still in, in AWS's own word.
    NotYet(String),
}

impl Patience {
    /// Caps every wait at this time, if it is given; each wait has a limit of its own.
    pub fn at_most(seconds: Option<u64>) -> Self {
        Self { most: seconds.map_or(Duration::MAX, Duration::from_secs) }
    }

    /// Starts a wait of at most this length.
    pub fn wait(self, usual: Duration) -> Wait {
        Wait { since: Instant::now(), most: usual.min(self.most), pause: FIRST_PAUSE, is_said: false }
    }

    /// For the whole body of a small object, whose head has come.
    pub fn for_a_body(self) -> Duration {
        BODY.min(self.most)
    }

    /// Repeats a call that needs `resource`, which this run created or saw moments ago, until AWS knows it.
    pub async fn depends_on<T>(self, resource: &str, call: impl AsyncFn() -> Result<T>) -> Result<T> {
        self.repeat(Some(resource), call).await
    }

    /// Repeats a call while it fails with a passing error. Not found is final.
    pub async fn settled<T>(self, call: impl AsyncFn() -> Result<T>) -> Result<T> {
        self.repeat(None, call).await
    }

    async fn repeat<T>(self, on: Option<&str>, call: impl AsyncFn() -> Result<T>) -> Result<T> {
        let mut wait = self.wait(SETTLING);
        loop {
            let error = match call().await {
                Err(error) if passes(&error) || (on.is_some() && is_missing(&error)) => error,
                answered => return answered,
            };
            if wait.is_over() {
                return Err(over(error, on, wait.waited()));
            }
            wait.pause(|| match on {
                Some(resource) => format!("waiting until AWS is done with {resource}"),
                None => format!("waiting: {}", error.what),
            })
            .await;
        }
    }

    /// Makes a resource that AWS would make twice if it were asked twice, or would refuse the second time.
    /// `inside` is the resource that it is made in. Without a reply it is unknown whether the resource was
    /// made. So this function looks for it, and also for an existing one, because the SDK's first try may
    /// have made it. If it is not found, the error stands, and the next run makes it.
    pub async fn made<T>(
        self,
        inside: Option<&str>,
        make: impl AsyncFn() -> Result<T>,
        find: impl AsyncFn() -> Result<Option<T>>,
    ) -> Result<T> {
        let error = match self.repeat(inside, make).await {
            Err(error) if error.exit == Exit::Unreachable || error.kind == AwsErrorKind::AlreadyExists => {
                error
            }
            answered => return answered,
        };
        let mut wait = self.wait(LOOKING);
        loop {
            if let Some(there) = find().await? {
                return Ok(there);
            }
            if wait.is_over() {
                return Err(error);
            }
            wait.pause(|| error.what.clone()).await;
        }
    }

    /// Looks until the state is reached. `what` is the subject of a sentence: "the IPv6 block of vpc-1".
    pub async fn until<T>(
        self,
        what: &str,
        usual: Duration,
        look: impl AsyncFn() -> Result<Look<T>>,
    ) -> Result<T> {
        let mut wait = self.wait(usual);
        loop {
            let state = match look().await {
                Ok(Look::Reached(value)) => return Ok(value),
                Ok(Look::NotYet(state)) => state,
                Err(error) if passes(&error) || is_missing(&error) => "not visible yet".to_owned(),
                Err(error) => return Err(error),
            };
            if wait.is_over() {
                let what = format!("{what} is {state} after {} s", wait.waited().as_secs());
                return Err(DeployError::new(Exit::Failed, what).hint(AGAIN));
            }
            wait.pause(|| format!("waiting: {what} is {state}")).await;
        }
    }

    /// Removes something; `None` if it no longer existed. A resource still in use is tried again, because its
    /// users were removed moments ago.
    pub async fn deleted<T>(self, call: impl AsyncFn() -> Result<T>) -> Result<Option<T>> {
        let mut wait = self.wait(SETTLING);
        loop {
            let error = match call().await {
                Ok(done) => return Ok(Some(done)),
                Err(error) if error.kind == AwsErrorKind::NotFound => return Ok(None),
                Err(error) if error.kind == AwsErrorKind::InUse || passes(&error) => error,
                Err(error) => return Err(error),
            };
            if wait.is_over() {
                return Err(still_in_use(error, wait.waited()));
            }
            wait.pause(|| format!("waiting: {}", error.what)).await;
        }
    }
}

/// A wait with a deadline, and pauses that grow.
pub struct Wait {
    since: Instant,
    most: Duration,
    pause: Duration,
    is_said: bool,
}

impl Wait {
    pub fn waited(&self) -> Duration {
        self.since.elapsed()
    }

    pub fn is_over(&self) -> bool {
        self.waited() >= self.most
    }

    /// Sleeps for a moment, not beyond the deadline, and shows the reason.
    pub async fn pause(&mut self, what: impl Fn() -> String) {
        output::waiting(&what());
        if !self.is_said && self.waited() > WORTH_A_LINE {
            self.is_said = true;
            output::still_waiting(&what());
        }
        // Jitter: calls that were refused at the same moment come back at different ones.
        let pause = self.pause.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        sleep(pause.min(self.most.saturating_sub(self.waited()))).await;
    }
}

/// Configures a call that makes one more resource each time: the SDK must not repeat it.
pub fn once() -> aws_sdk_ec2::config::Builder {
    aws_sdk_ec2::config::Builder::new().retry_config(RetryConfig::disabled())
}

/// Returns whether the call may succeed if repeated. A failed precondition is a definite answer.
fn passes(error: &DeployError) -> bool {
    if matches!(error.code.as_str(), "PreconditionFailed" | "412") {
        return false;
    }
    matches!(error.kind, AwsErrorKind::Conflict | AwsErrorKind::Propagating | AwsErrorKind::Throttled)
        || matches!(
            error.code.as_str(),
            // EC2: the resource is changing its state.
            "IncorrectState" | "IncorrectInstanceState" | "InvalidVpcState"
            // CloudWatch Logs.
            | "OperationAbortedException" | "ServiceUnavailableException"
            | "ServiceUnavailable" | "Unavailable" | "InternalError" | "InternalFailure"
        )
        // AssociateAddress, of an instance that other EC2 calls show as running.
        || (error.code == "InvalidInstanceID" && error.what.contains("not in a valid state"))
}

/// Returns whether AWS does not know something that the call names. A missing object is not a resource that
/// AWS does not know yet: it is missing.
fn is_missing(error: &DeployError) -> bool {
    error.kind == AwsErrorKind::NotFound && error.code != "NoSuchKey"
}

const AGAIN: &str = "Run the same command again in a minute: it continues where this run stopped.";

/// Returns the error of a call that was repeated until its deadline.
pub fn over(mut error: DeployError, on: Option<&str>, waited: Duration) -> DeployError {
    let is_busy_bucket = error.what.contains("OperationAborted:");
    let seconds = waited.as_secs();
    error.what = match on {
        Some(resource) => format!("{} (tried for {seconds} s; it needs {resource})", error.what),
        None => format!("{} (tried for {seconds} s)", error.what),
    };
    let why = match on {
        _ if is_busy_bucket => {
            "S3 is busy with this bucket, as it is when a bucket of this name was deleted a moment ago."
                .to_owned()
        }
        Some(resource) => {
            format!(
                "Some of AWS's servers do not know {resource} yet, or another change of it is in \
                progress."
            )
        }
        None => {
            "Some of AWS's servers do not know a resource that this run created, or another change is in \
            progress."
                .to_owned()
        }
    };
    error.hint(format!("{why} {AGAIN}"))
}

fn still_in_use(mut error: DeployError, waited: Duration) -> DeployError {
    error.what = format!("{} (tried for {} s)", error.what, waited.as_secs());
    error.hint(format!("AWS still sees a resource that uses it. {AGAIN}"))
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

    fn coded(code: &str) -> DeployError {
        let mut error = failed(AwsErrorKind::of(code, ""));
        error.code = code.to_owned();
        error
    }

    /// Returns how often a call is made that always fails with this error, and whether it succeeds.
    async fn calls(on: Option<&str>, error: impl Fn() -> DeployError, failures: u32) -> (u32, bool) {
        let calls = Cell::new(0);
        let done = Patience::at_most(None).repeat(on, async || {
            calls.set(calls.get() + 1);
            if calls.get() <= failures { Err(error()) } else { Ok(()) }
        });
        let is_done = done.await.is_ok();
        (calls.get(), is_done)
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_resource_that_is_not_found_is_waited_for() {
        for code in ["InvalidVpcID.NotFound", "InvalidGroup.NotFound", "NoSuchEntity", "NoSuchBucket"] {
            assert_eq!(calls(Some("it"), || coded(code), 3).await, (4, true), "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_resource_that_was_never_created_is_not_waited_for() {
        assert_eq!(calls(None, || coded("InvalidVpcID.NotFound"), 1).await, (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_object_is_not_waited_for() {
        assert_eq!(calls(Some("the bucket"), || coded("NoSuchKey"), 1).await, (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn conflicts_and_throttling_are_repeated() {
        for code in [
            "OperationAborted",
            "OperationAbortedException",
            "ConcurrentModification",
            "ConditionalRequestConflict",
            "IncorrectInstanceState",
            "RequestLimitExceeded",
        ] {
            assert_eq!(calls(None, || coded(code), 2).await, (3, true), "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_profile_that_ec2_does_not_know_yet_is_waited_for() {
        let kind = AwsErrorKind::of("InvalidParameterValue", "Invalid IAM Instance Profile name");
        assert_eq!(calls(None, || failed(kind), 2).await, (3, true));
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_runs_for_some_calls_only_is_waited_for() {
        let refused = |what: &str| DeployError { what: what.to_owned(), ..coded("InvalidInstanceID") };
        let state = || refused("The instance 'i-1' is not in a valid state for this operation.");
        assert_eq!(calls(Some("i-1"), state, 2).await, (3, true));
        assert_eq!(calls(Some("i-1"), || refused("Invalid id"), 1).await, (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_definite_refusal_is_not_repeated() {
        for code in ["PreconditionFailed", "AccessDenied", "InvalidSubnet.Range", "VpcLimitExceeded"] {
            assert_eq!(calls(Some("it"), || coded(code), 1).await, (1, false), "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_pauses_are_short() {
        let since = Instant::now();
        assert_eq!(calls(Some("it"), || coded("InvalidVpcID.NotFound"), 2).await, (3, true));
        assert!(since.elapsed() <= Duration::from_millis(600), "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_that_stays_says_resource_time_and_advice() {
        let stays = Patience::at_most(Some(7))
            .depends_on("the VPC vpc-1", async || Err::<(), _>(coded("InvalidVpcID.NotFound")));
        let error = stays.await.expect_err("it stays");
        assert!(error.what.contains("tried for 7 s; it needs the VPC vpc-1"), "{}", error.what);
        assert!(error.hint.is_some_and(|hint| hint.contains("same command again")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_possibly_made_resource_is_found_and_not_made_again() {
        let patience = Patience::at_most(None);
        let no_reply = || DeployError::new(Exit::Unreachable, "no reply");
        let looks = Cell::new(0);
        let made = patience.made(
            None,
            async || Err(no_reply()),
            async || {
                looks.set(looks.get() + 1);
                Ok((looks.get() == 2).then_some("it"))
            },
        );
        assert_eq!((made.await.expect("it is there"), looks.get()), ("it", 2));
        let nothing = patience.made(None, async || Err(no_reply()), async || Ok(None::<()>));
        assert_eq!(nothing.await.expect_err("it is not there").exit, Exit::Unreachable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_is_waited_for_through_errors_that_pass() {
        let looks = Cell::new(0);
        let reached = Patience::at_most(None).until("it", SETTLING, async || {
            looks.set(looks.get() + 1);
            match looks.get() {
                1 => Err(coded("InvalidSubnetID.NotFound")),
                2 => Ok(Look::NotYet("associating".to_owned())),
                n => Ok(Look::Reached(n)),
            }
        });
        assert_eq!(reached.await.expect("it is reached"), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_that_is_not_reached_is_named() {
        let never = Patience::at_most(Some(9))
            .until("the block of vpc-1", SETTLING, async || Ok(Look::<()>::NotYet("associating".to_owned())));
        let error = never.await.expect_err("it stays");
        assert_eq!(error.what, "the block of vpc-1 is associating after 9 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_waits_for_users_that_were_just_removed() {
        let calls = Cell::new(0);
        let deleted = Patience::at_most(None).deleted(async || {
            calls.set(calls.get() + 1);
            if calls.get() < 3 { Err(coded("DeleteConflict")) } else { Ok(()) }
        });
        assert_eq!((deleted.await.expect("deleted"), calls.get()), (Some(()), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn deleting_a_missing_resource_succeeds() {
        let gone = Patience::at_most(None).deleted(async || Err::<(), _>(coded("NoSuchEntity")));
        assert_eq!(gone.await.expect("done"), None);
    }
}
