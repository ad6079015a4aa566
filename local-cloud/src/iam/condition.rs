//! The operators of `Condition` (IAM user guide, "IAM JSON policy elements: Condition operators").
//!
//! | a statement's condition | holds when |
//! |---|---|
//! | several operators, or keys below one | all of them hold |
//! | several values of one key | one of them fits; with a negated operator, none |
//! | a key that the call does not have | `Null: true`, a negated operator, `…IfExists`, `ForAllValues:` |

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::context::Context;
use super::document::{Invalid, texts};
use super::pattern::{fits_arn, fits_text};

/// One operator with one key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    operator: Operator,
    quantifier: Quantifier,
    /// `…IfExists`: holds where the call has no such key.
    if_exists: bool,
    key: String,
    wanted: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantifier {
    None,
    Any,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Operator {
    compare: Compare,
    is_negated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Text,
    TextIgnoringCase,
    Pattern,
    Arn,
    Bool,
    Null,
    Number(Order),
    Date(Order),
    Address,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// All operators. `ArnEquals` and `ArnLike` behave alike, as documented.
const OPERATORS: [(&str, Compare, bool); 27] = [
    ("StringEquals", Compare::Text, false),
    ("StringNotEquals", Compare::Text, true),
    ("StringEqualsIgnoreCase", Compare::TextIgnoringCase, false),
    ("StringNotEqualsIgnoreCase", Compare::TextIgnoringCase, true),
    ("StringLike", Compare::Pattern, false),
    ("StringNotLike", Compare::Pattern, true),
    ("ArnEquals", Compare::Arn, false),
    ("ArnLike", Compare::Arn, false),
    ("ArnNotEquals", Compare::Arn, true),
    ("ArnNotLike", Compare::Arn, true),
    ("Bool", Compare::Bool, false),
    ("Null", Compare::Null, false),
    ("IpAddress", Compare::Address, false),
    ("NotIpAddress", Compare::Address, true),
    ("NumericEquals", Compare::Number(Order::Equal), false),
    ("NumericNotEquals", Compare::Number(Order::Equal), true),
    ("NumericLessThan", Compare::Number(Order::Less), false),
    ("NumericLessThanEquals", Compare::Number(Order::LessOrEqual), false),
    ("NumericGreaterThan", Compare::Number(Order::Greater), false),
    ("NumericGreaterThanEquals", Compare::Number(Order::GreaterOrEqual), false),
    ("DateEquals", Compare::Date(Order::Equal), false),
    ("DateNotEquals", Compare::Date(Order::Equal), true),
    ("DateLessThan", Compare::Date(Order::Less), false),
    ("DateLessThanEquals", Compare::Date(Order::LessOrEqual), false),
    ("DateGreaterThan", Compare::Date(Order::Greater), false),
    ("DateGreaterThanEquals", Compare::Date(Order::GreaterOrEqual), false),
    ("BinaryEquals", Compare::Text, false),
];

impl Condition {
    /// Parses the `Condition` of a statement.
    pub(super) fn parse_all(conditions: &Value) -> Result<Vec<Self>, Invalid> {
        let Some(conditions) = conditions.as_object() else {
            return if conditions.is_null() { Ok(Vec::new()) } else { Err(Invalid::Shape("Condition")) };
        };
        let mut all = Vec::new();
        for (name, keys) in conditions {
            for (key, wanted) in keys.as_object().ok_or(Invalid::Shape("Condition"))? {
                all.push(Self::parse(name, key, texts(wanted))?);
            }
        }
        Ok(all)
    }

    fn parse(name: &str, key: &str, wanted: Vec<String>) -> Result<Self, Invalid> {
        let (quantifier, plain) = match name.split_once(':') {
            Some(("ForAnyValue", plain)) => (Quantifier::Any, plain),
            Some(("ForAllValues", plain)) => (Quantifier::All, plain),
            Some(_) => return Err(Invalid::Operator(name.to_owned())),
            None => (Quantifier::None, name),
        };
        let (plain, if_exists) = match plain.strip_suffix("IfExists") {
            Some(plain) => (plain, true),
            None => (plain, false),
        };
        let known = OPERATORS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(plain));
        let (_, compare, is_negated) = known.ok_or_else(|| Invalid::Operator(name.to_owned()))?;
        let operator = Operator { compare: *compare, is_negated: *is_negated };
        Ok(Self { operator, quantifier, if_exists, key: key.to_owned(), wanted })
    }

    pub(super) fn holds(&self, context: &Context) -> bool {
        let given = context.values(&self.key);
        if self.operator.compare == Compare::Null {
            let wants_absence = self.wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case("true"));
            return given.is_empty() == wants_absence;
        }
        if given.is_empty() {
            // A negated operator holds for a missing key, with `ForAnyValue` it does not.
            return self.if_exists
                || self.quantifier == Quantifier::All
                || (self.operator.is_negated && self.quantifier == Quantifier::None);
        }
        let holds = |given: &String| self.holds_for(given, context);
        match self.quantifier {
            Quantifier::All => given.iter().all(holds),
            Quantifier::Any => given.iter().any(holds),
            Quantifier::None if self.operator.is_negated => given.iter().all(holds),
            Quantifier::None => given.iter().any(holds),
        }
    }

    fn holds_for(&self, given: &str, context: &Context) -> bool {
        let fits = self.wanted.iter().any(|wanted| self.operator.compare.fits(wanted, given, context));
        fits != self.operator.is_negated
    }
}

