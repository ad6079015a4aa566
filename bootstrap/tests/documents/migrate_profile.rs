//! `migrate-profile`: every user keeps the password, and no plain text is left, wherever the command is cut.

use std::cell::Cell;

use accounts::{Arena, Cost, Login, Password, Phc, Record, object_key};
use bootstrap::error::{DeployError, Result};
use bootstrap::migrate_profile::{Mode, OnUnusable, Options, Outcome, migrate};
use bootstrap::output::Progress;
use bootstrap::resources::documents;
use fleet::release::{Credits, InstanceSpec, Market, Release};
use fleet::{Profile, keys};
use jiff::Timestamp;

use crate::support::{Budget, Stack};

const SKIP: Options = Options { unusable: OnUnusable::Leave, mode: Mode::Migrate };
const DRY_RUN: Options = Options { unusable: OnUnusable::Refuse, mode: Mode::DryRun };

/// Login as it was chosen, and password.
type User = (String, String);

fn user(login: &str, password: impl Into<String>) -> User {
    (login.to_owned(), password.into())
}

/// A password that a secure worker would take for a record, if it were asked.
fn looks_like_a_record(login: &str) -> String {
    let login = Login::parse(Profile::Secure, login).expect("valid");
    let record = Record::new(&login, "$argon2id$v=19$m=8,t=1,p=1$x$x".to_owned(), Timestamp::UNIX_EPOCH);
    String::from_utf8(record.to_json()).expect("text")
}

fn few() -> Vec<User> {
    vec![
        user("Ana", "plain-text-of-ana"),
        user("bob", "plain-text-of-bob"),
        user("Zoë", "pässwörter sind lang"),
        user("carol", looks_like_a_record("carol")),
        // `echo … | aws s3 cp -` ends with it, and classic compares it.
        user("dave", "written by hand\n"),
    ]
}

