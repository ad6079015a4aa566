//! Parameters of query APIs, in the body of a request.

/// A query's parameters, in the order they came.
pub(crate) type Form = Vec<(String, String)>;

pub(crate) fn parse_form(body: &[u8]) -> Form {
    let decode = |text: &str| {
        percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
    };
    String::from_utf8_lossy(body)
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

pub(crate) fn encode_form(form: &Form) -> String {
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    form.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_survives_a_round_trip() {
        let form = [("Action", "RunInstances"), ("UserData", "a+b/c=="), ("Tag.1.Value", "x y&z")];
        let form: Form = form.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        assert_eq!(parse_form(encode_form(&form).as_bytes()), form);
    }
}
