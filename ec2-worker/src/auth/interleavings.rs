//! Old and new cookies of one user, used at the same time on several workers that share a store.
//!
//! Virtual time, an S3 in memory with delays of up to three seconds, and no argon2: a change of password
//! is what follows its proof. `VIGIA_INTERLEAVINGS=10000` asks for more runs than the usual 300:
//!
//! ```sh
//! VIGIA_INTERLEAVINGS=10000 cargo test -p ec2-worker --lib interleavings
//! ```

use std::cell::RefCell;
use std::time::Duration;

use accounts::{Login, Record};
use fleet::Profile;
use futures::future::join_all;
use jiff::Timestamp;
use process::settings::{Env, Vars as _};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::time::{Instant, sleep_until};

use super::change::set_password;
use super::{end_all_sessions, end_session, user_of};
use crate::client::Client;
use crate::memory_s3::MemoryS3;
use crate::session::Session;
use crate::{Worker, user};
use aws::bucket::Expect;

const WORKERS: usize = 3;
/// The bound that `docs/security.md` promises.
const PROMISED: Duration = Duration::from_secs(15);
/// Steps begin within this time.
const SPAN_MS: u64 = 45_000;

#[derive(Clone, Debug)]
struct Step {
    at_ms: u64,
    worker: usize,
    act: Act,
}

#[derive(Clone, Debug)]
enum Act {
    /// A request with the newest cookie of the owner.
    OwnerUses,
    /// A request with the cookie of so many changes ago.
    ThiefUses(usize),
    /// The owner chooses another password.
    Change,
    /// The thief signs out with the cookie of so many changes ago.
    ThiefSignsOut(usize),
    OwnerSignsOutEverywhere,
}

fn step() -> impl Strategy<Value = Step> {
    let act = prop_oneof![
        6 => Just(Act::OwnerUses),
        8 => (1_usize..3).prop_map(Act::ThiefUses),
        2 => Just(Act::Change),
        1 => (1_usize..3).prop_map(Act::ThiefSignsOut),
        1 => Just(Act::OwnerSignsOutEverywhere),
    ];
    (0..SPAN_MS, 0..WORKERS, act).prop_map(|(at_ms, worker, act)| Step { at_ms, worker, act })
}

/// The history of one user's cookies.
#[derive(Default)]
struct Story {
    /// Oldest first; the last one is the owner's.
    cookies: Vec<Session>,
    /// Cookies whose session was ended, and when.
    ended: Vec<(Session, Instant)>,
}

impl Story {
    fn owner(&self) -> Session {
        self.cookies.last().expect("a user signs in first").clone()
    }

    /// Of a thief who stole it before the last `ago` changes.
    fn stolen(&self, ago: usize) -> Session {
        self.cookies[self.cookies.len().saturating_sub(1 + ago)].clone()
    }

    fn end(&mut self, cookies: &[Session]) {
        self.ended.extend(cookies.iter().map(|cookie| (cookie.clone(), Instant::now())));
    }

    fn end_all(&mut self) {
        self.end(&self.cookies.clone());
    }

    fn is_over(&self, cookie: &Session) -> bool {
        self.ended.iter().any(|(ended, _)| ended == cookie)
    }

    fn must_be_over(&self, cookie: &Session, asked: Instant) -> bool {
        self.ended.iter().any(|(ended, at)| ended == cookie && asked >= *at + PROMISED)
    }
}

async fn is_accepted(worker: &Worker, cookie: &Session) -> bool {
    user_of(worker, cookie).await.expect("the store answers").is_some()
}