fn thirty() -> Vec<User> {
    let mut users = few();
    users.extend([
        user("ÜNAL", "x"),
        user("ｆｕｌｌ", "ﬁfteen letters"),
        user("a.b-c_d", "{}"),
        user("Erin", looks_like_a_record("erin")),
        user("frank", "ä".repeat(256)),
        user("GRACE", "password"),
        user("ivan", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAA"),
        user("иван", "пароль"),
    ]);
    let more: Vec<User> =
        (users.len()..30).map(|n| user(&format!("User{n}"), format!("plain-text-number-{n}"))).collect();
    users.extend(more);
    users
}

/// A classic stack without workers.
async fn classic(users: &[User]) -> Stack {
    let stack = Stack::new().await;
    stack.write_user(keys::PROFILE_MARKER, b"classic").await;
    stack.write(keys::DESIRED_COUNT, "0\n").await;
    let spec = InstanceSpec {
        ami: "ami-1".to_owned(),
        instance_type: "t4g.micro".to_owned(),
        subnets: Vec::new(),
        security_group: "sg-1".to_owned(),
        instance_profile: "p".to_owned(),
        user_data: "    VIGIA_PROFILE=classic\n".to_owned(),
        market: Market::OnDemand,
        credits: Credits::Standard,
    };
    let release = Release::new(stack.aws.names.stack.clone(), Profile::Classic, "1".to_owned(), spec);
    documents::write_release(&stack.aws, &release).await.expect("a release");
    for (login, password) in users {
        let login = Login::parse(Profile::Classic, login).expect("valid");
        stack.write_user(&object_key(Profile::Classic, &login), password.as_bytes()).await;
    }
    stack
}

/// Adds the traces of a month of use: changed passwords, deleted users.
async fn with_a_past(stack: &Stack) {
    stack.write_user("users/bob", b"plain-text-of-before").await;
    stack.write_user("users/bob", b"plain-text-of-bob").await;
    stack.write_user("users/gone", b"plain-text-of-the-gone").await;
    stack.delete_user("users/gone").await;
}

async fn run(aws: &bootstrap::aws::Aws, options: Options) -> Result<Outcome> {
    migrate(aws, options, async || Ok(Vec::new()), &mut Progress::default()).await
}

async fn refused(stack: &Stack, options: Options) -> DeployError {
    run(&stack.aws, options).await.expect_err("it must refuse")
}

async fn marker(stack: &Stack) -> String {
    let marker = stack.read_user(keys::PROFILE_MARKER).await.expect("a marker");
    String::from_utf8(marker).expect("text")
}

/// Every user signs in with the old password, and nothing else is below `users/`.
async fn all_are_secure(stack: &Stack, users: &[User]) {
    assert_eq!(marker(stack).await, "secure");
    let release = documents::release(&stack.aws).await.expect("readable").expect("a release");
    assert_eq!(release.profile, Profile::Secure);
    assert!(release.worker.user_data.contains("VIGIA_PROFILE=secure"), "{}", release.worker.user_data);

    let versions = stack.versions().await;
    for version in &versions {
        let content = version.content.as_deref().expect("no marker of deletion is left");
        assert!(version.is_latest && version.is_migrated, "{version:?}");
        let record = Record::from_json(content).expect("a record");
        assert!(record.phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{record:?}");
        let text = String::from_utf8_lossy(content);
        for (_, password) in users.iter().filter(|(_, password)| password.len() > 3) {
            assert!(!text.contains(password.trim_end()), "{} holds a password", version.key);
        }
        assert!(!text.contains("plain-text"), "{} holds an old password", version.key);
    }
    assert_eq!(versions.len(), users.len());

    let mut arena = Arena::new(&Cost::default());
    for (login, password) in users {
        let login = Login::parse(Profile::Secure, login).expect("valid");
        let stored = stack.read_user(&object_key(Profile::Secure, &login)).await.expect("a user");
        let record = Record::from_json(&stored).expect("a record");
        assert_eq!(record.login, login.as_str());
        let phc = Phc::parse(&record.phc, &Cost::default()).expect("a hash");
        let given = Password::given(Profile::Secure, password).expect("within bounds");
        assert!(phc.verify(&mut arena, given.as_bytes()), "{login} cannot sign in any more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_users_keep_their_passwords_and_no_plain_text_is_left() {
    let users = thirty();
    let stack = classic(&users).await;
    with_a_past(&stack).await;
    let outcome = run(&stack.aws, Options::default()).await.expect("all can be secure");
    assert_eq!(outcome, Outcome::Converted { users: 30, left: 0 });
    all_are_secure(&stack, &users).await;

    let before = stack.versions().await;
    assert_eq!(run(&stack.aws, Options::default()).await.expect("done"), Outcome::AlreadySecure);
    assert_eq!(stack.versions().await, before, "the second run does nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_after_any_call_the_next_run_completes_it() {
    let users = few();
    let mut cuts = 0;
    loop {
        let stack = classic(&users).await;
        with_a_past(&stack).await;
        let budget = Budget::calls(cuts);
        match run(&stack.with(&budget), Options::default()).await {
            Ok(_) if budget.left() >= 0 => break,
            Ok(_) => panic!("an error after {cuts} calls was lost"),
            Err(_) => {}
        }
        run(&stack.aws, Options::default())
            .await
            .unwrap_or_else(|error| panic!("cut after {cuts} calls it does not go on: {}", error.message()));
        all_are_secure(&stack, &users).await;
        cuts += 1;
    }
    assert!(cuts > 30, "only {cuts} calls were cut");
}

/// S3 lists 1000 versions at a time, and deletes as many.
#[tokio::test(flavor = "multi_thread")]
async fn a_past_of_more_than_one_page_is_forgotten() {
    let users = [user("bob", "plain-text-of-bob")];
    let stack = classic(&[]).await;
    for n in 0..1100 {
        stack.write_user("users/bob", format!("plain-text-{n}").as_bytes()).await;
    }
    stack.write_user("users/bob", b"plain-text-of-bob").await;
    run(&stack.aws, Options::default()).await.expect("all can be secure");
    all_are_secure(&stack, &users).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_again_and_again_it_comes_to_its_end() {
    let users = few();
    let stack = classic(&users).await;
    with_a_past(&stack).await;
    // Reading all users takes most of these; the rest is progress.
    let mut runs = 0;
    while run(&stack.with(&Budget::calls(26)), Options::default()).await.is_err() {
        runs += 1;
        assert!(runs < 30, "it never ends");
    }
    assert!(runs > 1, "it was not cut");
    all_are_secure(&stack, &users).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_that_cannot_be_secure_are_named_before_anything_changes() {
    let stack =
        classic(&[user("ana", "exact"), user("Ana", "other"), user("bob", "fine"), user("a b", "x")]).await;
    stack.write_user("users/by.hand", b"a key that no login has").await;
    let before = stack.versions().await;

    let said = refused(&stack, Options::default()).await.message();
    for key in ["users/Ana: it would become the login `ana`", "users/a!20b: ", "users/by.hand: "] {
        assert!(said.contains(key), "{key}: {said}");
    }
    assert!(said.contains("--skip-unusable") && !said.contains("users/bob"), "{said}");
    let said = refused(&stack, DRY_RUN).await.message();
    assert!(said.contains("users/Ana"), "{said}");
    assert_eq!(stack.versions().await, before);
    assert_eq!(marker(&stack).await, "classic");

    let outcome = run(&stack.aws, SKIP).await.expect("the others can");
    assert_eq!(outcome, Outcome::Converted { users: 2, left: 3 });
    assert_eq!(marker(&stack).await, "secure");
    assert_eq!(stack.read_user("users/Ana").await.as_deref(), Some(&b"other"[..]), "left as it was");
    for (login, password) in [("ana", "exact"), ("bob", "fine")] {
        let record = Record::from_json(&stack.read_user(&format!("users/{login}")).await.expect("a user"));
        let phc = Phc::parse(&record.expect("a record").phc, &Cost::default()).expect("a hash");
        assert!(phc.verify(&mut Arena::new(&Cost::default()), password.as_bytes()), "{login}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_a_secure_worker_would_read_are_never_skipped() {
    let stack = classic(&[user("bob", "fine")]).await;
    stack.write_user("users/ana", b"").await;
    let before = stack.versions().await;
    for options in [Options::default(), SKIP] {
        let said = refused(&stack, options).await.message();
        assert!(said.contains("users/ana: the password is empty"), "{said}");
    }
    assert_eq!(stack.versions().await, before);
    assert_eq!(marker(&stack).await, "classic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_serves_is_refused_in_words_that_help() {
    let stack = classic(&[user("Ana", "plain-text-of-ana")]).await;
    let before = stack.versions().await;
    let registry = |workers: &str| {
        format!(r#"{{"revision":1,"written_at":"2026-01-01T00:00:00Z","desired":1,"workers":{{{workers}}}}}"#)
    };
    let worker = r#""i-1":{"addr":"10.0.0.1:8080","zone":"a"}"#;
    for (desired, workers, running, says) in [
        ("1", "", "", "desired-count is 1"),
        ("banana", "", "", "desired-count is not 0"),
        ("0", worker, "", "the registry lists 1"),
        ("0", "", "i-7", "1 run: i-7"),
    ] {
        stack.write(keys::DESIRED_COUNT, desired).await;
        stack.write(keys::REGISTRY, &registry(workers)).await;
        let running: Vec<String> = running.split_whitespace().map(str::to_owned).collect();
        let instances = async || Ok(running.clone());
        let refused = migrate(&stack.aws, Options::default(), instances, &mut Progress::default()).await;
        let said = refused.expect_err(says).message();
        assert!(said.contains(says) && said.contains("make scale N=0"), "{says}: {said}");
    }
    // A dry run may be made while the old workers serve.
    assert_eq!(
        run(&stack.aws, DRY_RUN).await.expect("nothing is changed"),
        Outcome::WouldConvert { users: 1 }
    );
    assert_eq!(stack.versions().await, before);
    assert_eq!(marker(&stack).await, "classic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_started_before_the_marker_changed_stops_it() {
    let users = [user("Ana", "plain-text-of-ana")];
    let stack = classic(&users).await;
    let looks = Cell::new(0);
    let instances = async || {
        looks.set(looks.get() + 1);
        Ok(if looks.get() == 1 { Vec::new() } else { vec!["i-late".to_owned()] })
    };
    let refused = migrate(&stack.aws, Options::default(), instances, &mut Progress::default()).await;
    assert!(refused.expect_err("it serves").message().contains("i-late"));
    assert_eq!(stack.read_user("users/Ana").await.as_deref(), Some(&b"plain-text-of-ana"[..]));
    let deploying = documents::profile(&stack.aws, None, None).await.expect_err("it is in the middle");
    assert!(deploying.message().contains("migrate-profile"), "{}", deploying.message());

    run(&stack.aws, Options::default()).await.expect("the worker is gone");
    all_are_secure(&stack, &users).await;
    assert_eq!(
        documents::profile(&stack.aws, Some(Profile::Secure), None).await.expect("done"),
        Profile::Secure
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_classic_users_are_converted() {
    let stack = classic(&[]).await;
    let refused_deploy =
        documents::profile(&stack.aws, Some(Profile::Secure), None).await.expect_err("classic");
    assert!(refused_deploy.message().contains("make migrate-profile"), "{}", refused_deploy.message());
    stack.write_user(keys::PROFILE_MARKER, b"paranoid").await;
    let said = refused(&stack, Options::default()).await.message();
    assert!(said.contains("is not known"), "{said}");

    let empty = Stack::new().await;
    let said = refused(&empty, Options::default()).await.message();
    assert!(said.contains("there is no stack"), "{said}");
}
