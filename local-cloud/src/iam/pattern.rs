//! The patterns of policies: `*` stands for any text, `?` for one character.

use super::context::Context;

/// Returns whether a text fits a pattern of actions. Case does not count.
pub(super) fn fits_action(pattern: &str, action: &str) -> bool {
    fits(&literal(&pattern.to_ascii_lowercase()), &action.to_ascii_lowercase())
}

/// Returns whether a text fits a pattern in which variables are replaced: `${aws:username}`.
///
/// A variable without a value fits nothing (IAM user guide, "Policy variables").
pub(super) fn fits_text(pattern: &str, text: &str, context: &Context) -> bool {
    expand(pattern, context).is_some_and(|pattern| fits(&pattern, text))
}

/// Returns whether an ARN fits a pattern. Each of the six parts between colons is compared separately, so
/// that no `*` matches a colon except in the last part.
pub(super) fn fits_arn(pattern: &str, arn: &str, context: &Context) -> bool {
    if pattern == "*" {
        return true;
    }
    let (patterns, parts): (Vec<&str>, Vec<&str>) = (split_arn(pattern), arn.splitn(6, ':').collect());
    if patterns.len() != 6 || parts.len() != 6 {
        return pattern == arn;
    }
    patterns.iter().zip(parts).all(|(pattern, part)| fits_text(pattern, part, context))
}

/// Splits at the first five colons outside of variables.
fn split_arn(pattern: &str) -> Vec<&str> {
    let (mut parts, mut start, mut in_variable) = (Vec::new(), 0, false);
    for (at, letter) in pattern.char_indices() {
        match letter {
            '{' if pattern[..at].ends_with('$') => in_variable = true,
            '}' => in_variable = false,
            ':' if !in_variable && parts.len() < 5 => {
                parts.push(&pattern[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&pattern[start..]);
    parts
}

/// One element of a pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Any,
    One,
    Exactly(char),
}

fn literal(pattern: &str) -> Vec<Place> {
    pattern.chars().map(place).collect()
}

fn place(letter: char) -> Place {
    match letter {
        '*' => Place::Any,
        '?' => Place::One,
        letter => Place::Exactly(letter),
    }
}

/// Replaces the variables; their values have no wildcards. `${*}`, `${?}` and `${$}` are those characters
/// themselves.
fn expand(pattern: &str, context: &Context) -> Option<Vec<Place>> {
    let mut places = Vec::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else { break };
        places.extend(before.chars().map(place));
        let value = match name {
            "*" | "?" | "$" => name,
            name => context.single(name)?,
        };
        places.extend(value.chars().map(Place::Exactly));
        rest = after;
    }
    places.extend(rest.chars().map(place));
    Some(places)
}

/// Returns whether a text fits. Takes time in proportion to both lengths, whatever the pattern, because
/// policies come from callers.
fn fits(pattern: &[Place], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut read) = (0, 0);
    // Where to continue if the part after the last `*` does not fit: the place after it, and the text it
    // matched.
    let mut retry: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(Place::Any) => {
                at += 1;
                retry = Some((at, read));
            }
            Some(Place::One) => (at, read) = (at + 1, read + 1),
            Some(Place::Exactly(letter)) if *letter == text[read] => (at, read) = (at + 1, read + 1),
            _ => {
                let Some((after_star, taken)) = retry else { return false };
                retry = Some((after_star, taken + 1));
                (at, read) = (after_star, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|place| *place == Place::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_context() -> Context {
        Context::default()
    }

    #[test]
    fn star_and_question_mark_are_wildcards() {
        for (pattern, text, is_fit) in [
            ("*", "", true),
            ("a*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("a*b*c", "axbxbxc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("", "", true),
            ("", "a", false),
            ("users/*", "users/\u{e4}na", true),
            ("users/?na", "users/\u{e4}na", true),
        ] {
            assert_eq!(fits_text(pattern, text, &no_context()), is_fit, "{pattern} {text}");
        }
    }

    #[test]
    fn actions_ignore_case_and_texts_do_not() {
        assert!(fits_action("S3:getobject*", "s3:GetObjectVersion"));
        assert!(!fits_action("s3:Get", "s3:GetObject"));
        assert!(!fits_text("Users", "users", &no_context()));
    }

    #[test]
    fn a_star_in_an_arn_stays_between_its_colons() {
        let fits = |pattern, arn| fits_arn(pattern, arn, &no_context());
        assert!(fits("*", "arn:aws:s3:::b"));
        assert!(fits("arn:aws:s3:::b/*", "arn:aws:s3:::b/users/a:b"));
        assert!(fits("arn:aws:ec2:*:1:instance/*", "arn:aws:ec2:eu-west-1:1:instance/i-1"));
        assert!(!fits("arn:aws:ec2:*:instance/*", "arn:aws:ec2:eu-west-1:1:instance/i-1"));
        assert!(!fits("arn:aws:s3:::b", "arn:aws:s3:::b2"));
        assert!(fits("arn:aws:logs:r:1:log-group:/g:*", "arn:aws:logs:r:1:log-group:/g:log-stream:s"));
    }

    #[test]
    fn variables_are_replaced_and_bring_no_wildcards() {
        let context = Context::default().with("aws:username", "a*");
        let fits = |arn| fits_arn("arn:aws:iam::1:user/${aws:UserName}", arn, &context);
        assert!(fits("arn:aws:iam::1:user/a*"));
        assert!(!fits("arn:aws:iam::1:user/ab"));
        assert!(!fits_text("${aws:username}", "", &no_context()), "without a value it fits nothing");
        assert!(fits_text("a${*}", "a*", &no_context()) && !fits_text("a${*}", "ab", &no_context()));
    }
}
