//! Logs: one JSON line per event on standard error, or plain text on a terminal.
//!
//! No request path is ever logged by anyone (two routes carry passwords in it), so there is no
//! tracing layer for HTTP here; programs log events with named fields.

use std::error::Error;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Installs the subscriber. `filter` has the syntax of `RUST_LOG`; the default is `info` for us and
/// `warn` for libraries, because the AWS SDK's debug events contain request bodies.
pub fn init(filter: Option<&str>) {
    let filter =
        EnvFilter::try_new(filter.unwrap_or("info,aws_config=warn,aws_smithy_runtime=warn,hyper=warn"))
            .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    // A second call in one process (tests) keeps the first subscriber.
    drop(installed);
}

/// An error and its causes on one line: `a: b: c`. Errors print only their own layer, so this is
/// the one place that puts the layers together.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let layer = error.to_string();
        // SDK errors repeat their source's text; saying it twice helps nobody.
        if !text.contains(&layer) {
            write!(text, ": {layer}").expect("writing to a String cannot fail");
        }
        cause = error.source();
    }
    text
}