/// Takes one step; returns what went wrong.
async fn take(workers: &[Worker], login: &Login, story: &RefCell<Story>, step: &Step) -> Option<String> {
    let worker = &workers[step.worker];
    let asked = Instant::now();
    match step.act {
        Act::OwnerUses => {
            let cookie = story.borrow().owner();
            is_accepted(worker, &cookie).await;
        }
        Act::ThiefUses(ago) => {
            let cookie = story.borrow().stolen(ago);
            let must_be_over = story.borrow().must_be_over(&cookie, asked);
            if is_accepted(worker, &cookie).await && must_be_over {
                return Some(format!("an old cookie was accepted: {step:?}"));
            }
        }
        Act::Change => {
            let owner = story.borrow().owner();
            let changed = set_password(worker, &owner, login, "$argon2id$x").await;
            // Of two changes at once one is refused.
            if let Ok(new) = changed {
                let mut story = story.borrow_mut();
                story.end_all();
                story.cookies.push(new);
            }
        }
        Act::ThiefSignsOut(ago) => {
            // Before the first change it is the owner's own.
            let cookie = story.borrow().stolen(ago);
            if is_accepted(worker, &cookie).await {
                end_session(worker, &Client::default(), &cookie).await.expect("the store answers");
                story.borrow_mut().end(&[cookie]);
            }
        }
        Act::OwnerSignsOutEverywhere => {
            let owner = story.borrow().owner();
            if end_all_sessions(worker, &Client::default(), &owner).await.is_ok() {
                story.borrow_mut().end_all();
            }
        }
    }
    None
}

/// Runs one plan for a new user; returns what went wrong.
async fn run(workers: &[Worker], number: usize, steps: &[Step]) -> Option<String> {
    let login = Login::parse(Profile::Secure, &format!("user{number}")).expect("a login");
    let record = Record::new(&login, "$argon2id$x".to_owned(), Timestamp::UNIX_EPOCH);
    let key = accounts::object_key(Profile::Secure, &login);
    workers[0].data.put(&key, &user::secure_object(&record), &Expect::Absent).await.expect("written");
    let first = Session::begin(login.as_str(), &record.uid, record.epoch, Profile::Secure, Timestamp::now());
    let story = RefCell::new(Story { cookies: vec![first], ..Story::default() });
    let began = Instant::now();
    let (login, story) = (&login, &story);
    let taken = steps.iter().map(|step| async move {
        sleep_until(began + Duration::from_millis(step.at_ms)).await;
        take(workers, login, story, step).await
    });
    let problem = join_all(taken).await.into_iter().flatten().next();
    if problem.is_some() {
        return problem;
    }
    let last = story.borrow().ended.iter().map(|(_, at)| *at).max().unwrap_or(began);
    sleep_until(last + PROMISED).await;
    let (owner, ended) = (story.borrow().owner(), story.borrow().ended.clone());
    for worker in workers {
        // The owner's request must not make the worker believe in the old cookies again.
        let (is_in, is_over) = (is_accepted(worker, &owner).await, story.borrow().is_over(&owner));
        if is_in == is_over {
            return Some(format!("the owner's cookie is accepted: {is_in}; it was ended: {is_over}"));
        }
        for (cookie, _) in &ended {
            if is_accepted(worker, cookie).await {
                return Some("an old cookie is accepted 15 s after the last change".to_owned());
            }
        }
    }
    None
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure is the result of the long form")]
fn no_old_cookie_is_accepted_after_fifteen_seconds() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let s3 = MemoryS3::with_delays_up_to(Duration::from_secs(3));
    let workers: Vec<Worker> = runtime.block_on(async { (0..WORKERS).map(|_| s3.worker()).collect() });
    let cases = Env.get("VIGIA_INTERLEAVINGS").and_then(|text| text.parse().ok()).unwrap_or(300);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let users = RefCell::new(0);
    let outcome = TestRunner::new(config).run(&prop::collection::vec(step(), 1..24), |steps| {
        let number = users.replace_with(|number| *number + 1);
        match runtime.block_on(run(&workers, number, &steps)) {
            None => Ok(()),
            Some(problem) => Err(TestCaseError::fail(problem)),
        }
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    println!("{cases} interleavings, {} requests to S3, 0 old cookies accepted", s3.calls());
}
