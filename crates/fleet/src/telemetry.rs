//! Logs: one JSON line per event on standard error, or plain text on a terminal.
//!
//! No program ever logs a request path (two routes carry passwords in it), so there is no tracing layer for
//! HTTP here; programs log events with named fields.
//!
//! A serving program must not wait for the reader of its log: [`serve`] writes from a thread of its own, with
//! bounds. A program that ends after each piece of work, or is frozen then like a Lambda function, writes at
//! once: [`init`].

mod writer;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use jiff::Timestamp;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

pub use writer::{AUDIT, LogThread};

/// Installs the subscriber. `filter` has the syntax of `RUST_LOG`; the default is `info` for Vigia and `warn`
/// for libraries, because the AWS SDK's debug events contain request bodies.
pub fn init(filter: Option<&str>) {
    install(filter, io::stderr);
}

/// [`init`] for a serving program: no line, and no panic, waits for standard error. The writing thread runs
/// until the result is dropped; `None` if it could not be started, and then lines wait.
pub fn serve(filter: Option<&str>) -> Option<LogThread> {
    match writer::start(io::stderr(), notice(io::stderr().is_terminal())) {
        Ok((lines, thread)) => {
            install(filter, lines);
            // The default hook writes to standard error itself.
            std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
            Some(thread)
        }
        Err(error) => {
            init(filter);
            tracing::warn!(%error, "cannot start a thread for the log; a full pipe will delay requests");
            None
        }
    }
}

/// Returns a function that formats a sentence about the log itself as a line.
fn notice(is_terminal: bool) -> impl Fn(&str) -> String + Send + 'static {
    move |text| {
        let now = Timestamp::now();
        if is_terminal {
            format!("{now}  WARN {text}\n")
        } else {
            let line = serde_json::json!({
                "timestamp": now, "level": "WARN", "message": text, "target": module_path!(),
            });
            format!("{line}\n")
        }
    }
}

fn install<W>(filter: Option<&str>, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter =
        EnvFilter::try_new(filter.unwrap_or("info,aws_config=warn,aws_smithy_runtime=warn,hyper=warn"))
            .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let installed = if io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    // A second call in one process (tests) keeps the first subscriber.
    drop(installed);
}

/// Formats an error and its causes on one line: `a: b: c`. Errors print only their own layer, so this is the
/// one place that puts the layers together.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let layer = error.to_string();
        // SDK errors repeat their source's text; printing it twice does not help.
        if !text.contains(&layer) {
            write!(text, ": {layer}").expect("writing to a String cannot fail");
        }
        cause = error.source();
    }
    text
}