impl Compare {
    fn fits(self, wanted: &str, given: &str, context: &Context) -> bool {
        match self {
            // A wildcard is an ordinary character here, a variable is not.
            Self::Text => exactly(wanted, given, context),
            Self::TextIgnoringCase => exactly(&wanted.to_lowercase(), &given.to_lowercase(), context),
            Self::Pattern => fits_text(wanted, given, context),
            Self::Arn => given.starts_with("arn:") && fits_arn(wanted, given, context),
            Self::Bool => wanted.eq_ignore_ascii_case(given),
            Self::Null => false,
            Self::Number(order) => {
                let numbers = given.parse::<f64>().ok().zip(wanted.parse::<f64>().ok());
                numbers.and_then(|(given, wanted)| given.partial_cmp(&wanted)).is_some_and(|is| order.is(is))
            }
            Self::Date(order) => {
                date(given).zip(date(wanted)).is_some_and(|(given, wanted)| order.is(given.cmp(&wanted)))
            }
            Self::Address => is_in_block(given, wanted),
        }
    }
}

impl Order {
    fn is(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

fn exactly(wanted: &str, given: &str, context: &Context) -> bool {
    if wanted.contains("${") {
        let escaped = wanted.replace('*', "${*}").replace("?", "${?}");
        return fits_text(&escaped, given, context);
    }
    wanted == given
}

/// Parses a date in a policy: ISO 8601, or seconds since 1970.
fn date(text: &str) -> Option<jiff::Timestamp> {
    let seconds = || jiff::Timestamp::from_second(text.parse().ok()?).ok();
    let day = || {
        let day: jiff::civil::Date = text.parse().ok()?;
        Some(day.to_zoned_datetime(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    };
    text.parse().ok().or_else(seconds).or_else(day)
}

fn is_in_block(address: &str, block: &str) -> bool {
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let block = block.parse::<IpNet>().or_else(|_| block.parse().map(|single: IpAddr| IpNet::from(single)));
    block.is_ok_and(|block| block.contains(&address))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(condition: &Value, context: &Context) -> bool {
        Condition::parse_all(condition).expect("valid").iter().all(|condition| condition.holds(context))
    }

    fn given(value: &str) -> Context {
        Context::default().with("k", value)
    }

    #[test]
    fn each_operator_compares_as_documented() {
        for (operator, wanted, value, expected) in [
            ("StringEquals", "a*", "a*", true),
            ("StringEquals", "a*", "ab", false),
            ("StringNotEquals", "a", "b", true),
            ("StringNotEquals", "a", "a", false),
            ("StringEqualsIgnoreCase", "Ab", "aB", true),
            ("StringLike", "a*", "ab", true),
            ("StringNotLike", "a*", "ab", false),
            ("ArnEquals", "arn:aws:lambda:*:1:function:f", "arn:aws:lambda:r:1:function:f", true),
            ("ArnLike", "arn:aws:lambda:*:function:f", "arn:aws:lambda:r:1:function:f", false),
            ("ArnNotLike", "arn:aws:s3:::b", "arn:aws:s3:::c", true),
            ("Bool", "false", "false", true),
            ("Bool", "true", "false", false),
            ("NumericEquals", "10", "10.0", true),
            ("NumericLessThan", "10", "9", true),
            ("NumericLessThan", "10", "10", false),
            ("NumericLessThanEquals", "10", "10", true),
            ("NumericGreaterThan", "10", "9", false),
            ("NumericGreaterThanEquals", "10", "x", false),
            ("NumericNotEquals", "10", "9", true),
            ("DateGreaterThan", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", true),
            ("DateLessThan", "2026-01-01", "2026-01-02T00:00:00Z", false),
            ("DateEquals", "0", "1970-01-01T00:00:00Z", true),
            ("IpAddress", "203.0.113.0/24", "203.0.113.9", true),
            ("IpAddress", "203.0.113.0/24", "203.0.114.9", false),
            ("IpAddress", "2001:db8::/32", "2001:db8:1::1", true),
            ("IpAddress", "0.0.0.0/0", "2001:db8::1", false),
            ("NotIpAddress", "203.0.113.9", "203.0.113.9", false),
            ("Null", "false", "x", true),
            ("Null", "true", "x", false),
        ] {
            let condition = json!({operator: {"k": wanted}});
            assert_eq!(holds(&condition, &given(value)), expected, "{operator} {wanted} {value}");
        }
    }

    #[test]
    fn an_absent_key_fails_unless_the_operator_says_otherwise() {
        for (operator, expected) in [
            ("StringEquals", false),
            ("StringLike", false),
            ("Bool", false),
            ("StringEqualsIfExists", true),
            ("StringNotEquals", true),
            ("ArnNotLike", true),
            ("ForAllValues:StringEquals", true),
            ("ForAnyValue:StringEquals", false),
            ("ForAnyValue:StringNotEquals", false),
        ] {
            assert_eq!(holds(&json!({operator: {"k": "a"}}), &Context::default()), expected, "{operator}");
        }
        assert!(holds(&json!({"Null": {"k": "true"}}), &Context::default()));
        assert!(!holds(&json!({"Null": {"k": "false"}}), &Context::default()));
    }

    #[test]
    fn values_of_a_condition_are_alternatives_and_keys_are_not() {
        let context = given("b").with("other", "x");
        assert!(holds(&json!({"StringEquals": {"k": ["a", "b"]}}), &context));
        assert!(!holds(&json!({"StringNotEquals": {"k": ["a", "b"]}}), &context));
        assert!(!holds(&json!({"StringEquals": {"k": "b", "other": "y"}}), &context));
        assert!(!holds(&json!({"StringEquals": {"k": "b"}, "StringLike": {"other": "y*"}}), &context));
    }

    #[test]
    fn several_values_of_a_key_are_judged_by_the_quantifier() {
        let context = Context::default().with("aws:RequestTag/a", "1").with("aws:RequestTag/b", "2");
        let tags =
            |operator: &str, wanted: &[&str]| holds(&json!({operator: {"aws:TagKeys": wanted}}), &context);
        assert!(tags("ForAllValues:StringEquals", &["a", "b", "c"]));
        assert!(!tags("ForAllValues:StringEquals", &["a"]));
        assert!(tags("ForAnyValue:StringEquals", &["a"]));
        assert!(!tags("ForAnyValue:StringEquals", &["c"]));
    }

    #[test]
    fn an_unknown_operator_makes_a_policy_invalid() {
        for operator in ["StringIs", "ForSomeValues:StringEquals"] {
            assert!(Condition::parse_all(&json!({operator: {"k": "a"}})).is_err(), "{operator}");
        }
    }
}
