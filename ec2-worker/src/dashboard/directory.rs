//! The users whose login begins with a text, in pieces: from the names of the objects alone.

use accounts::{Login, LoginError, login_of, object_key};
use fleet::Profile;
use fleet::keys::USERS_PREFIX;

use aws::bucket::Bucket;

/// A screen or two. S3 gives a thousand names for the same price.
pub const PAGE: usize = 50;

/// The operator's search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The beginning of a login; empty for all.
    pub text: String,
    /// The last login of the previous page.
    pub after: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Directory {
    pub query: Query,
    pub logins: Vec<String>,
    pub has_more: bool,
    /// Why no logins can be listed.
    pub problem: Option<String>,
}

/// Lists one page of the logins that begin with the text of `query`.
pub async fn search(data: &Bucket, profile: Profile, query: Query) -> Directory {
    let keys = match keys(profile, &query) {
        Ok(keys) => keys,
        Err(rule) => return Directory { problem: Some(format!("{rule}.")), query, ..Directory::default() },
    };
    match data.list(&keys.prefix, keys.after.as_deref()).await {
        Err(error) => Directory {
            problem: Some(format!("The users cannot be listed: {error}.")),
            query,
            ..Directory::default()
        },
        Ok(page) => {
            let mut logins: Vec<String> = page
                .keys
                .iter()
                .filter_map(|key| login_of(profile, key))
                .map(|login| login.as_str().to_owned())
                .collect();
            let has_more = page.has_more || logins.len() > PAGE;
            logins.truncate(PAGE);
            Directory { query, logins, has_more, problem: None }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Keys {
    prefix: String,
    after: Option<String>,
}

fn keys(profile: Profile, query: &Query) -> Result<Keys, LoginError> {
    let prefix = match Login::parse(profile, &query.text) {
        Ok(login) => object_key(profile, &login),
        Err(LoginError::Empty) => USERS_PREFIX.to_owned(),
        // `.` and `..` are not logins, but logins may begin with them.
        Err(LoginError::Dots) => format!("{USERS_PREFIX}{}", "!2e".repeat(query.text.chars().count())),
        Err(rule) => return Err(rule),
    };
    let after = query.after.as_deref().map(|login| Login::parse(profile, login)).transpose()?;
    Ok(Keys { prefix, after: after.map(|login| object_key(profile, &login)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(
        profile: Profile,
        text: &str,
        after: Option<&str>,
    ) -> Result<(String, Option<String>), LoginError> {
        let query = Query { text: text.to_owned(), after: after.map(str::to_owned) };
        super::keys(profile, &query).map(|keys| (keys.prefix, keys.after))
    }

    #[test]
    fn a_login_prefix_is_searched_in_its_stored_form() {
        let prefix = |profile, text| keys(profile, text, None).map(|(prefix, _)| prefix);
        assert_eq!(prefix(Profile::Secure, "").as_deref(), Ok("users/"));
        assert_eq!(prefix(Profile::Secure, "An").as_deref(), Ok("users/an"));
        assert_eq!(prefix(Profile::Secure, ".").as_deref(), Ok("users/!2e"));
        assert_eq!(prefix(Profile::Secure, "a.").as_deref(), Ok("users/a!2e"));
        assert_eq!(prefix(Profile::Secure, "a/"), Err(LoginError::Slash));
        assert_eq!(prefix(Profile::Classic, "A/").as_deref(), Ok("users/A!2f"));
    }

    #[test]
    fn a_page_of_users_begins_after_a_login() {
        let after = |text| keys(Profile::Secure, "a", Some(text)).map(|(_, after)| after);
        assert_eq!(after("ana.b"), Ok(Some("users/ana!2eb".to_owned())));
        assert_eq!(after(""), Err(LoginError::Empty));
    }
}
