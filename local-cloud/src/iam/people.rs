//! IAM users and STS sessions: the keys that the front door accepts.
//!
//! The emulator makes the keys; here they are learned from its answers. Keys of users survive a restart of
//! the local cloud, as the users themselves do.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use axum::body::Body;
use axum::http::Response;
use serde::{Deserialize, Serialize};

use super::Iam;
use super::books::iam_owned;
use super::policy::Policy;
use crate::ACCOUNT;
use crate::call::Call;
use crate::calls;
use crate::credentials::{Credentials, Principal};
use crate::xml::Element;

/// IAM's limit for a managed policy, which does not count white space.
const MAX_POLICY: usize = 6144;

/// A user that `/_local-cloud/users` is to make, or to give another policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserWanted {
    pub name: String,
    /// The one policy that the user has.
    pub policy: serde_json::Value,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserKey {
    pub access_key: String,
    pub secret: String,
}

/// The file with the users' keys between two runs, readable by its owner alone.
#[derive(Debug)]
pub(crate) struct KeyFile(PathBuf);

impl KeyFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn load(&self, credentials: &Credentials) -> anyhow::Result<()> {
        let text = match std::fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.0.display())),
        };
        let keys: Vec<(String, String, String)> =
            serde_json::from_str(&text).with_context(|| format!("{} is damaged", self.0.display()))?;
        for (key, secret, name) in keys {
            credentials.learn(&key, &secret, Principal::User { name });
        }
        Ok(())
    }

    fn save(&self, credentials: &Credentials) -> anyhow::Result<()> {
        let new = self.0.with_extension("new");
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(&credentials.of_users())?)?;
        std::fs::rename(&new, &self.0)?;
        Ok(())
    }
}

/// Learns keys from a successful answer of IAM or STS.
pub(crate) async fn hear_of(iam: &Iam, call: &Call, answer: Response<Body>) -> Response<Body> {
    let matters = matches!(
        call.action.as_str(),
        "CreateAccessKey" | "UpdateAccessKey" | "DeleteAccessKey" | "AssumeRole"
    );
    if !matters || !matches!(call.service.as_str(), "iam" | "sts") || !answer.status().is_success() {
        return answer;
    }
    let (answer, body) = calls::read(answer, &call.service).await;
    let credentials = &iam.credentials;
    let key = call.parameter("AccessKeyId");
    match (call.action.as_str(), key) {
        ("DeleteAccessKey", Some(key)) => credentials.unlearn(key),
        ("UpdateAccessKey", Some(key)) if call.parameter("Status") == Some("Inactive") => {
            credentials.unlearn(key)
        }
        _ => learn(credentials, call, &body),
    }
    if call.service == "iam"
        && let Err(error) = iam.keys.save(credentials)
    {
        tracing::error!(%error, "the keys of users cannot be kept; a restart forgets them");
    }
    answer
}

fn learn(credentials: &Credentials, call: &Call, answer: &[u8]) {
    let Ok(answer) = Element::parse(answer) else { return };
    let (Some(key), Some(secret)) = (answer.text_of("AccessKeyId"), answer.text_of("SecretAccessKey")) else {
        return;
    };
    let role = call.parameter("RoleArn").and_then(|arn| arn.rsplit('/').next());
    let principal = match (answer.text_of("UserName"), role) {
        (Some(name), _) => Principal::User { name: name.to_owned() },
        (None, Some(role)) => {
            let name = call.parameter("RoleSessionName").unwrap_or("session").to_owned();
            Principal::Session { role: role.to_owned(), name }
        }
        (None, None) => return,
    };
    credentials.learn(key, secret, principal);
}

/// Makes a user with exactly this policy, or replaces an existing user's policy; returns a key of the user.
pub(crate) async fn ensure(iam: &Iam, wanted: &UserWanted) -> anyhow::Result<UserKey> {
    let UserWanted { name, policy } = wanted;
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_letter) {
        bail!("`{name}` is not a user name: use up to 64 letters, digits and `+=,.@_-`");
    }
    let document = policy.to_string();
    Policy::parse(&document).context("this is not a policy")?;
    let chars = document.chars().filter(|letter| !letter.is_whitespace()).count();
    if chars > MAX_POLICY {
        bail!("the policy has {chars} characters, more than IAM's limit of {MAX_POLICY}");
    }
    let user = [("UserName", name.as_str())];
    if ask(iam, "GetUser", &user).await.is_none() {
        must(iam, "CreateUser", &user).await?;
    }
    let arn = format!("arn:aws:iam::{ACCOUNT}:policy/{name}");
    let of_policy = [("PolicyArn", arn.as_str())];
    if ask(iam, "GetPolicy", &of_policy).await.is_none() {
        must(iam, "CreatePolicy", &[("PolicyName", name), ("PolicyDocument", &document)]).await?;
    } else {
        // A policy has at most five versions.
        let versions = must(iam, "ListPolicyVersions", &of_policy).await?;
        for version in versions.all("member") {
            if version.text_of("IsDefaultVersion") == Some("false") {
                let id = version.text_of("VersionId").unwrap_or("");
                must(iam, "DeletePolicyVersion", &[of_policy[0], ("VersionId", id)]).await?;
            }
        }
        let version = [of_policy[0], ("PolicyDocument", document.as_str()), ("SetAsDefault", "true")];
        must(iam, "CreatePolicyVersion", &version).await?;
    }
    must(iam, "AttachUserPolicy", &[user[0], of_policy[0]]).await?;
    iam.books.forget();
    let known = iam.credentials.of_users().into_iter().find(|(.., owner)| owner == name);
    if let Some((access_key, secret, _)) = known {
        return Ok(UserKey { access_key, secret });
    }
    let made = must(iam, "CreateAccessKey", &user).await?;
    let text = |name: &str| made.text_of(name).map(str::to_owned).context("a key without its parts");
    let key = UserKey { access_key: text("AccessKeyId")?, secret: text("SecretAccessKey")? };
    iam.credentials.learn(&key.access_key, &key.secret, Principal::User { name: name.clone() });
    iam.keys.save(&iam.credentials)?;
    Ok(key)
}

async fn must(iam: &Iam, action: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Element> {
    ask(iam, action, parameters).await.with_context(|| format!("the emulator of IAM refused {action}"))
}

async fn ask(iam: &Iam, action: &str, parameters: &[(&str, &str)]) -> Option<Element> {
    let all = [("Action", action)].into_iter().chain(parameters.iter().copied());
    iam_owned(&iam.ministack, all.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(call: &Call, answer: &str) -> Option<Principal> {
        let credentials = Credentials::new("function", "secret");
        learn(&credentials, call, answer.as_bytes());
        credentials.find("AKIA1").map(|(_, principal)| principal)
    }

    #[test]
    fn a_users_key_is_learned_from_the_answer_that_made_it() {
        let call = Call::example("iam", "CreateAccessKey", "/");
        let answer = "<R><AccessKey><UserName>u</UserName><AccessKeyId>AKIA1</AccessKeyId>\
            <SecretAccessKey>s</SecretAccessKey></AccessKey></R>";
        assert_eq!(learned(&call, answer), Some(Principal::User { name: "u".to_owned() }));
        assert_eq!(learned(&call, "<R/>"), None);
    }

    #[test]
    fn an_assumed_role_is_learned_with_its_session() {
        let call = Call::example("sts", "AssumeRole", "/")
            .with("RoleArn", "arn:aws:iam::000000000000:role/r")
            .with("RoleSessionName", "s");
        let answer = "<R><Credentials><AccessKeyId>AKIA1</AccessKeyId>\
            <SecretAccessKey>s</SecretAccessKey></Credentials></R>";
        let expected = Principal::Session { role: "r".to_owned(), name: "s".to_owned() };
        assert_eq!(learned(&call, answer), Some(expected));
    }

    #[test]
    fn user_keys_survive_a_restart_and_only_their_owner_reads_them() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let file = KeyFile::new(dir.path().join("access-keys.json"));
        let before = Credentials::new("function", "secret");
        file.load(&before).expect("none are there yet");
        before.learn("AKIA1", "s", Principal::User { name: "u".to_owned() });
        file.save(&before).expect("written");
        let after = Credentials::new("function", "secret");
        file.load(&after).expect("read");
        assert_eq!(after.of_users(), [("AKIA1".to_owned(), "s".to_owned(), "u".to_owned())]);
        let mode =
            std::fs::metadata(dir.path().join("access-keys.json")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        after.unlearn("AKIA1");
        after.unlearn("test");
        assert!(after.find("AKIA1").is_none() && after.find("test").is_some());
    }
}
